"""Hash chains end, and others follow: registered once, in time, for heights nobody can foresee."""

from __future__ import annotations

import pytest
from factories import make_key
from msgspec.structs import replace
from vm.reporting import report
from vm.world import BOND, PARAMS, World, make_genesis

from mlchain import codec
from mlchain.consensus.work.tickets import BEACON, CUSTODY, PURPOSES, TICKETS, hash_down
from mlchain.errors import InvalidBlock
from mlchain.vm import cover, votes
from mlchain.vm.families import changes, renewal
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.governance import ChangeKeys
from mlchain.vm.families.jobs import SegmentState
from mlchain.vm.families.renewal import RenewChains, find_chains, generations
from mlchain.vm.votes import NO_ELEMENT, get_beacon

ME, YOU = "validator-0", "validator-1"
LENGTH, EPOCH = 60, 10
SHORT = replace(PARAMS, ticket_heights=LENGTH, epoch_blocks=EPOCH)


@pytest.fixture
def world() -> World:
    made = World(genesis=make_genesis(params=SHORT))
    made.blocks(20)
    return made


def renewal_of(world: World, name: str, generation: int = 1, /, **changes: bytes) -> RenewChains:
    """What registers the next hash chains of a validator."""
    tips = [world.chain(name, purpose, generation).tip for purpose in PURPOSES]
    return replace(RenewChains(generation, *tips), **changes)


def renew_all(world: World, generation: int = 1) -> None:
    sent = [world.transaction(n, renewal_of(world, n, generation)) for n in world.validators]
    assert [receipt.code for receipt in world.block(*sent)] == ["ok"] * len(sent)


def starts(world: World, name: str = ME) -> list[int]:
    return [chains.start for _, chains in generations(world.state(), make_key(name).public)]


def refusal(world: World, payload: object, sender: str = ME) -> str:
    receipt = world.do(sender, payload)
    return "" if receipt.code == "ok" else receipt.message


def at(world: World, height: int) -> None:
    """Go on until the next block has this height."""
    world.blocks(height - 1 - world.height)


def test_the_next_chains_begin_where_the_last_ones_end(world):
    renew_all(world)
    assert starts(world) == [0, LENGTH]


def test_work_goes_on_over_the_boundary(world):
    """A segment on either side of it, beacon and custody keys on both."""
    renew_all(world)
    first = world.running()
    at(world, LENGTH)
    world.commit(first)
    world.attest(first)
    second = world.running(name="second")
    world.commit(second)
    assert world.segment(first).commit_height == LENGTH < world.segment(second).commit_height
    world.attest(second)
    world.blocks(3)
    world.block(finalise=(world.ref(first), world.ref(second)))
    assert [world.segment(j).state for j in (first, second)] == [SegmentState.HARD] * 2
    beacon = get_beacon(world.state())
    world.blocks(PARAMS.attest_window + 5)
    assert get_beacon(world.state()) != beacon
    old, new = (chains for _, chains in generations(world.state(), make_key(ME).public))
    assert (old.custody.height, old.beacon.height) == (LENGTH, LENGTH)
    assert new.beacon.height == world.height - 1
    assert new.custody.height == world.height - 1 - PARAMS.attest_window - 2


def test_control_without_renewal_work_ends_there(world):
    job = world.running()
    at(world, LENGTH + 1)
    world.commit(job)
    world.attest(job)
    assert not world.segment(job).attestations
    with pytest.raises(AssertionError, match="used up"):
        world.submit(name="another")


def test_a_third_generation_follows_the_second(world):
    renew_all(world)
    at(world, LENGTH + 2)
    renew_all(world, 2)
    at(world, 2 * LENGTH + 5)
    assert starts(world) == [0, LENGTH, 2 * LENGTH]
    assert find_chains(world.state(), make_key(ME).public, 2 * LENGTH + 1, LENGTH)[0] == 2


# ---- attacks ----------------------------------------------------------------------------------


def test_there_are_no_two_chains_for_one_generation(world):
    renew_all(world)
    other = {"ticket_tip": b"t" * 32, "beacon_tip": b"b" * 32, "custody_tip": b"c" * 32}
    assert "the next is 2" in refusal(world, renewal_of(world, ME, 1, **other))
    assert "begins at height 60" in refusal(world, renewal_of(world, ME, 2))
    assert starts(world) == [0, LENGTH]


def test_control_registered_twice_it_would_choose_between_two_beacons(world, monkeypatch):
    """Whoever may put another chain in the place of a registered one decides late what it shows."""
    renew_all(world)
    monkeypatch.setattr(renewal, "generations", only_first(renewal.generations))
    other = {"ticket_tip": b"t" * 32, "beacon_tip": b"b" * 32, "custody_tip": b"c" * 32}
    assert refusal(world, renewal_of(world, ME, 1, **other)) == ""
    monkeypatch.undo()
    (_, _), (_, chains) = generations(world.state(), make_key(ME).public)
    assert chains.beacon.element == b"b" * 32


def only_first(real):
    return lambda state, validator: list(real(state, validator))[:1]


@pytest.mark.parametrize(("owner", "purpose"), [(YOU, BEACON), (ME, TICKETS)])
def test_no_chain_is_registered_a_second_time(world, owner, purpose):
    taken = world.chain(owner, purpose).tip
    assert "the hash chain" in refusal(world, renewal_of(world, ME, 1, beacon_tip=taken))
    same = world.chain(ME, BEACON, 1).tip
    assert "are equal" in refusal(world, renewal_of(world, ME, 1, ticket_tip=same))


