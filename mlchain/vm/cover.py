"""Dealing out chunks: tier `covered:r` has each re-run by r validators (docs/adr/0024).

The seed is made of the beacon elements of the height after the commit, one of each validator.
They were fixed when the chains were registered, and nobody shows one before the commit is final:
so the worker could not know who would get which chunk, and nobody can choose it. What a validator
can do is to show nothing for `finality_depth` blocks; then it is left out, and deals nothing.
"""

from __future__ import annotations

from msgspec.structs import replace

from mlchain import crypto
from mlchain.consensus.work.assurance import parse_tier
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.tickets import BEACON
from mlchain.ledger.state import State
from mlchain.ledger.validators import ValidatorSet
from mlchain.vm.context import BlockContext
from mlchain.vm.families.jobs import Cover, Job, Segment
from mlchain.vm.families.members import MEMBERS, same_schedule_since
from mlchain.vm.families.renewal import public_element


def finality_depth(validators: ValidatorSet) -> int:
    """Return D: blocks from commit to FINALISE, so that one honest proposer lies between.

    No schedule of proposers names anybody twice within f + 1 blocks; where it changed, the blocks
    count from there (docs/adr/0032).

    As many from the last rejected claim: a claim waits while another is open, and a hostile
    proposer could else finalise in the very block in which the waiting one could be made.
    """
    return validators.faults + 2


def had_honest_proposer(block: BlockContext, since: int) -> bool:
    """Tell whether one of the blocks from the one at height `since` on is an honest proposer's."""
    begun = max(since, same_schedule_since(block.state))
    return block.height >= begun + block.validators.faults


def is_newer(state: State, key: bytes, height: int) -> bool:
    """Tell whether it joined when the others had shown their elements: it could choose its own."""
    member = MEMBERS.get(state, key)
    return member is None or member.since >= height


def deal(block: BlockContext, job: Job, segment: Segment) -> Segment:
    """Return a committed segment with its chunks dealt, or dealt anew, if that is due."""
    if not parse_tier(job.tier).depth or segment.commit is None:
        return segment
    if segment.cover is None:
        return _deal_first(block, segment)
    if block.height > segment.attest_from + block.params.attest_window:
        return _hand_over(block, segment, segment.cover)
    return segment


def why_not_covered(block: BlockContext, job: Job, segment: Segment) -> str:
    """Return why the chunks of a segment are not covered as its tier promises, "" if they are.

    Everybody that was dealt chunks must have attested, so that each chunk was re-run by r
    validators, or by a quorum where r is more: f may be silent, and nobody can be made to speak.
    """
    if not parse_tier(job.tier).depth:
        return ""
    if segment.cover is None:
        return "its chunks are not dealt yet"
    silent = len(segment.cover.members) - len(_attesters(block, segment, segment.cover))
    return f"{silent} of those who were dealt chunks have not attested" if silent else ""


def _deal_first(block: BlockContext, segment: Segment) -> Segment:
    height, length = segment.commit_height + 1, block.params.ticket_heights
    known = {
        key: element
        for key in block.validators.keys
        if not segment.is_own(key)
        and not is_newer(block.state, key, height)
        and (element := public_element(block.state, key, BEACON, height, length)) is not None
    }
    expected = sum(not segment.is_own(key) for key in block.validators.keys)
    if len(known) < expected and block.height <= height + finality_depth(block.validators):
        return segment
    assert segment.commit is not None, "only commits are dealt"
    parts = [key + element for key, element in known.items()]
    seed = crypto.digest("mlchain/cover-seed", commit_id(segment.commit), *parts)
    return replace(segment, cover=Cover(seed, tuple(known), (), block.height))


def _hand_over(block: BlockContext, segment: Segment, cover: Cover) -> Segment:
    """Deal the chunks of those who stayed silent to the others, who then attest once more.

    Only a quorum goes on alone: each time somebody less, so f times at most.
    """
    done = _attesters(block, segment, cover)
    is_enough = sum(block.validators.weight(key) for key in done) >= block.validators.quorum
    if not is_enough or len(done) == len(cover.members):
        return segment
    absent = tuple(key for key in cover.roster if key not in done)
    again = replace(cover, absent=absent, height=block.height)
    return replace(segment, cover=again, attestations=())


def _attesters(block: BlockContext, segment: Segment, cover: Cover) -> list[bytes]:
    attested = [a.validator for a in segment.attestations]
    return [key for key in cover.members if key in attested and key in block.validators]
