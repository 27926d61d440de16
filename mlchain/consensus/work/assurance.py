"""What each tier buys: who re-runs how much, what slips by, what that costs, which stakes it needs.

Protocol.md section 12. One table, `TIERS`, and one function, `assess`, from which the chain sizes
slices, a quote is written and a receipt is judged. All numbers are exact rationals over whole
chunks: the best cheat spoils whole chunks, so chunks are what is counted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import comb
from typing import NamedTuple

from mlchain.consensus.work.sampling import miss_probability
from mlchain.errors import InvalidTransaction

AUDITED_FORGED = Fraction(1, 100)
AUDITED_MISS = Fraction(1, 1000)
ECONOMIC_SHARE = Fraction(1, 200)
"""Of a job's chunks, what `economic` re-runs, all validators together; at least one each."""
EXACT_FORGED = 2_000
"""Up to so many forged chunks a probability is exact; beyond, a bound above it: fractions grow."""


class Tier(NamedTuple):
    """A tier as a job names it: a row of `TIERS`, and for `covered:r` how often."""

    name: str
    depth: int = 0

    def __str__(self) -> str:
        """As in a job file."""
        return f"{self.name}:{self.depth}" if self.depth else self.name


class Shape(NamedTuple):
    """A job in whole chunks: all, those of one segment, and the validators that check it."""

    chunks: int
    segment: int
    validators: int

    @property
    def faults(self) -> int:
        """f: validators that may collude with the worker."""
        return (self.validators - 1) // 3

    @property
    def segments(self) -> list[int]:
        """Chunks of each segment."""
        whole, rest = divmod(self.chunks, self.segment)
        return [self.segment] * whole + [rest] * bool(rest)


@dataclass(frozen=True, slots=True)
class Row:
    """One tier: `share` of a job's chunks that each validator re-runs, as whole chunks.

    `is_assigned`: chunks are dealt to `depth` validators each, in public, once the commit is
    final; otherwise every validator draws its own in secret.
    """

    share: Callable[[Shape, int], int]
    is_assigned: bool = False


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def _economic(shape: Shape, depth: int) -> int:
    return max(1, _ceil(Fraction(shape.chunks, shape.validators) * ECONOMIC_SHARE))


def _audited(shape: Shape, depth: int) -> int:
    """Least slice by which 2f+1 honest validators miss a 1 % faker with chance <= 1/1000."""
    return _audited_size(shape.chunks, shape.segment < shape.chunks, 2 * shape.faults + 1)


