"""What the ledger's tests build on: keys, a genesis, and a chain that grows block by block."""

from __future__ import annotations

from mlchain.crypto import SecretKey
from mlchain.ledger.block import (
    PROTOCOL_VERSION,
    Block,
    Body,
    Header,
    Receipt,
    body_root,
    header_id,
    receipts_root,
)
from mlchain.ledger.commit import Commit, Vote, VoteKind, make_commit, sign_bytes
from mlchain.ledger.genesis import Allocation, Genesis, Member, Params
from mlchain.ledger.kv import KeyValue, MemoryKeyValue
from mlchain.ledger.state import State
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import transaction_id
from mlchain.ledger.validators import Validator, ValidatorSet

CHAIN = "dev-test"
ZERO = bytes(32)
KEYS = sorted((SecretKey(bytes([n]) * 32) for n in range(1, 8)), key=lambda key: key.public)
FOUR = KEYS[:4]
STRANGER = KEYS[6]


def validator_set(keys=FOUR, weights=(1, 1, 1, 1)) -> ValidatorSet:
    return ValidatorSet(
        tuple(Validator(key.public, weight) for key, weight in zip(keys, weights, strict=True))
    )


def params() -> Params:
    return Params(
        propose_timeout_ms=1000,
        vote_timeout_ms=500,
        timeout_step_ms=250,
        block_interval_ms=100,
        heartbeat_ms=10_000,
        max_block_gas=10**9,
        attest_window=20,
        segment_timeout_ms=60_000,
        dispute_window=10,
        slash_worker=500_000,
        slash_validator=500_000,
        slash_unavailable=100_000,
        fee_admission=100_000,
        ticket_heights=1000,
        epoch_blocks=100,
        max_verify_gas=10**11,
        unbonding_blocks=1000,
        audit_permille=50,
        custody_window=20,
        slash_lazy=500_000,
    )


def genesis(chain_id: str = CHAIN) -> Genesis:
    members = tuple(
        Member(
            name=f"v{n}",
            role="validator",
            key=key.public,
            peer=bytes([100 + n]) * 32,
            host="127.0.0.1",
            port=9000 + n,
            bond=1_000_000,
            ticket_tip=ZERO,
            beacon_tip=ZERO,
            custody_tip=ZERO,
        )
        for n, key in enumerate(FOUR)
    )
    return Genesis(
        chain_id=chain_id,
        time_ms=1_700_000_000_000,
        registry=bytes([9]) * 32,
        params=params(),
        members=members,
        allocations=(Allocation(STRANGER.public, 5_000_000),),
    )


def vote(key=FOUR[0], block_id=b"b" * 32, height=5, round_=0, extension=b"", chain=CHAIN, kind=2):
    """A precommit unless said otherwise, honestly signed."""
    signed = sign_bytes(chain, kind, height, round_, block_id, -1, extension)
    return Vote(kind, height, round_, block_id, key.public, extension, key.sign(signed))


def certificate(height: int, block_id: bytes, keys=FOUR[:3]) -> Commit:
    return make_commit([vote(key, block_id, height, kind=int(VoteKind.PRECOMMIT)) for key in keys])


def write_genesis_state(state: State) -> None:
    for n in range(20):
        state.put(b"account/%03d" % n, b"%d" % (1000 * n))


def new_store(kv: KeyValue | None = None) -> Store:
    return Store.create_or_open(kv or MemoryKeyValue(), genesis(), write_genesis_state)


def next_block(
    store: Store, changes: dict[bytes, bytes | None], transactions: tuple[bytes, ...] = ()
) -> tuple[Block, Commit, State, tuple[Receipt, ...], ValidatorSet]:
    """What `append` takes for a block that makes `changes`."""
    state = store.state()
    for key, value in changes.items():
        if value is None:
            state.delete(key)
        else:
            state.put(key, value)
    receipts = tuple(Receipt(transaction_id(t), "ok", 10, "", ("moved",)) for t in transactions)
    last = store.commit(store.height) if store.height else None
    body = Body(last, (), (), transactions)
    validators_hash = validator_set().hash
    header = Header(
        protocol_version=PROTOCOL_VERSION,
        chain_id=CHAIN,
        height=store.height + 1,
        time_ms=store.head.time_ms + 100,
        parent=store.head_id,
        proposer=FOUR[0].public,
        validators_hash=validators_hash,
        next_validators_hash=validators_hash,
        body_root=body_root(body),
        state_root=state.root(),
        receipts_root=receipts_root(receipts),
        gas_used=10 * len(transactions),
    )
    commit = certificate(header.height, header_id(header))
    return Block(header, body), commit, state, receipts, validator_set()


def grow(store: Store, blocks: int) -> None:
    """Append `blocks` blocks, each with two transactions and some changed accounts."""
    for _ in range(blocks):
        height = store.height + 1
        changes: dict[bytes, bytes | None] = {
            b"account/%03d" % (height % 20): b"paid at %d" % height,
            b"job/%03d" % height: bytes([height % 256]) * 400,
            b"account/%03d" % (7 * height % 20): None,
        }
        store.append(*next_block(store, changes, (b"first %d" % height, b"second %d" % height)))
