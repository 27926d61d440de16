"""Rules of transactions: which may stand in a block, which fail and pay, who gets the gas."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import GAS, PARAMS, SUPPLY, World, make_genesis

from mlchain import codec
from mlchain.errors import CodecError, InvalidBlock, InvalidTransaction
from mlchain.ledger.block import Body
from mlchain.ledger.transaction import (
    Opened,
    decode_transaction,
    open_transaction,
    transaction_id,
)
from mlchain.vm import families
from mlchain.vm.execute import build_block, check_transaction
from mlchain.vm.families.accounts import TRANSFER_GAS, Transfer, get_account
from mlchain.vm.gas import MAX_TRANSACTION_GAS, intrinsic_gas

BOB = b"b" * 32


@pytest.fixture
def world() -> World:
    return World()


def pay(amount: int = 1, to: bytes = BOB) -> Transfer:
    return Transfer(to, amount)


def held(world: World, key: bytes) -> int:
    return get_account(world.state(), key).balance


def test_a_transfer_moves_money_and_its_gas_goes_to_the_proposer(world):
    sent = world.transaction("alice", pay(1000), gas_price=2)
    (receipt,) = world.block(sent, proposer="validator-3")
    used = intrinsic_gas(len(sent)) + TRANSFER_GAS
    assert (receipt.code, receipt.gas_used, receipt.transaction) == (
        "ok",
        used,
        transaction_id(sent),
    )
    assert held(world, BOB) == 1000
    assert world.balance("alice") == SUPPLY - 1000 - 2 * used
    assert world.balance("validator-3") == 2 * used


def test_a_proposer_has_the_fees_of_its_block_after_the_last_transaction(world):
    sent = world.transaction("alice", pay(), gas_price=2)
    spent = world.transaction("validator-3", pay())
    receipts = world.block(sent, spent, proposer="validator-3")
    assert [receipt.code for receipt in receipts] == ["ok", "invalid-transaction"]
    assert world.do("validator-3", pay()).code == "ok"


def test_only_the_gas_that_was_used_is_paid_for(world):
    costs = []
    for gas in (GAS, 2 * GAS):
        before = world.balance("alice")
        world.do("alice", pay(1000), gas_price=1, gas_limit=gas)
        costs.append(before - world.balance("alice"))
    assert costs[0] == pytest.approx(costs[1], abs=100), "the size differs by a byte or two"


def test_a_transfer_to_oneself_changes_nothing(world):
    world.do("alice", pay(1000, world.key("alice").public))
    assert world.balance("alice") == SUPPLY


def test_a_transfer_of_everything_leaves_an_empty_account(world):
    world.do("alice", pay(SUPPLY))
    assert world.balance("alice") == 0 and held(world, BOB) == SUPPLY


@pytest.mark.parametrize("amount, reason", [(0, "amount is 0"), (SUPPLY + 1, "needed")])
def test_a_transaction_that_fails_is_undone_and_pays_all_the_same(world, amount, reason):
    receipt = world.do("alice", pay(amount), gas_price=1)
    assert receipt.code == "invalid-transaction" and reason in receipt.message
    assert receipt.gas_used > 100_000 and receipt.events == ()
    assert world.balance("alice") == SUPPLY - receipt.gas_used and held(world, BOB) == 0
    assert get_account(world.state(), world.key("alice").public).nonce == 1


def test_a_transaction_that_runs_out_of_gas_pays_what_it_used(world):
    size = len(world.transaction("alice", pay(), gas_limit=200_000))
    receipt = world.do("alice", pay(), gas_price=1, gas_limit=intrinsic_gas(size) + 10)
    assert receipt.code == "out-of-gas"
    assert receipt.gas_used == intrinsic_gas(size), "what it could not pay for was not done"
    assert held(world, BOB) == 0


def test_money_that_is_reserved_for_gas_cannot_be_spent(world):
    receipt = world.do("alice", pay(SUPPLY), gas_price=1)
    assert "needed" in receipt.message


def test_nonces_count_up_one_by_one(world):
    sent = [world.transaction("alice", pay(), ahead=i) for i in range(3)]
    assert [receipt.code for receipt in world.block(*sent)] == ["ok"] * 3
    assert held(world, BOB) == 3


# ---- what makes the block invalid


def invalid(world: World, *transactions: bytes) -> str:
    with pytest.raises(InvalidBlock) as caught:
        world.compose(*transactions)
    return caught.value.message


NEVER = {
    "used nonce": ({"nonce": 0}, "was used"),
    "nonce with a gap": ({"nonce": 3}, "nonce 3 where"),
    "other chain": ({"chain_id": "test-other"}, "signed for chain"),
    "too little gas for its size": ({"gas_limit": intrinsic_gas(100)}, "gas limit"),
    "too much gas": ({"gas_limit": MAX_TRANSACTION_GAS + 1}, "gas limit"),
    "gas it cannot pay": ({"gas_price": SUPPLY}, "cannot pay"),
    "unknown kind": ({"kind": 999}, "unknown transaction kind"),
    "malformed payload": ({"payload": b"\x92"}, "Transfer"),
    "payload of another kind": ({"kind": 10}, "RegisterData"),
    "sender without signature": ({"sender": BOB, "nonce": 0}, "signature"),
}


@pytest.mark.parametrize("name", NEVER)
def test_a_block_is_invalid_with_a_transaction_with(world, name):
    changes, reason = NEVER[name]
    world.do("alice", pay())
    good = world.transaction("validator-0", pay())
    bad = world.transaction("alice", pay(), **changes)
    world.compose(good)
    assert reason in invalid(world, bad)
    assert reason in invalid(world, good, bad), "one of them is enough"


def test_junk_is_no_transaction(world):
    for data in (b"", b"\x00", bytes(1000)):
        assert "may not be included" in invalid(world, data)


def test_a_transaction_stands_in_the_chain_once(world):
    sent = world.transaction("alice", pay())
    assert "nonce" in invalid(world, sent, sent)
    world.block(sent)
    assert "was used" in invalid(world, sent)


def test_a_changed_byte_of_the_body_or_the_signature_is_noticed(world):
    sent = decode_transaction(world.transaction("alice", pay(5)))
    richer = replace(sent.body, payload=codec.encode(pay(6)))
    assert "signature" in invalid(world, codec.encode(replace(sent, body=richer)))
    twisted = bytes([sent.signature[0] ^ 1]) + sent.signature[1:]
    assert "signature" in invalid(world, codec.encode(replace(sent, signature=twisted)))


def test_a_signature_is_looked_at_unless_this_node_has_seen_it_before(world):
    twisted = codec.encode(
        replace(decode_transaction(world.transaction("alice", pay())), signature=bytes(64))
    )
    opened = open_transaction(twisted)

    def build(seen: Opened) -> None:
        build_block(
            world.store.head, world.store.head_id, world.state(), world.genesis,
            Body(None, (), (), (twisted,)), world.key("validator-0").public, 5,
            {twisted: seen}.__getitem__,
        )  # fmt: skip

    with pytest.raises(InvalidBlock, match="signature"):
        build(opened)
    build(opened._replace(is_verified=True))


def test_a_block_holds_no_more_gas_than_its_bound(world):
    used = world.do("alice", pay()).gas_used
    small = World(genesis=make_genesis(params=replace(PARAMS, max_block_gas=2 * used)))
    sent = [small.transaction("alice", pay(), ahead=i) for i in range(3)]
    small.compose(*sent[:2])
    assert "gas" in invalid(small, *sent)


# ---- the same rules, asked by a mempool


def test_a_mempool_may_keep_what_comes_up_later(world):
    later = decode_transaction(world.transaction("alice", pay(), nonce=7))
    assert check_transaction(world.state(), world.genesis, later) == pay()


@pytest.mark.parametrize(
    "name", [n for n in NEVER if n not in ("nonce with a gap", "sender without signature")]
)
def test_a_mempool_refuses_the_rest_with_a_reason(world, name):
    """All but signatures, which it checks by itself."""
    changes, reason = NEVER[name]
    world.do("alice", pay())
    bad = decode_transaction(world.transaction("alice", pay(), **changes))
    with pytest.raises((InvalidTransaction, CodecError), match=reason):
        check_transaction(world.state(), world.genesis, bad)


# ---- the table of kinds


def test_every_kind_has_a_tag_of_its_own_and_says_who_may_send_it():
    assert list(families.KINDS) == sorted(families.KINDS)
    assert {kind.ROLE for kind in families.KINDS.values()} == {"", "worker", "validator"}
    assert families.decode_payload(1, codec.encode(pay())) == pay()


def test_the_digest_of_the_table_changes_with_any_row(monkeypatch):
    before = families.table_digest()
    for change in ({999: Transfer}, {1: families.KINDS[10]}):
        monkeypatch.setattr(families, "KINDS", {**families.KINDS, **change})
        assert families.table_digest() != before