@lru_cache(4096)
def _audited_size(total: int, is_cut: bool, honest: int) -> int:
    forged = max(1, _ceil(total * AUDITED_FORGED))
    miss = bound_miss if is_cut else miss_probability

    def suffices(size: int) -> bool:
        return miss(total, size, forged) ** honest <= AUDITED_MISS

    high = 1
    while not suffices(high):  # up from below: at most ~700 are needed, and few factors are cheap
        high = min(2 * high, total)
    low = high // 2 + 1
    while low < high:
        middle = (low + high) // 2
        if suffices(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _covered(shape: Shape, depth: int) -> int:
    return _ceil(Fraction(shape.chunks * depth, shape.validators))


def _replicated(shape: Shape, depth: int) -> int:
    return shape.chunks


TIERS: dict[str, Row] = {
    "economic": Row(_economic),
    "audited": Row(_audited),
    "covered": Row(_covered, is_assigned=True),
    "replicated": Row(_replicated),
}
"""Everything a submitter can buy. `covered` takes a depth, as in `covered:2`."""

NAMES = ("economic", "audited", "covered:r", "replicated")


def parse_tier(text: str) -> Tier:
    """Return the tier that `text` names; how many validators there are is not looked at.

    Raises:
        InvalidTransaction: there is none of this name.
    """
    name, colon, depth = text.partition(":")
    is_number = depth.isascii() and depth.isdigit() and not depth.startswith("0")
    row = TIERS.get(name)
    if row is None or row.is_assigned != bool(colon) or (colon and not is_number):
        raise InvalidTransaction(
            f"unknown tier {text!r}",
            "one of " + ", ".join(NAMES) + "; r is how many validators re-run each chunk",
        )
    return Tier(name, int(depth[:9])) if colon else Tier(name)


def check_tier(tier: Tier, validators: int) -> None:
    """Return if `validators` can give a tier.

    Raises:
        InvalidTransaction: it wants more of them than there are.
    """
    if tier.depth > validators:
        raise InvalidTransaction(
            f"tier {str(tier)!r}: each chunk by {tier.depth} validators, the chain has {validators}"
        )


def slice_size(tier: Tier, total: int, segment: int, validators: int) -> int:
    """Return how many of `segment` chunks each of `validators` re-executes.

    A segment bears its share, rounded up, of what the whole job of `total` chunks needs. Under
    `covered:r` it is the mean: who gets how many is drawn.
    """
    share = TIERS[tier.name].share(Shape(total, segment, validators), tier.depth)
    return min(segment, -(-share * segment // total))


# ---- what slips by ------------------------------------------------------------------------------


def bound_miss(total: int, rerun: int, forged: int) -> Fraction:
    """Return a bound of `miss_probability` that holds as well for a job cut into segments.

    Whoever forges spreads its chunks over the segments, which helps it a little. Of a segment
    with s of S chunks re-run and b forged, [C(S-b, s) / C(S, s)] is at most (1 - s/S)^b and at
    most (1 - b/S)^s; the logarithm of the first adds up over segments with equal s/S, that of the
    second is concave in b. The tighter one has the smaller exponent.
    """
    few, many = sorted((min(rerun, total), min(forged, total)))
    return Fraction(total - many, total) ** few


def worst_miss(parts: Iterable[tuple[int, int]], forged: int) -> Fraction:
    """Return the chance that blind re-runs of (chunks, size) parts hold none of `forged` chunks.

    The forger places them where they are found least: one after the other into the part that then
    grows riskier by the least, which is exact, for what a part adds only grows.
    """
    heap = [(-Fraction(count - size, count), count, size) for count, size in parts if count]
    heapq.heapify(heap)
    numerator = denominator = 1
    for _ in range(forged):
        if not heap:
            break
        passes, left, size = heap[0]
        if not passes:
            return Fraction(0)
        numerator *= left - size
        denominator *= left
        left -= 1
        heapq.heapreplace(heap, (-Fraction(max(left - size, 0), max(left, 1)), left, size))
    return Fraction(numerator, denominator)


@dataclass(frozen=True)
class Assurance:
    """A tier on a job: what it re-runs, and with which probability it misses what."""

    tier: Tier
    shape: Shape

    @cached_property
    def slices(self) -> list[int]:
        """Chunks that one validator re-runs, segment by segment (`covered`: the mean)."""
        shape = self.shape
        return [
            slice_size(self.tier, shape.chunks, count, shape.validators) for count in shape.segments
        ]

    @property
    def rerun(self) -> int:
        """Chunks that one validator re-runs of the whole job."""
        return min(sum(self.slices), self.shape.chunks)

    @property
    def cost(self) -> Fraction:
        """What all validators re-run together, as a fraction of the work."""
        if self.tier.depth:
            return Fraction(self.tier.depth)
        return Fraction(self.rerun * self.shape.validators, self.shape.chunks)

    def miss(self, forged: int, colluders: int | None = None) -> Fraction:
        """Return the chance that `forged` chunks are re-run by nobody honest.

        `colluders` of the validators (f if not given) see nothing. Beyond `EXACT_FORGED` a bound.
        """
        shape = self.shape
        helpers = shape.faults if colluders is None else colluders
        forged = min(forged, shape.chunks)
        if self.tier.depth:
            return self._alone(helpers) ** min(forged, EXACT_FORGED)
        honest = shape.validators - helpers
        if forged <= EXACT_FORGED:
            return worst_miss(zip(shape.segments, self.slices, strict=True), forged) ** honest
        few = min(self.rerun, EXACT_FORGED)
        return bound_miss(shape.chunks, few, forged) ** honest

    def _alone(self, helpers: int) -> Fraction:
        """Return the chance that a chunk is dealt to `helpers` only: C(f, r) / C(n, r)."""
        return Fraction(
            comb(helpers, self.tier.depth), comb(self.shape.validators, self.tier.depth)
        )

    def miss_all(self, count: int) -> Fraction:
        """Return the chance that nobody honest re-runs any of a segment's `count` chunks."""
        if not self.tier.depth:
            return Fraction(0)
        return self._alone(self.shape.faults) ** min(count, EXACT_FORGED)

    def miss_share(self, one_in: int) -> Fraction:
        """Return the chance that forging one chunk in `one_in` is missed."""
        return self.miss(-(-self.shape.chunks // one_in))


# ---- which stakes make honesty the best response ------------------------------------------------


class Stakes(NamedTuple):
    """Least penalties, in micro-credits, under which honesty strictly pays best."""

    worker: int
    """Against saving the work of any number of a segment's chunks."""
    validator: int | None
    """Against attesting chunks that were not re-run; None: nobody audits, no stake is enough."""
    deterred_gain: int | None
    """What one spoiled chunk may at most be worth to a worker; None: whatever it is worth."""


def deterrent(saved: Fraction, caught: Fraction, pay: Fraction) -> int:
    """Return the least stake S >= 0 with saved < caught x (S + pay).

    A cheat saves `saved`, and is caught with chance `caught`: then it loses stake and pay.
    """
    missing = Fraction(saved, caught) - pay
    return missing.__floor__() + 1 if missing >= 0 else 0


def assess_stakes(
    assurance: Assurance,
    chunk_cost: Fraction,
    worker_pay: Fraction,
    verifier_pay: Fraction,
    audit_rate: Fraction,
    worker_stake: int,
) -> Stakes:
    """Return the stakes that a tier needs on one segment, the largest of the job.

    `chunk_cost` is what it costs to run a chunk, the pays are those of one segment, in
    micro-credits; `audit_rate` is the chance that an attested chunk is audited by others;
    `worker_stake` is what a worker really loses.

    Of a cheat only skipping everything is looked at. The chance to be caught is concave in the
    number of skipped chunks, what is saved grows in step: where all does not pay, less does not.
    """
    count, size = max(assurance.shape.segments), max(assurance.slices)
    lazy = 1 - (1 - audit_rate) ** size
    found = 1 - assurance.miss(1)
    at_stake = worker_stake + worker_pay
    return Stakes(
        deterrent(count * chunk_cost, 1 - assurance.miss_all(count), worker_pay),
        deterrent(size * chunk_cost, lazy, verifier_pay) if lazy else None,
        (Fraction(found, 1 - found) * at_stake).__floor__() if found < 1 else None,
    )
