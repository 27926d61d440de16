"""Row 16: a worker that admits its faults, honestly once, or as a way out of an unlucky draw."""

from __future__ import annotations

from fractions import Fraction

import pytest
from msgspec.structs import replace
from vm.world import BOND, PARAMS, World, make_genesis

from mlchain.consensus.work.assurance import Tier, slice_size
from mlchain.consensus.work.attestation import Outcome
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.consensus.work.rewards import WORKER_PERCENT
from mlchain.consensus.work.sampling import miss_probability
from mlchain.errors import InvalidBlock
from mlchain.vm.families import changes
from mlchain.vm.families.accounts import get_burned
from mlchain.vm.families.governance import ChangeKeys
from mlchain.vm.families.jobs import SegmentState
from mlchain.vm.families.members import WORKERS, replace_worker
from mlchain.vm.families.segments import AdmitFault

ME = "validator-0"
FEE = PARAMS.fee_admission


def make_world(epoch_blocks: int = PARAMS.epoch_blocks) -> World:
    params = replace(PARAMS, epoch_blocks=epoch_blocks)
    return World(genesis=make_genesis(workers=3, params=params))


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def job(world: World) -> bytes:
    made = world.running()
    world.commit(made)
    return made


def admission(world: World, job: bytes, chunk: int = 7, index: int = 0) -> AdmitFault:
    commit = world.segment(job, index).commit
    assert commit is not None
    return AdmitFault(job, index, commit_id(commit), chunk)


def is_jailed(world: World, name: str) -> bool:
    record = WORKERS.get(world.state(), world.key(name).public)
    assert record is not None
    return record.jailed_height > 0


# ---- the honest way


def test_who_admits_before_anybody_accuses_pays_a_fee_and_keeps_bond_and_place(world, job):
    worker = world.worker_of(job)
    assert world.do(worker, admission(world, job)).code == "ok"
    assert world.bond(worker) == BOND - FEE and get_burned(world.state()) == FEE
    assert [fault.kind for fault in world.faults()] == ["admitted"]
    assert world.balance(worker) == 0 and not is_jailed(world, worker)


def test_the_segment_falls_and_another_worker_has_it(world, job):
    worker = world.worker_of(job)
    world.do(worker, admission(world, job))
    assert world.segment(job).state == SegmentState.ASSIGNED
    assert world.segment(job).attempt == 1 and world.worker_of(job) != worker
    world.settle(job)
    assert world.balance(worker) == 0, "nothing of this job's fee goes to it"


def test_what_was_built_on_it_falls_too(world, job):
    world.block()
    world.commit(job, 1)
    world.do(world.worker_of(job), admission(world, job))
    assert world.find_segment(job, 1) is None


@pytest.mark.parametrize("kind", ClaimKind)
def test_who_accused_it_has_no_part_of_the_fee(world, job, kind):
    world.accuse(ME, job, world.slice_of(ME, job)[0], kind)
    assert world.do(world.worker_of(job), admission(world, job)).code == "ok"
    assert world.balance(ME) == 0 and get_burned(world.state()) == FEE


# ---- the ways around it


def refusal(world: World, job: bytes, sender: str = "", chunk: int = 7) -> str:
    receipt = world.do(sender or world.worker_of(job), admission(world, job, chunk))
    assert receipt.code == "invalid-transaction"
    return receipt.message


def test_nobody_admits_for_another(world, job):
    other = next(f"worker-{i}" for i in range(3) if f"worker-{i}" != world.worker_of(job))
    assert "only its worker" in refusal(world, job, other)
    with pytest.raises(InvalidBlock, match="only a worker may send AdmitFault"):
        world.do(ME, admission(world, job))


def test_only_a_chunk_of_the_segment_is_admitted(world, job):
    assert "is not in segment" in refusal(world, job, chunk=200)


def test_once_it_is_hard_it_stays(world, job):
    world.harden(job)
    assert "HARD" in refusal(world, job)


