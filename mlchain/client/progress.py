"""What a job or a chain waits for, in words: pure functions over the API's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlchain.errors import Rejected

FINAL_STATES = ("settled", "trapped", "expired")
"""States a job never leaves."""
BAR_WIDTH = 24

_WAITS = {
    "assigned": "{worker} to train segment {part}",
    "committed": "validators to re-run their samples of segment {part}",
    "disputed": "all validators to re-run the disputed chunk of segment {part}",
}


def describe_job(job: Mapping[str, Any]) -> str:
    """Return what the job waits for now."""
    state = job["state"]
    if state == "submitted":
        return "waiting for validators to hold the data"
    if state == "accepted":
        return "waiting for the beacon to fix the order and the workers"
    if state == "running":
        for segment in job.get("segments", []):
            wait = _WAITS.get(segment["state"])
            if wait is not None:
                part = f"{segment['index'] + 1} of {job['total_segments']}"
                worker = segment.get("worker") or "a worker"
                return "waiting for " + wait.format(worker=worker, part=part)
        return "waiting for the next segment to be assigned"
    return {"settled": "settled", "trapped": "stopped by a trap", "expired": "expired"}.get(
        state, str(state)
    )


def require_settled(job: Mapping[str, Any]) -> None:
    """Return if a job that has ended left a model.

    Raises:
        Rejected: it trapped, or nobody could finish it.
    """
    if job["state"] != "settled":
        identity, why = str(job["id"])[:8], _ENDS.get(job["state"], "it has no result")
        raise Rejected(f"job {identity} {job['state']}: {why}", f"mlchain job show {identity}")


_ENDS = {
    "trapped": "a step left the exact range, on every machine alike; the rest of the fee is back",
    "expired": "nobody could finish it in time; the rest of the fee is back",
}


def bar(done: int, total: int) -> str:
    """Return a progress bar with its numbers."""
    filled = BAR_WIDTH * done // total if total else 0
    return "━" * filled + "╌" * (BAR_WIDTH - filled) + f" {done}/{total}"


def describe_chain(status: Mapping[str, Any]) -> str:
    """Return the head of the chain and who is missing, as `height 12, all peers connected`."""
    missing = [peer["name"] for peer in status.get("peers", []) if not peer["connected"]]
    who = f"not connected: {', '.join(missing)}" if missing else "all peers connected"
    return f"height {status['height']}, {who}"
