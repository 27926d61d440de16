"""Who plays: keys and genesis of a simulated chain. The same for every seed of one size."""

from __future__ import annotations

from functools import cache

from mlchain.consensus.work.tickets import PURPOSES, TICKETS, TicketChain, make_chain
from mlchain.crypto import SecretKey, digest
from mlchain.ledger.genesis import Allocation, Genesis, Member, Params
from mlchain.ledger.state import State
from mlchain.sim.work.machine import EPOCH_MS
from mlchain.vm.families.renewal import find_chains
from mlchain.vm.registry import registry_digest

CHAIN_ID = "test-sim"
BOND = 10**9
MONEY = 10**12

PARAMS = Params(
    propose_timeout_ms=300, vote_timeout_ms=150, timeout_step_ms=100, block_interval_ms=1_000,
    heartbeat_ms=5_000, max_block_gas=2 * 10**9, attest_window=60, segment_timeout_ms=40_000,
    dispute_window=30, slash_worker=BOND // 2, slash_validator=BOND * 6 // 10,
    slash_unavailable=BOND // 100, ticket_heights=512, epoch_blocks=40, unbonding_blocks=500,
    audit_permille=200, custody_window=30, slash_lazy=BOND // 2, max_verify_gas=10**12,
    fee_admission=1_000,
)  # fmt: skip


_secrets: dict[bytes, SecretKey] = {}


@cache
def make_key(name: str) -> SecretKey:
    """The same name is always the same key."""
    key = SecretKey(digest("mlchain/sim/key", name.encode()))
    _secrets[key.public] = key
    return key


def secret_of(public: bytes) -> SecretKey:
    """Return the secret half of a key that was made here."""
    return _secrets[public]


@cache
def ticket_chain(name: str, purpose: str, generation: int = 0) -> TicketChain:
    """Return a validator's hash chain."""
    return make_chain(make_key(name), purpose, CHAIN_ID, PARAMS.ticket_heights, generation)


def ticket_of(state: State, name: str, height: int) -> bytes | None:
    """Return a validator's ticket of `height`, of whichever registered chain holds it."""
    found = find_chains(state, make_key(name).public, height, PARAMS.ticket_heights)
    if found is None:
        return None
    number, chains = found
    return ticket_chain(name, TICKETS, number).at(height - chains.start)


@cache
def make_genesis(validators: int, workers: int) -> Genesis:
    """`validator-0`, …, `worker-0`, … with equal bonds, and money for `alice` and `mallory`."""
    members = []
    for role, count in (("validator", validators), ("worker", workers)):
        for index in range(count):
            name = f"{role}-{index}"
            tips = [bytes(32) for _ in PURPOSES]
            if role == "validator":
                tips = [ticket_chain(name, purpose).tip for purpose in PURPOSES]
            keys = make_key(name).public, make_key(name + "/peer").public
            members.append(Member(name, role, *keys, "127.0.0.1", 0, BOND, *tips))
    rich = tuple(Allocation(make_key(name).public, MONEY) for name in ("alice", "mallory"))
    return Genesis(CHAIN_ID, EPOCH_MS, registry_digest(), PARAMS, tuple(members), rich)
