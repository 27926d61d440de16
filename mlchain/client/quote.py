"""What a job costs and what its tier can find, before anybody pays: a quote.

All from `consensus.work.assurance`, the very function that sizes the slices. Running work is priced
as the chain prices its least fee: one micro-credit for a million gas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mlchain.client.jobfile import JobFile
from mlchain.client.training import TrainingJob
from mlchain.consensus.work.assurance import (
    AUDITED_MISS,
    Assurance,
    Shape,
    Stakes,
    Tier,
    assess_stakes,
    check_tier,
    parse_tier,
)
from mlchain.consensus.work.rewards import split_fee
from mlchain.ledger.genesis import Params
from mlchain.vm.backlog import slice_gas
from mlchain.vm.families.submit import GAS_PER_MICROCREDIT
from mlchain.vm.receipt import decimal_text

ONE_IN = (100, 10)
"""The forgers a quote names beside the one of a single chunk: one chunk in so many."""


NS_PER_MS = 10**6
SLACK = 2
"""Times its work that a segment should have until it counts as late: machines differ."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One tier on this job."""

    tier: Tier
    assurance: Assurance
    stakes: Stakes

    @property
    def misses(self) -> tuple[str, ...]:
        """The chance to miss one forged chunk, then one in each of `ONE_IN`."""
        found = self.assurance
        values = (found.miss(1), *(found.miss_share(one_in) for one_in in ONE_IN))
        return tuple(decimal_text(value) for value in values)


@dataclass(frozen=True, slots=True)
class Quote:
    """A job on a chain. Amounts are micro-credits."""

    job_file: JobFile
    shape: Shape
    gas: int
    least_fee: int
    params: Params
    chosen: Offer
    offers: tuple[Offer, ...]

    @property
    def worker_loses(self) -> int:
        """What a forging worker surely loses; see `least_slash`."""
        return least_slash(self.params)


def least_slash(params: Params) -> int:
    """Return what a forging worker surely loses when a slice shows it.

    It chooses what it is found for: if it serves the forged chunk to nobody, it is not convicted,
    but pays for that it did not serve.
    """
    return min(params.slash_worker, params.slash_unavailable)


