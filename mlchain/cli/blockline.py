"""A block as lines for people: who proposed it, what it did to jobs, which slices were re-run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlchain.cli.text import dim, fault_lines
from mlchain.ledger.block import SegmentRef

if TYPE_CHECKING:
    from mlchain.node.query import Query

STRIP_WIDTH = 20


def block_lines(query: Query, height: int, since_ms: int) -> Iterator[str]:
    """Yield how a block's line begins, then a line for each thing it did and each fault in it."""
    row = query.block_row(height)
    events = list(query.job_events(height))
    head = f"  #{height:<6}{since_ms / 1000:>6.1f} s  {row['proposer']:<13}"
    yield head.rstrip()
    news = [_event(query, event) for event in events]
    others = row["transactions"] - sum(event["what"] != "final" for event in events)
    if others:
        news.append(dim(f"{others} transaction{'s' * (others > 1)}"))
    for place, text in enumerate(news):
        yield (head if place == 0 else " " * len(head)) + text
    for fault in query.faults(height):
        yield from fault_lines([fault], {})


def _event(query: Query, event: dict[str, Any]) -> str:
    job = query.job(event["job"])
    if event["segment"] is None:
        return f"{job['name']}  {event['what']}"
    name = f"{job['name']} {event['segment'] + 1}/{job['total_segments']}"
    if event["what"] != "final":
        by = {row["index"]: row["worker"] for row in job["segments"]}.get(event["segment"], "")
        return f"{name}  {event['what']}" + (f" by {by}" if event["what"] == "committed" else "")
    seen, chunks = query.seen(SegmentRef(bytes.fromhex(event["job"]), event["segment"]))
    return f"{name}  final  {strip(seen, chunks)}  {len(seen)} of {chunks} slices re-run, equal"


def strip(seen: Sequence[int], chunks: int) -> str:
    """Return a row of marks: █ every slice there was re-run, ▄ some, · none."""
    width = min(STRIP_WIDTH, chunks)
    known = dict.fromkeys(seen)
    marks = ""
    for place in range(width):
        first, end = place * chunks // width, (place + 1) * chunks // width
        count = sum(offset in known for offset in range(first, end))
        marks += "█" if count == end - first else "▄" if count else "·"
    return marks
