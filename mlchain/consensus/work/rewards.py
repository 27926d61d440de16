"""Who gets how much (protocol.md sections 10 and 11). What is left over is burned."""

from __future__ import annotations

from typing import NamedTuple

WORKER_PERCENT = 80
VERIFIERS_PERCENT = 15
PROPOSER_PERCENT = 3


class Split(NamedTuple):
    """Shares of one segment's fee in micro-credits; `verifier` goes to each verifier."""

    worker: int
    verifier: int
    proposer: int
    burned: int


def segment_fee(fee: int, first: int, count: int, total: int) -> int:
    """Return the part of a job's fee that chunks [first, first + count) of `total` earn.

    The parts of consecutive segments add up to the fee exactly.
    """
    return fee * (first + count) // total - fee * first // total


def trapped_fee(fee: int, first: int, count: int, total: int, run: int, chunk: int) -> int:
    """Return what a segment earns that traps: `count` chunks, and `run` steps of the next.

    That chunk has `chunk` steps. What was not run is not paid: by saying that a training traps
    nobody earns more than the work that leads there (docs/adr/0043).
    """
    part = segment_fee(fee, first + count, 1, total) * run // chunk
    return segment_fee(fee, first, count, total) + part


def split_fee(fee: int, verifiers: int) -> Split:
    """Return how `fee` is shared among a worker, `verifiers` and the proposer."""
    worker = fee * WORKER_PERCENT // 100
    verifier = fee * VERIFIERS_PERCENT // 100 // verifiers if verifiers else 0
    proposer = fee * PROPOSER_PERCENT // 100
    return Split(worker, verifier, proposer, fee - worker - verifier * verifiers - proposer)


def split_slash(amount: int) -> tuple[int, int]:
    """Return (to the finder, burned) of a slashed amount."""
    return amount // 2, amount - amount // 2
