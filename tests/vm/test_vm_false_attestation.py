"""Who attested a chunk of its own slice that a quorum rules wrong answers for it (section 10)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import BOND, PARAMS, World

from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.commitment import commit_id
from mlchain.vm import lifecycle
from mlchain.vm.families import jobs, segments
from mlchain.vm.families.accounts import get_burned
from mlchain.vm.families.jobs import JobState, SegmentState, is_in_slice
from mlchain.vm.families.segments import AdmitFault

FINDER, LIAR, LUCKY, OTHER = (f"validator-{i}" for i in range(4))
LEFT = BOND - PARAMS.slash_lazy


@pytest.fixture
def world() -> World:
    return World(workers=3)


def forged_chunk(world: World, job: bytes) -> int:
    """A chunk that the slices of finder and liar hold, and that of the lucky one does not."""
    slices = {name: set(world.slice_of(name, job)) for name in world.validators}
    return min((slices[FINDER] & slices[LIAR]) - slices[LUCKY])


def disputed(world: World, *attesters: str) -> tuple[bytes, int]:
    """A segment with a wrong chunk: some have attested it, the finder has claimed fraud."""
    job = world.running()
    world.commit(job)
    chunk = forged_chunk(world, job)
    world.attest(job, names=attesters)
    world.accuse(FINDER, job, chunk)
    return job, chunk


def punished(world: World) -> list[tuple[str, str]]:
    return [(fault.kind, world.names[fault.offender]) for fault in world.faults()]


def test_who_attested_the_wrong_chunk_loses_its_slash_and_its_seat(world):
    job, chunk = disputed(world, LIAR, LUCKY)
    worker = world.worker_of(job)
    world.judge(job, Outcome.DIFFERS)
    assert punished(world) == [("forged", worker), ("false-attestation", LIAR)]
    assert world.bond(LIAR) == LEFT and LIAR not in world.validators
    fault = world.faults()[1]
    assert (fault.job, fault.segment, fault.chunk) == (job, 0, chunk)
    assert (fault.slashed, fault.finders) == (PARAMS.slash_lazy, ())


def test_who_attested_a_slice_without_that_chunk_loses_nothing(world):
    job, _ = disputed(world, LIAR, LUCKY)
    world.judge(job, Outcome.DIFFERS)
    assert world.bond(LUCKY) == world.bond(FINDER) == BOND
    assert {LUCKY, FINDER} <= set(world.validators)


def test_what_it_loses_is_burned_and_the_finder_has_its_half_of_the_workers(world):
    """A coalition that is found out could else claim its own chunk, and get half back."""
    job, _ = disputed(world, LIAR)
    world.judge(job, Outcome.DIFFERS)
    assert world.balance(FINDER) == PARAMS.slash_worker // 2
    assert get_burned(world.state()) == PARAMS.slash_worker // 2 + PARAMS.slash_lazy


def test_to_rule_honestly_afterwards_does_not_undo_it(world):
    job, _ = disputed(world, LIAR)
    world.judge(job, Outcome.DIFFERS, (FINDER, LIAR, LUCKY))
    assert ("false-attestation", LIAR) in punished(world)


def test_who_attests_while_it_is_disputed_answers_too(world):
    job, _ = disputed(world)
    world.attest(job, names=(LIAR,))
    world.judge(job, Outcome.DIFFERS)
    assert world.bond(LIAR) == LEFT


@pytest.mark.parametrize("outcome", [Outcome.EQUAL, Outcome.UNSERVED, None])
def test_unless_a_quorum_found_it_wrong_attesting_costs_nothing(world, outcome):
    """Not served to a third, or ruled on by nobody, is no proof of what the attester saw."""
    job, _ = disputed(world, LIAR, LUCKY)
    if outcome is not None:
        world.judge(job, outcome)
    world.blocks(PARAMS.dispute_window)
    assert "false-attestation" not in [kind for kind, _ in punished(world)]
    assert world.bond(LIAR) == BOND and LIAR in world.validators


def admission(world: World, job: bytes, chunk: int) -> AdmitFault:
    commit = world.segment(job).commit
    assert commit is not None
    return AdmitFault(job, 0, commit_id(commit), chunk)


def admit(world: World, job: bytes, chunk: int) -> str:
    """Have its worker admit a chunk; returns who that is."""
    worker = world.worker_of(job)
    assert world.do(worker, admission(world, job, chunk)).code == "ok"
    return worker


def test_a_worker_that_admits_before_anybody_claims_convicts_nobody(world):
    """Nobody has re-run it: a worker could admit what is right, to cost an attester its bond."""
    job = world.running()
    world.commit(job)
    world.attest(job)
    admit(world, job, world.slice_of(LIAR, job)[0])
    assert world.segment(job).state == SegmentState.ASSIGNED
    assert [kind for kind, _ in punished(world)] == ["admitted"] and world.bond(LIAR) == BOND


@pytest.mark.parametrize("is_same", [True, False], ids=["it", "another chunk"])
def test_a_worker_that_admits_what_is_claimed_does_not_free_who_attested_it(world, is_same):
    job, chunk = disputed(world, LIAR, LUCKY)
    worker = admit(world, job, chunk if is_same else chunk + 1)
    assert world.segment(job).state == SegmentState.ADMITTED, "until all have re-run the chunk"
    world.judge(job, Outcome.DIFFERS)
    assert punished(world) == [("admitted", worker), ("false-attestation", LIAR)]
    assert world.bond(worker) == BOND - PARAMS.fee_admission, "which has paid for it already"
    assert world.segment(job).attempt == 1 and world.worker_of(job) != worker


def test_where_nobody_attested_what_is_claimed_an_admission_waits_for_nothing(world):
    job, chunk = disputed(world, LUCKY)
    admit(world, job, chunk)
    assert world.segment(job).state == SegmentState.ASSIGNED


@pytest.mark.parametrize("outcome", [Outcome.EQUAL, Outcome.UNSERVED, None])
def test_an_admitted_segment_falls_however_the_claim_ends(world, outcome):
    job, chunk = disputed(world, LIAR)
    worker = admit(world, job, chunk)
    assert "admitted already" in world.do(worker, admission(world, job, chunk)).message
    if outcome is not None:
        world.judge(job, outcome)
    world.blocks(PARAMS.dispute_window)
    assert world.segment(job).attempt == 1 and world.worker_of(job) != worker
    assert world.bond(LIAR) == BOND
    assert ("false-accusation", FINDER) in punished(world) or outcome != Outcome.EQUAL


def test_control_if_an_admission_ended_the_dispute_its_friends_would_go_free(world, monkeypatch):
    monkeypatch.setattr(segments, "attesters_of", lambda *args: ())
    job, chunk = disputed(world, LIAR)
    admit(world, job, chunk)
    world.blocks(PARAMS.dispute_window)
    assert world.bond(LIAR) == BOND and LIAR in world.validators


def test_of_work_that_is_hard_all_who_attested_the_chunk_answer(world):
    job = world.running()
    world.commit(job)
    chunk = forged_chunk(world, job)
    holders = [name for name in world.validators if chunk in world.slice_of(name, job)]
    world.harden(job)
    world.accuse(LUCKY, job, chunk)
    world.judge(job, Outcome.DIFFERS)
    assert world.job(job).state == JobState.REVOKED
    assert punished(world)[1:] == [("false-attestation", name) for name in holders]
    assert [world.bond(name) for name in holders] == [LEFT] * len(holders)
    assert world.bond(LUCKY) == BOND and not set(holders) & set(world.validators)


def test_of_dealt_chunks_those_answer_to_whom_it_was_dealt(world):
    job = world.running(tier="covered:2")
    world.commit(job)
    world.blocks(2)
    chunk = world.slice_of(LIAR, job)[0]
    dealt = [name for name in world.validators if chunk in world.slice_of(name, job)]
    world.attest(job)
    world.accuse(next(name for name in world.validators if name not in dealt), job, chunk)
    world.judge(job, Outcome.DIFFERS)
    assert [name for kind, name in punished(world) if kind == "false-attestation"] == dealt


def test_of_the_chunk_that_traps_everybody_answers_who_attested(world):
    job = world.running()
    world.commit(job, trap=2 * 50 + 1, count=50)
    world.attest(job, names=(LIAR, LUCKY))
    world.accuse(FINDER, job, 50)
    world.judge(job, Outcome.DIFFERS)
    assert {name for kind, name in punished(world)[1:]} == {LIAR, LUCKY}


def test_whose_key_was_replaced_since_answers_with_its_successors_bond(world):
    job = world.running(segment=1000)
    world.settle(job)
    chunk = world.slice_of(LIAR, job)[0]
    world.propose(world.replacing(LIAR, "heir"))
    world.end_epoch()
    assert world.bond("heir") == BOND
    claimant = next(n for n in (FINDER, LUCKY, OTHER) if chunk not in world.slice_of(n, job))
    world.accuse(claimant, job, chunk)
    world.judge(job, Outcome.DIFFERS)
    assert ("false-attestation", LIAR) in punished(world)
    assert world.bond("heir") == LEFT and "heir" not in world.validators


@pytest.mark.parametrize("tier", ["audited", "economic", "replicated", "covered:2"])
def test_whether_a_slice_holds_a_chunk_is_what_the_slice_says(world, tier):
    job = world.running(tier=tier)
    world.commit(job)
    world.blocks(2)
    record, segment = world.job(job), world.segment(job)
    for name in world.validators:
        _, ticket = world.drawn(name, job, 0)
        key = world.key(name).public
        held = [o for o in range(201) if is_in_slice(record, segment, key, ticket, o)]
        assert tuple(held) == world.slice_of(name, job)
        own = replace(segment, operator=key)
        if not tier.startswith("covered"):  # there nobody is dealt what is its own
            assert not any(is_in_slice(record, own, key, ticket, o) for o in range(201))


def test_to_look_into_a_slice_of_everything_draws_nothing(world, monkeypatch):
    """Of a segment of a million chunks it would take every attester's draw in one block."""
    job = world.running(tier="replicated")
    world.commit(job)
    world.attest(job, names=(LIAR,))
    world.accuse(FINDER, job, 7)

    def draw(*args: object) -> tuple[int, ...]:
        raise AssertionError("drawn")

    monkeypatch.setattr(jobs, "draw_slice", draw)
    world.judge(job, Outcome.DIFFERS)
    assert world.bond(LIAR) == LEFT


# ---- control


def test_control_without_the_rule_the_attestation_falls_with_the_segment(world, monkeypatch):
    monkeypatch.setattr(lifecycle, "slash_false_attesters", lambda *args: None)
    job, _ = disputed(world, LIAR)
    worker = world.worker_of(job)
    world.judge(job, Outcome.DIFFERS)
    assert punished(world) == [("forged", worker)]
    assert world.bond(LIAR) == BOND and LIAR in world.validators
