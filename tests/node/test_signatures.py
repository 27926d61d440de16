"""Signatures are checked once, those of fetched blocks ahead; a forged one is still refused."""

from __future__ import annotations

import pytest
import trio
from factories import make_chain, make_key
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.consensus.actions import Verdict
from mlchain.ledger.block import Block, Body, body_root, header_id
from mlchain.ledger.commit import verify_commit
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import TransactionBody, sign_transaction, transaction_id
from mlchain.node import mempool as mempool_module
from mlchain.node import signatures
from mlchain.node.chain import Chain
from mlchain.node.mempool import Mempool
from mlchain.node.signatures import STRIDE, THREAD_COUNT, verify_ahead, verify_in_turns
from mlchain.vm import execute
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.initial import write_genesis

CHAIN = make_chain()
COUNT = THREAD_COUNT + 8
GAS = 150_000
FORGED = 3
"""Place of the transaction that somebody changed in a forged block."""


def follower() -> Chain:
    genesis = CHAIN.genesis
    store = Store.create_or_open(MemoryKeyValue(), genesis, lambda s: write_genesis(s, genesis))
    return Chain(store, None, lambda ref, commit: True)


@pytest.fixture(scope="module")
def block() -> Block:
    alice, payload = make_key("alice"), codec.encode(Transfer(bytes(32), 1))
    for nonce in range(COUNT):
        body = TransactionBody(
            CHAIN.genesis.chain_id, alice.public, nonce, GAS, 1, Transfer.KIND, payload
        )
        CHAIN.chain.add_transaction(codec.encode(sign_transaction(body, alice)))
    return CHAIN.chain.build(1, None)[0]


def forge(block: Block) -> Block:
    """Return the block with one signature changed, and a header that says so."""
    sent = list(block.body.transactions)
    sent[FORGED] = sent[FORGED][:-1] + bytes([sent[FORGED][-1] ^ 1])
    body = Body(None, (), (), tuple(sent))
    return Block(replace(block.header, body_root=body_root(body)), body)


def prepare(mempool: Mempool, *blocks: bytes) -> int:
    return trio.run(verify_ahead, mempool, blocks)


def test_a_block_whose_signatures_were_checked_ahead_executes_without_them(block, monkeypatch):
    checked = []
    monkeypatch.setattr(execute, "verify_transaction", checked.append)
    for is_ahead, count in ((True, 0), (False, COUNT)):
        node, data = follower(), codec.encode(block)
        if is_ahead:
            assert prepare(node.mempool, data) == 1
        assert node.check(header_id(block.header), data, 2 * 10**12) == (Verdict.VALID, "")
        assert len(checked) == count


def test_what_a_block_brought_is_not_checked_again_when_it_comes_by_itself(block, monkeypatch):
    node, checked = follower(), []
    sent = block.body.transactions
    monkeypatch.setattr(mempool_module, "verify_transaction", checked.append)
    for is_known in (False, True):
        if is_known:
            node.check(header_id(block.header), codec.encode(block), 2 * 10**12)
        checked.clear()
        fresh = (
            [node.mempool.open(data) for data in sent[COUNT // 2 :]]
            if is_known
            else [node.mempool.open(data) for data in sent[: COUNT // 2]]
        )
        trio.run(verify_in_turns, node.mempool, fresh)
        assert len(checked) == (0 if is_known else len(fresh))


@pytest.mark.parametrize("is_fair", [True, False])
def test_signatures_of_a_batch_leave_others_their_turn(block, monkeypatch, is_fair):
    if not is_fair:
        monkeypatch.setattr(signatures, "STRIDE", 10**9)
    node, turns = follower(), []
    opened = [node.mempool.open(data) for data in block.body.transactions]

    async def other():
        while True:
            turns.append(1)
            await trio.lowlevel.checkpoint()

    async def scenario():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            assert await verify_in_turns(node.mempool, opened) == COUNT
            nursery.cancel_scope.cancel()

    trio.run(scenario)
    assert (len(turns) >= COUNT // STRIDE - 1) is is_fair


def test_a_batch_is_checked_up_to_the_first_that_nobody_signed(block):
    node = follower()
    opened = [node.mempool.open(data) for data in forge(block).body.transactions]
    assert trio.run(verify_in_turns, node.mempool, opened) == FORGED
    known = [each.identity in node.mempool.verified for each in opened]
    assert known == [place < FORGED for place in range(COUNT)]


def test_a_forged_signature_is_not_remembered_and_its_block_refused(block):
    forged, node = forge(block), follower()
    prepare(node.mempool, codec.encode(forged))
    known = [transaction_id(data) in node.mempool.verified for data in forged.body.transactions]
    assert known == [place != FORGED for place in range(COUNT)]
    verdict, reason = node.check(header_id(forged.header), codec.encode(forged), 2 * 10**12)
    assert verdict == Verdict.INVALID and "signature" in reason


def test_no_more_is_checked_ahead_than_a_lie_may_cost(block, monkeypatch):
    monkeypatch.setattr(signatures, "AHEAD", COUNT)
    data = codec.encode(block)
    assert prepare(follower().mempool, data, data, data) == 1
    monkeypatch.setattr(signatures, "AHEAD", COUNT + 1)
    assert prepare(follower().mempool, data, data, data) == 2


def test_bytes_that_are_no_block_are_left_to_whoever_checks_them():
    assert prepare(follower().mempool, b"", b"\xc1") == 2


def test_votes_checked_in_a_certificate_are_not_checked_again_in_the_next_block(monkeypatch):
    world, judged = make_chain(n_validators=4), []
    real = crypto.is_signed

    def judge(public: bytes, message: bytes, signature: bytes) -> bool:
        judged.append(public)
        return real(public, message, signature)

    world.grow()
    commit, head = world.last_commit, world.store.head
    block, identity = world.chain.build(head.time_ms + 1, commit)
    monkeypatch.setattr(crypto, "is_signed", judge)
    for is_seen in (True, False):
        node = Chain(world.store, None, lambda ref, commit: True)
        if is_seen:
            voters = node.validators
            verify_commit(commit, head.chain_id, voters, 1, commit.block_id, node.is_signed)
        judged.clear()
        assert node.check(identity, codec.encode(block), block.header.time_ms)[0] == Verdict.VALID
        assert len(judged) == (0 if is_seen else len(commit.signatures))
