"""What the chains of these tests start from: parameters, members, keys and the job they run."""

from __future__ import annotations

from functools import cache
from typing import Any

from factories import make_key

from mlchain.consensus.work.tickets import PURPOSES, make_chain
from mlchain.crypto import digest
from mlchain.ledger.genesis import Allocation, Genesis, Member, Params
from mlchain.ml_runtime import Plan, make_plan
from mlchain.vm.families.submit import SubmitJob

CHAIN = "test-world"
BOND = 1_000_000
SUPPLY = 10**9
BLOCK_MS = 1_000
AHEAD = 3
"""Blocks from an announcement to what it announces, among four validators."""
GAS = 20_000_000

PARAMS = Params(
    propose_timeout_ms=1000, vote_timeout_ms=500, timeout_step_ms=250, block_interval_ms=50,
    heartbeat_ms=10_000, max_block_gas=4 * 10**8, attest_window=20, segment_timeout_ms=60_000,
    dispute_window=6, slash_worker=BOND // 2, slash_validator=BOND // 4,
    slash_unavailable=BOND // 100, fee_admission=BOND // 50, ticket_heights=600,
    epoch_blocks=100, max_verify_gas=10**11, unbonding_blocks=300,
    audit_permille=50, custody_window=30, slash_lazy=BOND // 2,
)  # fmt: skip

CONTENT = b"\x01\x55\x12\x20" + digest("test-content")
"""A content id; no bytes behind it are ever looked at."""
ROWS, FEATURES = 60, 4
PARTS = ("available", "attestations", "verdicts", "reviews", "commitments", "answers")


@cache
def plan(batch: int = 8) -> Plan:
    return make_plan("softmax", features=FEATURES, classes=3, optimiser="sgd", batch=batch)


JOB = SubmitJob(
    name="job", plan=plan().encode(), dataset=CONTENT, train_rows=45, test_rows=15,
    steps=2000, chunk=2, segment=200, tier="audited", fee=1_000_003, seed=b"",
)  # fmt: skip
"""1,000 chunks in 5 segments, of which four validators draw 42 chunks each."""


@cache
def chain_of(name: str, purpose: str, chain_id: str, length: int, generation: int = 0) -> Any:
    return make_chain(make_key(name), purpose, chain_id, length, generation)


def make_member(
    name: str, role: str, chain_id: str = CHAIN, params: Params = PARAMS, bond: int = BOND
) -> Member:
    tips = [bytes(32)] * len(PURPOSES)
    if role == "validator":
        tips = [chain_of(name, p, chain_id, params.ticket_heights).tip for p in PURPOSES]
    key, peer = make_key(name).public, make_key(name + "/peer").public
    return Member(name, role, key, peer, "127.0.0.1", 0, bond, *tips)


def make_genesis(
    validators: int = 4, workers: int = 2, chain_id: str = CHAIN, params: Params = PARAMS
) -> Genesis:
    names = [("validator", i) for i in range(validators)] + [("worker", i) for i in range(workers)]
    members = tuple(make_member(f"{role}-{i}", role, chain_id, params) for role, i in names)
    allocations = (Allocation(make_key("alice").public, SUPPLY),)
    return Genesis(chain_id, 1, bytes(32), params, members, allocations)