def test_only_a_validator_renews(world):
    with pytest.raises(InvalidBlock, match="only a validator"):
        world.do("worker-0", renewal_of(world, ME))


@pytest.mark.parametrize("height", [LENGTH - 9, LENGTH + 25])
def test_who_registers_late_waits_for_a_whole_epoch(world, height):
    """Until then it shows nothing, and its precommits are votes still."""
    at(world, height)
    world.do(ME, renewal_of(world, ME))
    begin = (height // EPOCH + 2) * EPOCH - 1
    assert starts(world) == [0, begin] and begin - height > EPOCH - 1
    assert world.element(ME, BEACON, begin - 1) == NO_ELEMENT
    world.blocks(begin + 3 - world.height)
    (_, old), (_, new) = generations(world.state(), make_key(ME).public)
    assert (old.beacon.height, new.beacon.height) == (LENGTH, world.height - 1)


def test_the_tip_of_chains_that_begin_after_a_gap_is_no_ticket(world):
    """It is public since it was registered: a worker that commits there would know every slice."""
    at(world, LENGTH + 25)
    renew_all(world)
    begin = starts(world)[1]
    assert begin > world.height > LENGTH, "there is a gap"
    for name in world.validators:
        tip = world.chain(name, TICKETS, 1).tip
        assert world.ticket(name, begin) == NO_ELEMENT != tip
        assert world.ticket(name, begin + 1) == world.chain(name, TICKETS, 1).at(1)


def test_an_element_of_the_wrong_generation_is_no_vote(world):
    renew_all(world)
    key = make_key(ME).public

    def is_valid(height: int, beacon: bytes) -> bool:
        said = replace(world.extension(ME, height), beacon=beacon)
        return votes.is_valid_extension(world.state(), height, key, codec.encode(said), SHORT)

    old, new = world.chain(ME, BEACON), world.chain(ME, BEACON, 1)
    assert is_valid(LENGTH, old.at(LENGTH)) and is_valid(LENGTH + 1, new.at(1))
    assert not is_valid(LENGTH, new.at(1)) and not is_valid(LENGTH, new.at(0))
    assert not is_valid(LENGTH + 1, old.at(LENGTH)) and not is_valid(LENGTH + 1, new.at(2))
    assert not is_valid(LENGTH + 1, NO_ELEMENT)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_an_element_of_the_next_generation_is_secret_as_well(world, purpose):
    renew_all(world)
    element = world.chain(ME, purpose, 1).at(5)
    assert report(world, "alice", ME, purpose, LENGTH + 5, element).code == "ok"
    assert [fault.kind for fault in world.faults()] == ["early-reveal"]


# ---- grinding ---------------------------------------------------------------------------------

TRIES = 64


def favourite() -> bytes:
    """Of many tips the one that suits best what was seen: here, the smallest."""
    return min(hash_down(bytes([i]) * 32, 1) for i in range(1, TRIES))


def grind(world: World) -> bool:
    """Register a beacon chain when the others have shown theirs; return whether it would count."""
    at(world, LENGTH + 5)
    world.do(ME, renewal_of(world, ME, 1, beacon_tip=favourite()))
    shown = world.height - 1  # the others' elements of this height stood in the last block
    found = find_chains(world.state(), make_key(ME).public, shown, LENGTH)
    return found is not None and found[0] == 1


def test_a_chain_that_is_chosen_after_seeing_the_beacon_draws_nothing_seen(world):
    assert not grind(world)


def test_control_chains_that_begin_at_once_are_chosen_after_the_others_were_seen(
    world, monkeypatch
):
    monkeypatch.setattr(renewal, "next_start", lambda end, block: block.height - 2)
    assert grind(world)


def chosen_hand(world: World) -> bool:
    """A validator stays silent until it sees what the others showed for a commit, and then takes a
    key whose chain suits it.

    Returns whether its chain is part of the seed that deals the chunks.
    """
    job = world.running(tier="covered:2")
    while (world.height + 4) % EPOCH:
        world.block()
    world.commit(job)
    world.absent = ("validator-3",)  # it shows nothing yet
    world.block()
    assert world.do("validator-3", ChangeKeys(world.replacing("validator-3", "new"))).code == "ok"
    world.absent = ()
    world.blocks(4)
    roster = world.segment(job).cover.roster
    return make_key("new").public in roster


def test_who_changes_its_key_after_a_commit_has_no_part_in_dealing_it(world):
    assert not chosen_hand(world)


def test_control_chains_from_the_beginning_deal_what_was_committed_before_they_were_known(
    world, monkeypatch
):
    monkeypatch.setattr(changes, "first_start", lambda block: 0)
    monkeypatch.setattr(cover, "is_newer", lambda state, key, height: False)
    assert chosen_hand(world)


def test_a_newcomer_can_use_its_chains_to_their_whole_length(world):
    at(world, LENGTH - 5)
    world.do("alice", Transfer(make_key("validator-4").public, BOND))
    number = world.propose(world.add("validator-4"))
    world.end_epoch()
    assert world.outcome(number) == "effective"
    begin = world.height - PARAMS.attest_window
    assert starts(world, "validator-4") == [begin]
    world.blocks(LENGTH - PARAMS.attest_window - 1)
    (_, chains) = next(generations(world.state(), make_key("validator-4").public))
    assert chains.beacon.height == world.height - 1 > LENGTH
    assert world.element("validator-4", CUSTODY, world.height) != NO_ELEMENT
