"""Who decides what on chain, when it takes effect, and how much may change at once."""

from __future__ import annotations

import pytest
from factories import make_key
from msgspec.structs import replace
from vm.world import BOND, PARAMS, World, make_genesis

from mlchain.crypto import digest
from mlchain.errors import InvalidBlock
from mlchain.ledger.block import PROTOCOL_VERSION
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.changes import RemoveMember, SetParam, Upgrade, change_digest
from mlchain.vm.families.governance import (
    MAX_OPEN_OF_ONE,
    PROPOSAL_EPOCHS,
    PROPOSALS,
    Approve,
    ChangeKeys,
    Leave,
    Propose,
)
from mlchain.vm.families.members import MEMBERS, VALIDATORS, WORKERS
from mlchain.vm.params import RANGES, get_params
from mlchain.vm.protocol import get_planned, get_protocol

EPOCH = 10
SHORT = replace(PARAMS, epoch_blocks=EPOCH, unbonding_blocks=30)


def make_world(validators: int = 4, **params: int) -> World:
    world = World(genesis=make_genesis(validators, params=replace(SHORT, **params)))
    world.block()
    return world


@pytest.fixture
def world() -> World:
    return make_world()


def key(name: str) -> bytes:
    return make_key(name).public


def pay(world: World, *names: str, amount: int = BOND) -> None:
    for name in names:
        assert world.do("alice", Transfer(key(name), amount)).code == "ok"


def refused(world: World, sender: str, payload) -> str:
    receipt = world.do(sender, payload)
    assert receipt.code != "ok"
    return receipt.message


# ---- proposals ----------------------------------------------------------------------------------


def test_a_quorum_changes_a_parameter_from_the_next_epoch_on(world):
    number = world.propose(SetParam("heartbeat_ms", 5_000), *world.validators[:3])
    assert get_params(world.state()).heartbeat_ms == PARAMS.heartbeat_ms, "not at once"
    world.end_epoch()
    assert world.outcome(number) == "effective"
    assert get_params(world.state()).heartbeat_ms == 5_000


def test_less_than_a_quorum_changes_nothing(world):
    number = world.propose(SetParam("heartbeat_ms", 5_000), *world.validators[:2])
    world.end_epoch()
    assert world.outcome(number) == "open"
    assert get_params(world.state()).heartbeat_ms == PARAMS.heartbeat_ms


def test_only_validators_propose_and_approve(world):
    change = SetParam("heartbeat_ms", 5_000)
    number = world.propose(change, *world.validators[:2])
    for sender in ("alice", "worker-0"):
        for payload in (Propose(change), Approve(number, change_digest(change))):
            with pytest.raises(InvalidBlock, match="only a validator"):
                world.do(sender, payload)


def test_an_approval_counts_once(world):
    change = SetParam("heartbeat_ms", 5_000)
    first, second = world.validators[:2]
    number = world.propose(change, first, second)
    for name in (first, second):
        assert "already" in refused(world, name, Approve(number, change_digest(change)))
    world.end_epoch()
    assert world.outcome(number) == "open"


def test_who_approves_names_the_change_that_it_has_seen(world):
    number = world.propose(SetParam("heartbeat_ms", 5_000), world.validators[0])
    other = Approve(number, change_digest(SetParam("heartbeat_ms", 6_000)))
    assert "another" in refused(world, world.validators[1], other)


def test_the_approval_of_a_removed_member_does_not_count(world):
    liar, second, third = world.validators[:3]
    number = world.propose(SetParam("heartbeat_ms", 5_000), liar, second)
    world.block(evidence=(world.double_vote(liar),), proposer=second)
    world.end_epoch()
    assert world.outcome(number) == "open", "3 are left, a quorum of them is 3"
    change = SetParam("heartbeat_ms", 5_000)
    world.do(third, Approve(number, change_digest(change)))
    world.end_epoch()
    assert world.outcome(number) == "open", "two of those that are there"
    world.do(world.validators[2], Approve(number, change_digest(change)))
    world.end_epoch()
    assert world.outcome(number) == "effective"


def test_a_proposal_expires(world):
    number = world.propose(SetParam("heartbeat_ms", 5_000), world.validators[0])
    for _ in range(PROPOSAL_EPOCHS):
        world.end_epoch()
        assert world.outcome(number) == "open"
        world.block()
    world.end_epoch()
    assert world.outcome(number) == "expired"
    approval = Approve(number, change_digest(SetParam("heartbeat_ms", 5_000)))
    assert "no open proposal" in refused(world, world.validators[1], approval)


