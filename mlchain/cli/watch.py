"""Following a job: what happened between two looks at it, one line per event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlchain.cli.output import Output
from mlchain.cli.text import dim, fault_lines, good, progress_line, score_text, verified_lines
from mlchain.client.client import Client
from mlchain.client.progress import require_settled

Json = dict[str, Any]


def watch_job(client: Client, identity: str, out: Output, patience_s: float) -> Json:
    """Show a job's progress until it is final and return its last state.

    Raises:
        Rejected: it ended without a model: trapped or expired.
        Timeout: nothing happened for `patience_s`.
    """
    job: Json = {}
    for now in client.follow(identity, patience_s):
        for line in events_between(job, now):
            out.note(line)
        out.live(progress_line(now))
        job = now
    out.end_live()
    require_settled(job)
    return job


def events_between(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each thing that happened between two states of a job."""
    if old.get("state") != new["state"] and new["state"] in ("accepted", "running"):
        yield good(
            "accepted  validators hold the data; two blocks on, the beacon fixes order and workers"
            if new["state"] == "accepted"
            else "running   order and workers are fixed"
        )
    yield from fault_lines(new.get("faults", [])[len(old.get("faults", [])) :], new)
    before = {segment["index"]: segment for segment in old.get("segments", [])}
    total = int(new.get("total_segments", 0))
    for segment in new.get("segments", []):
        yield from _segment_events(before.get(segment["index"], {}), segment, total)


def _segment_events(old: Mapping[str, Any], new: Mapping[str, Any], total: int) -> Iterator[str]:
    if (old.get("state"), old.get("attempt")) == (new["state"], new.get("attempt")):
        return
    name = f"  segment {new['index'] + 1}/{total}"
    if new["state"] == "assigned":
        yield dim(f"{name}  assigned to {new['worker']}")
    elif new["state"] == "committed":
        yield dim(f"{name}  committed by {new['worker']} in block #{new['commit_height']}")
    elif new["state"] == "disputed":
        yield f"{name}  disputed: every validator re-runs slice {new['disputed_chunk']}"
    elif new["state"] == "hard":
        slices = new.get("slices") or {}
        yield good(
            f"{name.strip()}  final in block #{new['hard_height']}: {len(slices)} validators "
            f"re-ran {new['chunks_rerun']} of {new['chunks']} slices"
        )


def result_lines(job: Mapping[str, Any]) -> list[str]:
    """Return what a settled job gave: what was checked, the score, and the hashes."""
    return [
        *verified_lines(job),
        "",
        f"  {score_text(job.get('metrics'))}",
        f"  model       {job['model']}",
        f"  state hash  {job['state_digest']}",
    ]
