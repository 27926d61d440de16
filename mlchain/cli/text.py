"""Small pieces of text that several commands print the same way."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from mlchain.client.progress import bar, describe_job


def good(text: str) -> str:
    """Return `✓ text`, green."""
    return click.style("✓", fg="green") + " " + text


def bad(text: str) -> str:
    """Return `✗ text`, red."""
    return click.style("✗", fg="red") + " " + text


def notice(text: str) -> str:
    """Return `! text`, yellow."""
    return click.style("!", fg="yellow") + " " + text


def dim(text: str) -> str:
    """Return `text` as the less important part of a line."""
    return click.style(text, dim=True)


def short(identity: str) -> str:
    """Return the beginning and end of a long id, as `bafybeid…ogvu`."""
    return identity if len(identity) <= 16 else f"{identity[:8]}…{identity[-4:]}"


def credits(amount: int | str) -> str:
    """Return micro-credits with thin thousands, as `1 000 000`."""
    return f"{int(amount):,}".replace(",", " ")


def time_text(time_ms: int) -> str:
    """Return a moment as RFC 3339 in UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(int(time_ms) / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return aligned lines; columns whose body is all digits stand to the right."""
    body = [tuple(str(cell) for cell in row) for row in rows]
    lines = [tuple(header), *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    right = [
        bool(body) and all(row[i].replace(" ", "").isdigit() or row[i] == "" for row in body)
        for i in range(len(header))
    ]
    return [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]


def progress_line(job: Mapping[str, Any]) -> str:
    """Return one line on how far a job is and what it waits for."""
    progress = job.get("progress") or {}
    done, total = int(progress.get("done_chunks", 0)), int(progress.get("total_chunks", 0))
    return f"  {bar(done, total)}  {describe_job(job)}"


def state_sync_lines(sync: Mapping[str, Any]) -> list[str]:
    """Return how far a node is with fetching the state, and who gave what."""
    at = f"of block #{sync['height']}" if sync["height"] else "none found yet"
    size = f"  {int(sync['bytes']) / 1e6:.1f} MB" if sync["bytes"] else ""
    lines = [
        f"  state    {sync['phase']}  {at}",
        f"  chunks   {bar(int(sync['chunks']), int(sync['of']))}{size}",
    ]
    for peer in sync["peers"]:
        refused = "  " + bad("gave what is wrong, not asked again") if peer["refused"] else ""
        lines.append(f"  from     {peer['name']}  {peer['chunks']} chunks{refused}")
    return lines


def score_text(metrics: Mapping[str, Any] | None) -> str:
    """Return `accuracy 0.9722  (350 of 360 test rows)`, or the error of a predicted quantity."""
    if not metrics or not int(metrics["total"]):
        return "accuracy not measured: the job kept no test rows"
    correct, total = int(metrics["correct"]), int(metrics["total"])
    if metrics["name"] == "accuracy":
        return f"accuracy {correct / total:.4f}  ({correct} of {total} test rows)"
    return f"{metrics['name']} {metrics['value']}  ({total} test rows)"


def verified_lines(job: Mapping[str, Any]) -> list[str]:
    """Return what was checked of a settled job, by whom, and what could have slipped through.

    Never "verified" alone: a sample is a sample, so the lines say k of N and the probability that
    a forger of a named fraction would have been missed.
    """
    verified = job["verified"]
    rerun, chunks = int(verified["rerun"]), int(verified["chunks"])
    lines = [
        good(
            f"verified  {len(verified['by'])} of {verified['of']} validators "
            f"re-ran {rerun} of {chunks} slices: every byte equal"
        )
    ]
    if rerun < chunks:
        for fraction, key in (("1 in 10", "miss_1_in_10"), ("1 in 100", "miss_1_in_100")):
            lines.append(
                f"            had {fraction} slices been forged, "
                f"the sample would have missed it with p = {verified[key]}"
            )
    return lines


def fault_lines(faults: Iterable[Mapping[str, Any]], job: Mapping[str, Any]) -> list[str]:
    """Return who was found misbehaving, what it cost them, and who took over in `job`."""
    lines = []
    workers = {segment["index"]: segment["worker"] for segment in job.get("segments", [])}
    for fault in faults:
        segment, chunk = fault["segment"], fault["chunk"]
        finders = ", ".join(fault["finders"])
        where = "" if segment is None else f" in segment {segment + 1}, slice {chunk}"
        lines.append(
            bad(
                f"{fault['offender']}  {fault['kind']}{where}: "
                f"slashed {credits(fault['slashed'])} at block #{fault['height']}"
                + (f", found by {finders}" if finders else "")
            )
        )
        now = workers.get(segment)
        took_over = fault["role"] == "worker" and now and now != fault["offender"]
        if segment is not None and took_over:
            lines.append(f"  segment {segment + 1} was given to {now}")
    return lines
