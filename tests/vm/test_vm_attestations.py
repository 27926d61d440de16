"""Which attestations count (sections 7 and 8). What does not fit is ignored, never fatal."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import PARAMS, World, make_genesis, make_member

from mlchain import codec
from mlchain.codec import Record
from mlchain.consensus.work.attestation import MAX_ATTESTATIONS, Attestation, Extension, Outcome
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.custody import KEY_DELAY, key_due
from mlchain.consensus.work.tickets import BEACON, CUSTODY, Reveal
from mlchain.crypto import digest
from mlchain.vm import votes
from mlchain.vm.families import renewal
from mlchain.vm.families.members import VALIDATORS
from mlchain.vm.votes import NO_ELEMENT, is_valid_extension

ME, YOU = "validator-0", "validator-1"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def job(world: World) -> bytes:
    made = world.running()
    world.commit(made)
    return made


def attesters(world: World, job: bytes) -> list[str]:
    return [world.names[a.validator] for a in world.segment(job).attestations]


def say(world: World, name: str, *attestations: Attestation) -> None:
    world.say(name, "attestations", *attestations)
    world.blocks(2)


def test_an_attestation_stands_on_chain_with_its_ticket(world, job):
    mine = world.attestation(ME, job)
    say(world, ME, mine)
    (stored,) = world.segment(job).attestations
    assert (stored.ticket, stored.result_root) == (mine.ticket, mine.result_root)
    assert world.names[stored.validator] == ME


def test_it_makes_the_ticket_public_and_with_it_all_earlier_ones(world, job):
    height = world.segment(job).commit_height
    say(world, ME, world.attestation(ME, job))
    known = VALIDATORS.get(world.state(), world.key(ME).public).tickets
    assert (known.height, known.element) == (height, world.ticket(ME, height))


WRONG = {
    "ticket of the height before": lambda w, h: {"ticket": w.ticket(ME, h - 1)},
    "ticket of the height after": lambda w, h: {"ticket": w.ticket(ME, h + 1)},
    "ticket of another validator": lambda w, h: {"ticket": w.ticket(YOU, h)},
    "element of its own beacon chain": lambda w, h: {"ticket": w.chain(ME, BEACON).at(h)},
    "no ticket": lambda w, h: {"ticket": bytes(32)},
    "unknown commit": lambda w, h: {"commit": digest("test-no-commit")},
    "unknown job": lambda w, h: {"job": digest("test-no-job")},
    "segment that is not committed": lambda w, h: {"segment": 1},
    "segment that does not exist": lambda w, h: {"segment": 2**63 - 1},
}


@pytest.mark.parametrize("name", WRONG)
def test_an_attestation_is_void_with(world, job, name):
    changes = WRONG[name](world, world.segment(job).commit_height)
    before = VALIDATORS.get(world.state(), world.key(ME).public).tickets
    say(world, ME, replace(world.attestation(ME, job), **changes))
    assert attesters(world, job) == []
    assert VALIDATORS.get(world.state(), world.key(ME).public).tickets == before


def test_who_attests_twice_counts_once(world, job):
    again = world.attestation(ME, job, result_root=digest("test-other-root"))
    say(world, ME, world.attestation(ME, job), again)
    say(world, ME, again)
    assert attesters(world, job) == [ME]
    assert world.segment(job).attestations[0].result_root == bytes(32)


def test_nobody_attests_for_another(world, job):
    say(world, ME, world.attestation(YOU, job))
    assert attesters(world, job) == []


def test_attestations_count_from_the_next_precommit_to_the_end_of_the_window():
    """A = attest_window: precommits of c + 1 to c + A; shown here with A = 4."""
    genesis = make_genesis(params=replace(PARAMS, attest_window=4))
    for late, counts in ((1, True), (4, True), (5, False)):
        world = World(genesis=genesis)
        job = world.running()
        world.commit(job)
        commit = world.segment(job).commit_height
        mine = world.attestation(ME, job)
        quorum = [world.attestation(f"validator-{i}", job) for i in (1, 2, 3)]
        for i, other in enumerate(quorum, 1):  # so that the segment outlives its window
            world.say(f"validator-{i}", "attestations", other)
        world.blocks(commit + late - 1 - world.height)
        world.say(ME, "attestations", mine)
        world.blocks(2)
        assert world.last_commit.height == commit + late + 1
        assert (ME in attesters(world, job)) is counts, late


def test_an_attestation_in_the_precommit_of_the_commit_itself_is_too_early(world):
    """There was no certificate yet: whoever attests has drawn from a commit that was not final."""
    job = world.running()
    commit = world.make_commit(job)
    height = world.height + 1
    early = Attestation(job, 0, commit_id(commit), world.ticket(ME, height), bytes(32))
    world.say(ME, "attestations", early)
    assert world.commit(job) == commit and world.segment(job).commit_height == height
    world.blocks(2)
    assert attesters(world, job) == []
    say(world, ME, early)
    assert attesters(world, job) == [ME]


def test_own_work_is_void():
    """A key in both roles: its slice of its own segment counts for nothing."""
    genesis = make_genesis(workers=0)
    both = replace(make_member(ME, "worker"), name="both")
    world = World(genesis=replace(genesis, members=(*genesis.members, both)))
    world.names[world.key(ME).public] = ME
    job = world.running()
    world.commit(job)
    world.attest(job)
    assert sorted(attesters(world, job)) == ["validator-1", "validator-2", "validator-3"]


def test_own_work_is_not_judged_either():
    genesis = make_genesis(workers=0)
    both = replace(make_member(ME, "worker"), name="both")
    world = World(genesis=replace(genesis, members=(*genesis.members, both)))
    world.names[world.key(ME).public] = ME
    job = world.running()
    world.commit(job)
    world.accuse(YOU, job, 3)
    world.judge(job, Outcome.EQUAL, (ME, YOU))
    assert [b.validator for b in world.segment(job).claim.ballots] == [world.key(YOU).public]


def test_one_precommit_serves_several_segments(world):
    job = world.running()
    world.commit(job)
    world.commit(job, 1)
    say(world, ME, world.attestation(ME, job, 1), world.attestation(ME, job, 0))
    assert all(len(world.segment(job, i).attestations) == 1 for i in (0, 1))


def test_a_wrong_ticket_ends_the_reading_of_its_extension(world):
    """To find a ticket wrong costs a hash for every block since the last right one."""
    job = world.running()
    world.commit(job)
    world.commit(job, 1)
    wrong = world.attestation(ME, job, 0, ticket=bytes(32))
    say(world, ME, wrong, world.attestation(ME, job, 1))
    assert not world.segment(job, 1).attestations


def test_many_wrong_tickets_cost_one_check(world, monkeypatch):
    """The same block with the reading going on (control) would pay for each of them."""
    job = world.running()
    world.commit(job)
    checks = []
    real = renewal.check_reveal
    monkeypatch.setattr(renewal, "check_reveal", lambda *a: (checks.append(a[2]), real(*a))[1])
    height = world.segment(job).commit_height
    wrong = world.attestation(ME, job, 0, ticket=bytes(32))

    def count() -> int:
        world.say(ME, "attestations", *(wrong,) * MAX_ATTESTATIONS)
        world.block()
        checks.clear()
        world.compose()
        return checks.count(height)

    assert count() == 1
    process = votes._process_attestation
    monkeypatch.setattr(votes, "_process_attestation", lambda *a: process(*a) or True)
    assert count() == MAX_ATTESTATIONS


def test_an_extension_that_does_not_decode_is_ignored(world, job, monkeypatch):
    class Junk(Record, frozen=True):
        text: bytes

    real = World.extension
    monkeypatch.setattr(
        World, "extension", lambda w, n, h: Junk(b"junk") if n == ME else real(w, n, h)
    )
    world.attest(job)
    assert ME not in attesters(world, job) and len(attesters(world, job)) == 3


# ---- what a precommit may carry at all


def encoded(world: World, **changes: object) -> bytes:
    height = world.height + 1
    mine = Extension(world.chain(ME, BEACON).at(height), NO_ELEMENT, (), (), (), ())
    return codec.encode(replace(mine, **changes))


def is_valid(world: World, data: bytes, name: str = ME, height: int = 0) -> bool:
    key, height = world.key(name).public, height or world.height + 1
    return is_valid_extension(world.state(), height, key, data, PARAMS)


def test_a_precommit_shows_the_beacon_element_of_its_height(world):
    world.block()
    height = world.height + 1
    assert is_valid(world, encoded(world))
    assert not is_valid(world, encoded(world, beacon=world.chain(ME, BEACON).at(height - 1)))
    assert not is_valid(world, encoded(world, beacon=world.chain(ME, BEACON).at(height + 1)))
    assert not is_valid(world, encoded(world, beacon=world.chain(YOU, BEACON).at(height)))
    assert not is_valid(world, encoded(world, beacon=NO_ELEMENT))


def test_a_precommit_shows_the_custody_key_whose_segments_nobody_can_attest_any_more(world):
    keys = world.chain(ME, CUSTODY)
    height = PARAMS.attest_window + KEY_DELAY + 7
    beacon = world.chain(ME, BEACON).at(height)
    early, right, wrong = (
        encoded(world, beacon=beacon, custody=keys.at(shown)) for shown in (8, 7, 6)
    )
    assert is_valid(world, right, height=height)
    assert not is_valid(world, early, height=height) and not is_valid(world, wrong, height=height)


def test_a_custody_key_stands_on_chain_when_it_is_due(world):
    def known() -> Reveal:
        return VALIDATORS.get(world.state(), world.key(ME).public).custody

    world.blocks(PARAMS.attest_window + KEY_DELAY + 1 - world.height)
    assert known().height == 0
    world.blocks(2)
    assert (known().height, known().element) == (2, world.chain(ME, CUSTODY).at(2))


def test_when_the_chain_of_elements_is_used_up_the_ledger_goes_on_without(world):
    due = world.chain(ME, CUSTODY).at(key_due(601, PARAMS.attest_window))
    late = encoded(world, beacon=NO_ELEMENT, custody=due)
    assert is_valid(world, late, height=601)
    assert is_valid(world, encoded(world, beacon=NO_ELEMENT, custody=NO_ELEMENT), height=700)
    assert not is_valid(world, encoded(world), height=601)


def test_strangers_and_junk_carry_nothing(world):
    assert not is_valid(world, encoded(world), name="worker-0")
    assert not is_valid(world, b"")
    assert not is_valid(world, bytes(40_000))
    assert not is_valid(world, encoded(world) + b"\x00")
