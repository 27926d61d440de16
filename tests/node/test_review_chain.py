"""What a node may hold against a block on its own account, and how large a block it makes."""

from __future__ import annotations

from factories import make_key
from msgspec.structs import replace
from vm.world import JOB, World

from mlchain import codec
from mlchain.consensus.actions import Cast, Check, Verdict
from mlchain.consensus.effects import Timeouts
from mlchain.consensus.engine import Engine
from mlchain.ledger.block import Body, decode_block, header_id
from mlchain.ledger.commit import (
    MAX_EXTENSION_BYTES,
    NIL,
    Commit,
    CommitSignature,
    Vote,
    VoteKind,
)
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.ledger.validators import MAX_VALIDATORS, Validator, ValidatorSet
from mlchain.node.chain import MAX_DRIFT_MS, Chain
from mlchain.vm.execute import build_block


def block_ahead(world: World, ahead_ms: int, time_ms: int = 1_000_000) -> tuple[bytes, bytes, int]:
    """Return id and bytes of a good block, and a clock `ahead_ms` behind its time."""
    store = world.store
    proposer = world.genesis.validators().proposer(1, 0)
    block, _ = build_block(
        store.head, store.head_id, store.state(), world.genesis, Body(None, (), (), ()),
        proposer, time_ms,
    )  # fmt: skip
    return header_id(block.header), codec.encode(block), time_ms - ahead_ms


def test_a_block_ahead_of_our_clock_is_unwanted_not_invalid():
    world = World()
    chain = Chain(world.store, None, lambda ref, commit: True)
    block_id, data, now_ms = block_ahead(world, MAX_DRIFT_MS + 1)
    assert chain.check(block_id, data, now_ms)[0] == Verdict.UNWANTED
    assert chain.check(block_id, data, now_ms + 1)[0] == Verdict.VALID


def test_after_clocks_were_set_back_the_earliest_time_there_is_is_no_reason_to_refuse():
    """A quorum's clocks ran an hour ahead; control: nobody need wait for a later time than that."""
    hour_ms = 3_600_000
    for late_ms, verdict in ((1, Verdict.VALID), (2, Verdict.UNWANTED)):
        world = World()
        chain = Chain(world.store, None, lambda ref, commit: True)
        block_id, data, now_ms = block_ahead(world, hour_ms, world.store.head.time_ms + late_ms)
        assert chain.check(block_id, data, now_ms)[0] == verdict


def test_a_slow_clock_does_not_keep_a_locked_block_from_being_decided():
    """Two of four lock a block with the help of a third that then falls silent."""
    for verdict, wanted in ((Verdict.UNWANTED, b"b" * 32), (Verdict.INVALID, NIL)):
        keys = [bytes([n]) * 32 for n in range(4)]
        validators = ValidatorSet(tuple(Validator(key, 1) for key in keys))
        engine = Engine(1, validators, keys[3], Timeouts(100, 50, 30))
        engine.demand()
        engine.advance()
        for key in keys[:3]:
            engine.add_vote(Vote(VoteKind.PREVOTE, 1, 0, b"b" * 32, key, b"", bytes(64)))
            engine.add_vote(Vote(VoteKind.PRECOMMIT, 1, 1, NIL, key, b"", bytes(64)))
        while engine.round < 1:
            assert engine.advance()
        engine.add_proposal(1, b"b" * 32, 0)  # proposed again, with its polka
        cast: list[bytes] = []
        while actions := engine.advance():
            for action in actions:
                if isinstance(action, Check):
                    engine.set_verdict(action.block_id, verdict)
                elif isinstance(action, Cast) and action.kind == VoteKind.PREVOTE:
                    cast.append(action.block_id)
        assert cast == [wanted]


def test_a_block_with_many_large_extensions_still_fits():
    world = World()
    chain = Chain(world.store, world.genesis.validators().keys[0], lambda ref, commit: True)
    for nonce in range(14):
        payload = replace(JOB, plan=bytes(250_000))
        body = TransactionBody(
            world.genesis.chain_id, make_key("alice").public, nonce, 6_000_000, 1, JOB.KIND,
            codec.encode(payload),
        )  # fmt: skip
        chain.add_transaction(codec.encode(sign_transaction(body, make_key("alice"))))
    signatures = tuple(
        CommitSignature(bytes([n]) * 32, bytes(MAX_EXTENSION_BYTES), bytes(64))
        for n in range(MAX_VALIDATORS)
    )
    block, _ = chain.build(1_000_000, Commit(0, 0, bytes(32), signatures))
    assert block.body.transactions
    decode_block(codec.encode(block))