def test_nobody_floods_the_others_with_proposals(world):
    for i in range(MAX_OPEN_OF_ONE):
        world.propose(SetParam("heartbeat_ms", 5_000 + i), world.validators[0])
    last = Propose(SetParam("heartbeat_ms", 4_000))
    assert "too many" in refused(world, world.validators[0], last)
    assert "already" in refused(world, world.validators[1], Propose(SetParam("heartbeat_ms", 5000)))


@pytest.mark.parametrize("name", ["epoch_blocks", "ticket_heights", "custody_window", "colour"])
def test_what_is_fixed_at_genesis_stays(world, name):
    message = refused(world, world.validators[0], Propose(SetParam(name, 7)))
    assert "cannot be changed" in message


def test_what_keys_are_due_by_is_fixed_at_genesis(world):
    """An honest element shown by a shorter window would be evidence of lending by a longer one."""
    payload = Propose(SetParam("attest_window", PARAMS.attest_window + 1))
    assert "cannot be changed" in refused(world, world.validators[0], payload)


@pytest.mark.parametrize("name", RANGES)
def test_a_parameter_stays_within_its_range(world, name):
    low, high = RANGES[name]
    assert "allowed" in refused(world, world.validators[0], Propose(SetParam(name, high + 1)))
    if low:
        assert "allowed" in refused(world, world.validators[0], Propose(SetParam(name, low - 1)))


def test_bonds_are_held_for_as_long_as_a_fault_may_come_to_light(world):
    payload = Propose(
        SetParam("unbonding_blocks", PARAMS.attest_window + PARAMS.dispute_window - 1)
    )
    assert "must cover" in refused(world, world.validators[0], payload)


def test_two_changes_that_only_fit_alone_do_not_both_happen(world):
    """Each was checked alone when it was proposed; the second is checked again when it is due."""
    one = world.propose(SetParam("unbonding_blocks", 27))
    two = world.propose(SetParam("dispute_window", 10))
    world.end_epoch()
    assert (world.outcome(one), world.outcome(two)) == ("effective", "failed")
    assert get_params(world.state()).dispute_window == PARAMS.dispute_window


# ---- coming -------------------------------------------------------------------------------------


def test_a_validator_joins_when_the_epoch_ends_and_votes_on_the_next_block(world):
    pay(world, "validator-4")
    number = world.propose(world.add("validator-4"))
    assert "validator-4" not in world.validators
    world.end_epoch()
    assert world.outcome(number) == "effective"
    assert "validator-4" in world.validators
    assert (world.balance("validator-4"), world.bond("validator-4")) == (0, BOND)
    world.block()
    assert key("validator-4") in [s.validator for s in world.last_commit.signatures]
    world.block()


def test_a_worker_and_an_observer_join(world):
    pay(world, "worker-2")
    world.propose(world.add("worker-2", "worker"))
    world.propose(world.add("watcher", "observer", bond=0))
    world.end_epoch()
    assert WORKERS.get(world.state(), key("worker-2")).bond == BOND
    assert MEMBERS.get(world.state(), key("watcher")).role == "observer"
    assert len(world.validators) == 4


def test_nobody_joins_without_its_own_signature(world):
    pay(world, "validator-4")
    change = world.add("validator-4")
    forged = replace(change, ready=world.ready(change.member, key="validator-0"))
    assert "did not sign" in refused(world, world.validators[0], Propose(forged))
    for field, value in (
        ("peer", bytes(32)), ("bond", BOND + 1), ("ticket_tip", bytes([7]) * 32), ("port", 1),
    ):  # fmt: skip
        other = replace(change, member=replace(change.member, **{field: value}))
        assert "did not sign" in refused(world, world.validators[0], Propose(other)), field


