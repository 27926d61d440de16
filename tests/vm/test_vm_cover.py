"""Tier `covered:r`: each chunk is re-run by r validators, dealt once the commit is final."""

from __future__ import annotations

from collections import Counter

import pytest
from vm.world import PARAMS, World

from mlchain.consensus.work.dispute import ClaimKind
from mlchain.errors import InvalidBlock
from mlchain.vm import cover
from mlchain.vm.families.jobs import SegmentState

DEPTH = 2


@pytest.fixture
def world() -> World:
    return World()


def committed(world: World, depth: int = DEPTH) -> bytes:
    job = world.running(tier=f"covered:{depth}")
    world.commit(job)
    return job


def dealt(world: World, depth: int = DEPTH) -> bytes:
    job = committed(world, depth)
    world.blocks(2)
    return job


def hands(world: World, job: bytes) -> Counter[int]:
    """How many validators were dealt each chunk."""
    return Counter(chunk for name in world.validators for chunk in world.slice_of(name, job))


def why_not_hard(world: World, job: bytes) -> str:
    with pytest.raises(InvalidBlock) as refused:
        world.compose(finalise=(world.ref(job),))
    return refused.value.message


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_every_chunk_is_dealt_to_exactly_r_validators(world, depth):
    counts = hands(world, dealt(world, depth))
    assert set(counts) == set(range(200)) and set(counts.values()) == {depth}


@pytest.mark.parametrize("depth", [0, 5, 128])
def test_more_validators_than_there_are_are_refused(world, depth):
    with pytest.raises(AssertionError, match="tier"):
        world.submit(tier=f"covered:{depth}")


def test_nothing_is_dealt_before_the_commit_is_final(world):
    """The elements that deal are shown in the precommits of the next height, not before."""
    job = committed(world)
    assert world.segment(job).cover is None
    assert not hands(world, job)
    world.block()
    assert world.segment(job).cover is None, "these carry the precommits for the commit's block"
    world.block()
    assert world.segment(job).cover is not None


def test_the_seed_is_made_of_every_validators_element_of_one_height(world):
    """Whose precommits a proposer leaves out changes nothing: the next one brings the element."""
    other = World()
    jobs = committed(world), committed(other)
    other.absent = (other.validators[0],)
    other.block()
    other.absent = ()
    other.blocks(3)
    world.blocks(4)
    mine, theirs = world.segment(jobs[0]).cover, other.segment(jobs[1]).cover
    assert mine and theirs and mine.seed == theirs.seed and mine.roster == theirs.roster
    assert theirs.height == mine.height + 1


def test_who_shows_nothing_for_long_is_left_out_and_deals_nothing(world):
    job = committed(world)
    silent = world.validators[0]
    world.absent = (silent,)
    depth = cover.finality_depth(world.genesis.validators())
    world.blocks(depth + 1)
    assert world.segment(job).cover is None
    world.blocks(1)
    assert not world.slice_of(silent, job)
    assert set(hands(world, job).values()) == {DEPTH}


def test_it_is_hard_once_all_who_were_dealt_chunks_have_attested(world):
    job = dealt(world)
    world.attest(job, names=tuple(world.validators[:3]))
    world.blocks(2)
    assert why_not_hard(world, job).endswith("have not attested"), "though a quorum has"
    world.attest(job, names=(world.validators[3],))
    world.block(finalise=(world.ref(job),))
    assert world.segment(job).state == SegmentState.HARD


def test_control_asking_a_quorum_alone_it_would_be_hard_with_chunks_nobody_honest_saw(
    world, monkeypatch
):
    monkeypatch.setattr("mlchain.vm.lifecycle.why_not_covered", lambda *args: "")
    job = dealt(world, 1)
    world.attest(job, names=tuple(world.validators[:3]))
    world.blocks(2)
    assert world.slice_of(world.validators[3], job), "chunks that only the silent one was to see"
    world.block(finalise=(world.ref(job),))


def test_the_chunks_of_who_stays_silent_are_handed_over(world):
    job = dealt(world)
    speaking, silent = tuple(world.validators[:3]), world.validators[3]
    before = {name: set(world.slice_of(name, job)) for name in world.validators}
    world.attest(job, names=speaking)
    world.blocks(PARAMS.attest_window)
    assert not world.slice_of(silent, job)
    assert set(hands(world, job).values()) == {DEPTH}
    assert all(before[name] <= set(world.slice_of(name, job)) for name in speaking)
    assert not world.segment(job).attestations, "they have more to re-run now, and say so again"
    world.harden(job)
    assert world.segment(job).state == SegmentState.HARD


def test_an_attestation_of_the_hand_before_does_not_count_for_the_one_after(world):
    job = dealt(world)
    speaking = tuple(world.validators[:3])
    world.attest(job, names=speaking)
    window = PARAMS.attest_window
    while not world.segment(job).cover.absent:
        for name in speaking[:2]:  # these say the old thing in every precommit
            world.say(name, "attestations", world.attestation(name, job))
        world.block()
        assert world.height < 5 * window
    world.block()
    assert not world.segment(job).attestations


def test_without_a_quorum_the_segment_falls_and_is_dealt_anew(world):
    job = dealt(world)
    first = world.segment(job).cover
    world.attest(job, names=tuple(world.validators[:2]))
    world.blocks(PARAMS.attest_window)
    assert world.segment(job).attempt == 1 and world.segment(job).cover is None
    world.commit(job)
    world.blocks(2)
    again = world.segment(job).cover
    assert first and again and again.seed != first.seed


def test_where_r_is_more_than_can_be_made_to_speak_a_quorum_covers_each_chunk(world):
    job = dealt(world, 4)
    speaking = tuple(world.validators[:3])
    world.attest(job, names=speaking)
    world.blocks(PARAMS.attest_window)
    assert set(hands(world, job).values()) == {3}
    world.harden(job)
    assert world.segment(job).state == SegmentState.HARD


def test_an_unserved_claim_names_a_chunk_that_was_dealt_to_the_claimant(world):
    job = dealt(world)
    liar = world.validators[0]
    mine = world.slice_of(liar, job)
    others = next(chunk for chunk in range(200) if chunk not in mine)
    claim = world.claim(liar, job, others, ClaimKind.UNSERVED)
    assert "own slice" in world.do(liar, claim).message
    world.accuse(liar, job, mine[0], ClaimKind.UNSERVED)


def test_who_was_dealt_nothing_is_not_paid_for_attesting(world):
    job = committed(world)
    late = world.validators[0]
    world.absent = (late,)
    world.blocks(cover.finality_depth(world.genesis.validators()) + 2)
    world.absent = ()
    world.block()
    world.attest(job)
    assert len(world.segment(job).attestations) == 3


def test_of_a_trapped_segment_everybody_runs_the_chunk_that_traps(world):
    job = world.running(tier="covered:1")
    world.commit(job, count=100, trap=201)
    world.blocks(2)
    assert all(100 in world.slice_of(name, job) for name in world.validators)
    world.harden(job)
