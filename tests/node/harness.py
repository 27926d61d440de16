"""A cluster of real nodes in one process: memory network, memory stores, real ML processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trio

from mlchain import codec
from mlchain.consensus.work.tickets import PURPOSES, make_chain
from mlchain.crypto import SecretKey, digest
from mlchain.ledger.genesis import Allocation, Genesis, Member, Params
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.ml_runtime import Dataset, make_plan
from mlchain.node.machine import Storage
from mlchain.node.membership import Keys
from mlchain.node.node import Node
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import PeerAddress
from mlchain.vm.context import Payload
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.jobs import JOBS, Job, JobState
from mlchain.vm.families.members import FAULTS, Fault
from mlchain.vm.families.submit import SubmitJob
from mlchain.vm.registry import registry_digest

CHAIN_ID = "test-cluster"
SUPPLY = 10**12
BOND = 10**9

PARAMS = Params(
    propose_timeout_ms=2000, vote_timeout_ms=1000, timeout_step_ms=500, block_interval_ms=20,
    heartbeat_ms=60_000, max_block_gas=2 * 10**9, attest_window=2000, segment_timeout_ms=60_000,
    dispute_window=1000, slash_worker=BOND // 2, slash_validator=BOND // 4,
    slash_unavailable=BOND // 100, fee_admission=BOND // 50, ticket_heights=20_000,
    epoch_blocks=100, max_verify_gas=10**11, unbonding_blocks=1_000,
    audit_permille=50, custody_window=200, slash_lazy=BOND // 2,
)  # fmt: skip


def key(name: str) -> SecretKey:
    return SecretKey(digest("mlchain/test-key", name.encode()))


@dataclass
class Cluster:
    genesis: Genesis
    nodes: dict[str, Node]
    alice: SecretKey

    def nonce_sender(self, payload: Payload, gas: int = 50_000_000) -> bytes:
        node = self.nodes["validator-0"]
        body = TransactionBody(
            self.genesis.chain_id, self.alice.public,
            node.chain.mempool.next_nonce(self.alice.public), gas, 1, payload.KIND,
            codec.encode(payload),
        )  # fmt: skip
        return codec.encode(sign_transaction(body, self.alice))

    async def send(self, payload: Payload) -> bytes:
        return await self.nodes["validator-0"].submit_transaction(self.nonce_sender(payload))

    async def submit_digits(
        self, steps: int = 120, chunk: int = 4, segment: int = 10, seed: bytes = b""
    ) -> bytes:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(x))
        dataset = Dataset.from_arrays(x[order], y[order], classes=10)
        data = dataset.encode()
        content = self.nodes["validator-0"].content.put(data)
        plan = make_plan(
            "mlp", features=64, classes=10, optimiser="adam", batch=32, hidden=(16,), rate="0.002"
        )
        await self.send(RegisterData(content, len(data), dataset.rows, dataset.features))
        return await self.send(
            SubmitJob(
                "digits", plan.encode(), content, 1437, 360, steps, chunk, segment, "audited",
                1_000_000, seed,
            )
        )  # fmt: skip

    async def settled(self, job: bytes, timeout_s: float = 240) -> Job:
        with trio.fail_after(timeout_s):
            while True:
                records = [JOBS.get(node.chain.state(), job) for node in self.nodes.values()]
                states = [record.state if record else None for record in records]
                if all(state is not None and state > JobState.RUNNING for state in states):
                    record = records[0]
                    assert record is not None
                    return record
                await trio.sleep(0.05)

    def faults(self) -> list[Fault]:
        return [fault for _, fault in FAULTS.items(self.nodes["validator-0"].chain.state())]


def make_genesis(validators: int, workers: int) -> Genesis:
    names = [("validator", f"validator-{i}") for i in range(validators)]
    names += [("worker", f"worker-{i}") for i in range(workers)]
    members = []
    for port, (role, name) in enumerate(names, 1):
        tips = [bytes(32)] * len(PURPOSES)
        if role == "validator":
            tips = [
                make_chain(key(name), purpose, CHAIN_ID, PARAMS.ticket_heights).tip
                for purpose in PURPOSES
            ]
        members.append(
            Member(
                name, role, key(name).public, key(name + "/peer").public, "127.0.0.1", port, BOND,
                *tips,
            )
        )  # fmt: skip
    return Genesis(
        CHAIN_ID, 1, registry_digest(), PARAMS, tuple(members),
        (Allocation(key("alice").public, SUPPLY),),
    )  # fmt: skip


async def until(is_so: Callable[[], object], timeout_s: float = 60) -> None:
    with trio.fail_after(timeout_s):
        while not is_so():
            await trio.sleep(0.02)


def voters(node: Node) -> set[bytes]:
    """Who signed the last block."""
    commit = node.chain.store.commit(node.chain.height)
    return {signature.validator for signature in commit.signatures}


@asynccontextmanager
async def run_cluster(
    folder: Path,
    validators: int = 4,
    workers: int = 2,
    misbehaviour: dict[str, str] | None = None,
    genesis: Genesis | None = None,
    absent: Collection[str] = (),
) -> AsyncIterator[Cluster]:
    genesis = genesis or make_genesis(validators, workers)
    hub = Hub()
    addresses = {m.peer: PeerAddress(m.host, m.port, m.role, m.name) for m in genesis.members}
    nodes = {}
    for member in genesis.members:
        if member.name in absent:
            continue
        peers = {peer: a for peer, a in addresses.items() if peer != member.peer}
        own = key(member.name)
        keys = Keys(
            key(member.name + "/peer"),
            own if member.role == "validator" else None,
            own if member.role == "worker" else None,
        )
        home = folder / member.name
        for part in ("wal", "spool"):
            (home / part).mkdir(parents=True, exist_ok=True)
        storage = Storage(MemoryKeyValue(), MemoryKeyValue(), home / "wal", home / "spool")
        transport = MemoryTransport(hub, member.peer, peers, member.role)
        nodes[member.name] = Node(
            genesis, keys, storage, transport, (misbehaviour or {}).get(member.name, "")
        )
    async with trio.open_nursery() as nursery:
        for node in nodes.values():
            await nursery.start(node.run)
        yield Cluster(genesis, nodes, key("alice"))
        nursery.cancel_scope.cancel()