def test_consent_ends(world):
    pay(world, "validator-4")
    change = world.add("validator-4")
    old = replace(change, until=world.height, ready=world.ready(change.member, world.height))
    assert "ready until" in refused(world, world.validators[0], Propose(old))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "worker-0"}, "is taken"),
        ({"bond": PARAMS.slash_validator - 1}, "needs at least"),
        ({"bond": BOND + 1}, "cannot pay"),
        ({"ticket_tip": bytes(32)}, "tips"),
        ({"host": "no such host/"}, "no IP address"),
        ({"peer": make_key("validator-1/peer").public, "port": 7}, "has this peer key"),
    ],
)
def test_a_newcomer_that_does_not_fit_is_refused(world, changes, word):
    pay(world, "validator-4")
    change = world.add("validator-4", **changes)
    assert word in refused(world, world.validators[0], Propose(change))


def test_a_key_is_a_member_once_and_never_again(world):
    world.do("worker-0", Leave())
    world.end_epoch()
    pay(world, "worker-0")
    assert "is or was" in refused(
        world, world.validators[0], Propose(world.add("worker-0", "worker"))
    )


def test_a_newcomer_that_spent_its_bond_meanwhile_does_not_join(world):
    pay(world, "validator-4")
    number = world.propose(world.add("validator-4"))
    world.do("validator-4", Transfer(key("alice"), 1))
    world.end_epoch()
    assert world.outcome(number) == "failed"
    assert world.validators == sorted(world.validators, key=key) and len(world.validators) == 4


# ---- going --------------------------------------------------------------------------------------


def test_a_member_leaves_by_itself_and_gets_its_bond_when_it_can_no_longer_be_accused(world):
    world.do("validator-3", Leave())
    world.end_epoch()
    assert "validator-3" not in world.validators
    left = world.height
    while world.height < left + SHORT.unbonding_blocks - 1:
        world.block()
        assert world.balance("validator-3") == 0
    world.end_epoch()
    assert (world.balance("validator-3"), world.bond("validator-3")) == (BOND, 0)


def test_late_evidence_takes_from_the_bond_of_one_that_has_left(world):
    world.do("validator-3", Leave())
    deed = world.height
    world.end_epoch()
    world.blocks(3)
    proposer = world.validators[0]
    world.block(evidence=(world.double_vote("validator-3", deed),), proposer=proposer)
    assert world.bond("validator-3") == BOND - PARAMS.slash_validator
    assert world.balance(proposer) == PARAMS.slash_validator // 2, "half to the finder"
    assert len(world.validators) == 3


def test_what_one_signs_after_it_has_left_is_no_fault(world):
    """Its keys are no validator's any more, and whoever finds them may play with them."""
    world.do("validator-3", Leave())
    world.end_epoch()
    world.blocks(2)
    with pytest.raises(InvalidBlock, match="was not a validator"):
        world.block(evidence=(world.double_vote("validator-3", world.height),))


def test_a_newcomer_is_not_accused_of_what_was_before_it(world):
    pay(world, "validator-4")
    world.propose(world.add("validator-4"))
    world.end_epoch()
    world.block()
    with pytest.raises(InvalidBlock, match="was not a validator"):
        world.block(evidence=(world.double_vote("validator-4", world.height - 3),))
    world.block(evidence=(world.double_vote("validator-4", world.height),))
    assert "validator-4" not in world.validators


def test_a_quorum_removes_a_member(world):
    world.propose(RemoveMember(key("worker-1")))
    world.end_epoch()
    job = world.running()
    assert [world.names[k] for k in world.job(job).workers] == ["worker-0"]


def test_the_last_validator_cannot_go():
    world = make_world(validators=1)
    assert "last validator" in refused(world, "validator-0", Leave())
    assert "last validator" in refused(
        world, "validator-0", Propose(RemoveMember(key("validator-0")))
    )


def test_a_worker_at_work_keeps_its_bond_in_until_its_segment_is_hard():
    world = make_world(unbonding_blocks=1, attest_window=500)
    job = world.running()
    worker = world.worker_of(job)
    world.commit(job)
    world.do(worker, Leave())
    for _ in range(3):
        world.end_epoch()
        world.block()
    assert world.bond(worker) == BOND, "it could still be found a forger"


def test_a_small_set_changes_by_one_validator_an_epoch(world):
    pay(world, "validator-4")
    numbers = [
        world.propose(world.add("validator-4")),
        world.propose(RemoveMember(key("worker-0"))),
    ]
    for name in ("validator-0", "validator-1"):
        assert world.do(name, Leave()).code == "ok"
    sizes = []
    for _ in range(3):
        world.end_epoch()
        sizes.append(len(world.validators))
        world.block()
    assert sizes == [5, 4, 3], "the quorum's wish first, then each in its turn"
    assert [world.outcome(n) for n in numbers] == ["effective", "effective"]