def make_quote(job_file: JobFile, job: TrainingJob, params: Params, validators: int) -> Quote:
    """Return the quote of a job on a chain with so many validators.

    Raises:
        InvalidTransaction: the tier wants more validators than there are.
    """
    chosen = parse_tier(job_file.tier)
    check_tier(chosen, validators)
    gas = job.gas
    chunks = -(-job.steps // job.chunk)
    shape = Shape(chunks, min(job.segment, chunks), validators)
    depths = [depth for depth in dict.fromkeys((2, shape.faults + 1)) if depth <= validators]
    tiers = [Tier("economic"), Tier("audited"), *(Tier("covered", d) for d in depths)]
    tiers = list(dict.fromkeys([*tiers, chosen, Tier("replicated")]))
    tiers.sort(key=lambda tier: Assurance(tier, shape).cost)
    offers = tuple(_offer(tier, shape, gas, job_file.fee, params) for tier in tiers)
    mine = next(offer for offer in offers if offer.tier == chosen)
    return Quote(job_file, shape, gas, job.least_fee, params, mine, offers)


def _offer(tier: Tier, shape: Shape, gas: int, fee: int, params: Params) -> Offer:
    found = Assurance(tier, shape)
    share = split_fee(fee * max(shape.segments) // shape.chunks, shape.validators)
    stakes = assess_stakes(
        found,
        Fraction(gas, shape.chunks * GAS_PER_MICROCREDIT),
        Fraction(share.worker),
        Fraction(share.verifier),
        Fraction(params.audit_permille, 1000),
        least_slash(params),
    )
    return Offer(tier, found, stakes)


def warnings(quote: Quote) -> Iterator[str]:
    """Yield what somebody who pays for this should know first."""
    offer, shape, params = quote.chosen, quote.shape, quote.params
    name, found = str(offer.tier), offer.assurance
    if quote.job_file.fee < quote.least_fee:
        yield f"the chain will refuse it: fee {quote.job_file.fee} is below {quote.least_fee}"
    longest = max(shape.segments)
    verify = slice_gas(name, quote.gas, shape.chunks, longest, shape.validators)
    if verify > params.max_verify_gas:
        yield (
            f"the chain will refuse it: checking a segment takes {verify} gas of each validator, "
            f"{params.max_verify_gas} are allowed; use more segments"
        )
    yield from _late(quote, longest, verify)
    safe = Tier("covered", shape.faults + 1)
    if offer.tier.name == "economic" and found.miss_share(100) > AUDITED_MISS:
        yield (
            f"{name} stops who wants to save work, not who wants to spoil yours: "
            f"a forger of 1 chunk in 100 is missed with p = {offer.misses[1]}"
        )
    if offer.tier.name == "audited" and found.miss(1) and found.cost >= safe.depth:
        yield (
            f"{shape.chunks} chunks are few: {name} re-runs {decimal_text(found.cost)} times the "
            f"work and may still miss one forged chunk; {safe} costs {safe.depth} and does not"
        )
    if found.miss(1) > AUDITED_MISS:
        yield (
            f"one forged chunk is missed with p = {offer.misses[0]} if {shape.faults} of "
            f"{shape.validators} validators help; {safe} never misses it"
        )
    if offer.stakes.worker > quote.worker_loses:
        yield (
            f"skipping work pays: a worker should stand to lose {offer.stakes.worker}, "
            f"here it surely loses {quote.worker_loses}"
        )
    if offer.stakes.validator is None or offer.stakes.validator > params.slash_lazy:
        needed = offer.stakes.validator
        yield (
            f"not checking pays: a validator should stand to lose "
            f"{'more than any stake' if needed is None else needed}, "
            f"here it loses {params.slash_lazy}"
        )


def _late(quote: Quote, longest: int, verify: int) -> Iterator[str]:
    """Yield what cannot be done in the time that the chain gives for it, at 1 gas = 1 ns."""
    params, chunks = quote.params, quote.shape.chunks
    work_ms, given_ms = quote.gas * longest // chunks // NS_PER_MS, params.segment_timeout_ms
    if work_ms * SLACK > given_ms:
        segments = -(-quote.gas * SLACK // (given_ms * NS_PER_MS))
        yield (
            f"a segment is some {work_ms / 1e3:.3g} s of work and the chain gives a worker "
            f"{given_ms / 1e3:g}; with {segments} segments it has {SLACK} times what it needs"
        )
    least_ms = params.attest_window * params.block_interval_ms
    if verify > least_ms * NS_PER_MS:
        yield (
            f"checking a segment is some {verify / NS_PER_MS / 1e3:.3g} s of work, and when blocks "
            f"are full validators have {least_ms / 1e3:g}; use more segments"
        )


def quote_document(quote: Quote) -> dict[str, Any]:
    """Return a quote for programs; probabilities are decimal texts."""
    shape, params = quote.shape, quote.params
    return {
        "name": quote.job_file.name,
        "tier": quote.job_file.tier,
        "fee": quote.job_file.fee,
        "least_fee": quote.least_fee,
        "gas": quote.gas,
        "chunks": shape.chunks,
        "segments": len(shape.segments),
        "validators": shape.validators,
        "faults": shape.faults,
        "slash_worker": params.slash_worker,
        "slash_unavailable": params.slash_unavailable,
        "slash_lazy": params.slash_lazy,
        "tiers": [
            {
                "tier": str(offer.tier),
                "slice": offer.assurance.rerun,
                "cost": decimal_text(offer.assurance.cost),
                "miss_one": offer.misses[0],
                "miss_1_in_100": offer.misses[1],
                "miss_1_in_10": offer.misses[2],
                "stake_worker": offer.stakes.worker,
                "stake_validator": offer.stakes.validator,
                "deterred_gain": offer.stakes.deterred_gain,
            }
            for offer in quote.offers
        ],
        "warnings": list(warnings(quote)),
    }