def test_once_an_honest_validator_has_found_it_it_is_too_late(world, job):
    world.accuse(ME, job, 7)
    world.judge(job, Outcome.DIFFERS, (ME, "validator-1"))
    assert "too late" in refusal(world, job)
    world.judge(job, Outcome.DIFFERS, ("validator-2",))
    assert world.faults()[0].kind == "forged"


def forge_and_admit(world: World, jobs: int) -> str:
    """A worker forges in one job after the other, and admits whenever it is accused."""
    cheat = ""
    for _ in range(jobs):
        job = world.running()
        while cheat and world.worker_of(job) != cheat:
            if is_jailed(world, cheat):
                return cheat
            job = world.running()
        world.commit(job)
        cheat = world.worker_of(job)
        world.accuse(ME, job, 7)
        if world.do(cheat, admission(world, job)).code != "ok":
            world.judge(job, Outcome.DIFFERS)
    return cheat


def test_the_second_fault_within_an_epochs_length_is_punished_as_usual(world):
    cheat = forge_and_admit(world, 2)
    assert [fault.kind for fault in world.faults()] == ["admitted", "forged"]
    assert world.bond(cheat) == BOND - FEE - PARAMS.slash_worker and is_jailed(world, cheat)


def test_control_without_the_once_rule_a_cheat_admits_whenever_caught_and_keeps_its_bond():
    world = make_world(epoch_blocks=1)
    cheat = forge_and_admit(world, 5)
    assert [fault.kind for fault in world.faults()] == ["admitted"] * 5
    assert world.bond(cheat) == BOND - 5 * FEE and not is_jailed(world, cheat)


def admit_and_change_keys() -> str:
    """A worker admits a fault, takes another key when the epoch ends, and wants to admit again."""
    world = make_world()
    world.blocks(PARAMS.epoch_blocks - 15)
    job = world.running()
    world.commit(job)
    worker = world.worker_of(job)
    assert world.do(worker, admission(world, job)).code == "ok"
    assert world.do(worker, ChangeKeys(world.replacing(worker, "fresh"))).code == "ok"
    world.end_epoch()
    jobs = (world.running(name=f"job-{i}") for i in range(9))
    job = next(it for it in jobs if world.worker_of(it) == "fresh")
    world.commit(job)
    return world.do("fresh", admission(world, job)).message


def test_another_key_admits_no_sooner():
    assert "admitted too lately" in admit_and_change_keys()


def test_control_if_the_record_began_anew_with_the_key_it_would(monkeypatch):
    monkeypatch.setattr(
        changes,
        "replace_worker",
        lambda state, key, **what: replace_worker(state, key, **what) if "bond" in what else None,
    )
    assert admit_and_change_keys() == ""


# ---- what it would bring


def gain(chunks: int, forged: int, fee: Fraction, pay: Fraction) -> Fraction:
    """What forging and admitting brings more than honest work, in costs of a segment's training.

    `pay`: the worker's share.
    """
    size = slice_size(Tier("audited"), chunks, chunks, 4)
    caught = 1 - miss_probability(chunks, size, forged) ** 3
    return Fraction(forged, chunks) - caught * (pay + fee)


@pytest.mark.parametrize("chunks", [20, 100, 1000, 10_000])
def test_to_forge_always_and_admit_when_found_does_not_pay(chunks):
    """Even for a fee of nothing, and for the least pay for which honest work breaks even."""
    for forged in {1, 2, chunks // 100 or 1, chunks // 10, chunks // 2, chunks}:
        assert gain(chunks, forged, Fraction(0), Fraction(1)) <= 0
        assert gain(chunks, forged, Fraction(1, 10), Fraction(1)) < 0


def test_control_if_an_admitted_segment_were_paid_for_forging_would_pay():
    assert gain(1000, 1000, Fraction(1, 10), Fraction(0)) > Fraction(8, 10)
    assert WORKER_PERCENT > 0, "what it loses is its share of the fee"