def test_of_seven_two_may_go_in_one_epoch():
    world = make_world(validators=7)
    for name in ("validator-0", "validator-1", "validator-2"):
        world.do(name, Leave())
    world.end_epoch()
    assert len(world.validators) == 5


# ---- other keys ---------------------------------------------------------------------------------


def test_a_validator_changes_its_key_by_itself(world):
    change = world.replacing("validator-3", "validator-3-new")
    assert world.do("validator-3", ChangeKeys(change)).code == "ok"
    assert "validator-3" in world.validators
    world.end_epoch()
    assert "validator-3-new" in world.validators and "validator-3" not in world.validators
    assert (world.bond("validator-3"), world.bond("validator-3-new")) == (0, BOND)
    world.blocks(2)


def test_nobody_changes_the_keys_of_another(world):
    change = world.replacing("validator-3", "thief")
    assert "another's" in refused(world, "validator-2", ChangeKeys(change))
    assert "another's" in refused(world, "alice", ChangeKeys(change))


def test_a_quorum_replaces_a_lost_key(world):
    world.absent = ("validator-3",)
    change = world.replacing("validator-3", "validator-3-new")
    number = world.propose(change, "validator-0", "validator-1", "validator-2")
    world.end_epoch()
    assert world.outcome(number) == "effective"
    assert "validator-3-new" in world.validators


def test_what_the_old_key_did_is_paid_from_the_bond_that_moved(world):
    deed = world.height
    world.do("validator-3", ChangeKeys(world.replacing("validator-3", "validator-3-new")))
    world.end_epoch()
    world.block(evidence=(world.double_vote("validator-3", deed),))
    assert world.bond("validator-3-new") == BOND - PARAMS.slash_validator
    assert "validator-3-new" not in world.validators
    with pytest.raises(InvalidBlock, match="punished and gone"):
        world.block(evidence=(world.double_vote("validator-3", deed),))


def test_a_member_moves_to_another_address(world):
    present = world.replacing("validator-3", "validator-3", port=4711)
    moved = replace(present, member=replace(present.member, peer=key("other-peer")))
    moved = replace(moved, ready=world.ready(moved.member))
    assert world.do("validator-3", ChangeKeys(moved)).code == "ok"
    world.end_epoch()
    member = MEMBERS.get(world.state(), key("validator-3"))
    assert (member.port, member.peer, member.left) == (4711, key("other-peer"), 0)
    assert VALIDATORS.get(world.state(), key("validator-3")).bond == BOND


def test_name_and_role_stay(world):
    change = world.replacing("validator-3", "validator-3-new", name="somebody")
    assert "name and role stay" in refused(world, "validator-3", ChangeKeys(change))


# ---- other rules --------------------------------------------------------------------------------


def test_an_upgrade_is_announced_and_holds_from_an_epoch_on(world, monkeypatch):
    registry = digest("test-registry")
    at = world.height + 2 * EPOCH
    world.propose(Upgrade(PROTOCOL_VERSION + 1, registry, at))
    world.end_epoch()
    planned = get_planned(world.state())
    assert planned is not None and planned.registry == registry
    assert get_protocol(world.state()).version == PROTOCOL_VERSION
    while world.height + 1 < at:
        world.block()
    world.end_epoch()
    assert get_protocol(world.state()).version == PROTOCOL_VERSION + 1
    with pytest.raises(InvalidBlock, match="protocol version"):
        world.check(world.compose()[0])
    monkeypatch.setattr("mlchain.vm.execute.PROTOCOL_VERSION", PROTOCOL_VERSION + 1)
    world.blocks(2)
    assert world.store.head.protocol_version == PROTOCOL_VERSION + 1


def test_an_upgrade_goes_forward_and_gives_time(world):
    for change in (
        Upgrade(PROTOCOL_VERSION, bytes(32), 10**6),
        Upgrade(PROTOCOL_VERSION + 1, bytes(32), world.height),
    ):
        assert refused(world, world.validators[0], Propose(change))


def test_open_proposals_are_few_and_decided_ones_kept(world):
    number = world.propose(SetParam("heartbeat_ms", 5_000))
    world.end_epoch()
    assert not list(PROPOSALS.items(world.state()))
    assert world.outcome(number) == "effective"
