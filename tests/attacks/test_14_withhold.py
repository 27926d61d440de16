"""Row 14: a worker commits and then does not serve its chunks."""

from __future__ import annotations

from vm.world import BOND, PARAMS, World

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.vm.families.jobs import JobState, SegmentState

VICTIM = "validator-0"


def withheld() -> tuple[World, bytes, str]:
    world = World()
    job = world.running()
    world.commit(job)
    return world, job, world.worker_of(job)


def test_the_segment_goes_to_another_worker_and_the_silent_one_pays_a_little():
    world, job, silent = withheld()
    world.accuse(VICTIM, job, world.slice_of(VICTIM, job)[0], ClaimKind.UNSERVED)
    world.judge(job, Outcome.UNSERVED)
    world.blocks(PARAMS.dispute_window)
    assert world.bond(silent) == BOND - PARAMS.slash_unavailable
    assert world.worker_of(job) != silent and world.balance(silent) == 0
    world.settle(job)
    assert world.job(job).state == JobState.SETTLED


def test_to_serve_all_but_one_helps_nothing():
    """It gives the chunk to whoever asks on chain, or is unavailable: there is no third way."""
    world, job, silent = withheld()
    world.accuse(VICTIM, job, world.slice_of(VICTIM, job)[0], ClaimKind.UNSERVED)
    world.judge(job, Outcome.DIFFERS, tuple(world.validators[1:]))
    assert world.faults()[0].kind == "forged" and world.bond(silent) == BOND - PARAMS.slash_worker


def test_to_fall_silent_for_some_in_the_dispute_is_to_be_unavailable():
    world, job, silent = withheld()
    world.accuse(VICTIM, job, world.slice_of(VICTIM, job)[0], ClaimKind.UNSERVED)
    world.judge(job, Outcome.UNSERVED, tuple(world.validators[:2]))
    world.judge(job, Outcome.EQUAL, tuple(world.validators[2:]))
    world.blocks(PARAMS.dispute_window)
    assert [fault.kind for fault in world.faults()] == ["unavailable"]
    assert world.worker_of(job) != silent


def test_control_if_silence_were_taken_for_consent_the_unseen_work_would_be_paid():
    world, job, silent = withheld()
    world.attest(job)
    world.blocks(2)
    world.block(finalise=(world.ref(job),))
    assert world.segment(job).state == SegmentState.HARD and world.balance(silent) > 0


def test_control_without_claims_the_silent_one_keeps_its_bond_and_its_turns():
    world, job, silent = withheld()
    world.blocks(PARAMS.attest_window + 1)
    assert world.segment(job).attempt == 1, "nobody could attest"
    assert world.bond(silent) == BOND and not world.job(job).excluded
