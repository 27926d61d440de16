"""One validator over a simulated disk, driven step by step; and what must hold after any crash."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest.mock import patch

import harness
from harness import key
from msgspec.structs import replace
from simulated_disk import Machine, SimulatedFiles, SimulatedKeyValue

from mlchain import codec
from mlchain.consensus.effects import Broadcast
from mlchain.consensus.messages import BlockProposal, decode_message
from mlchain.ledger.commit import Vote
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.history import check_history
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.merkle import SparseTree
from mlchain.ledger.state import State
from mlchain.ledger.transaction import TransactionBody, sign_transaction, transaction_id
from mlchain.node.machine import Storage
from mlchain.node.membership import Keys
from mlchain.node.node import Node
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import PeerAddress
from mlchain.vm.families.accounts import Transfer, get_account
from mlchain.vm.initial import compute_supply, write_genesis

HOME = Path("/home")
TICKET_HEIGHTS = 64
RECEIVER = bytes(32)


@cache
def small_genesis(validators: int) -> Genesis:
    """Short hash chains: a node starts in milliseconds."""
    short = replace(harness.PARAMS, ticket_heights=TICKET_HEIGHTS)
    with patch.object(harness, "PARAMS", short):
        return harness.make_genesis(validators, 0)


def initial_state(genesis: Genesis) -> State:
    state = State(MemoryKeyValue(), SparseTree())
    write_genesis(state, genesis)
    return state


def transfer(genesis: Genesis, nonce: int) -> bytes:
    sender = key("alice")
    body = TransactionBody(
        genesis.chain_id, sender.public, nonce, 1_000_000, 1, Transfer.KIND,
        codec.encode(Transfer(RECEIVER, 1)),
    )  # fmt: skip
    return codec.encode(sign_transaction(body, sender))


@dataclass
class World:
    """What the outside saw, in all lives of the node: nobody can take it back."""

    said: list[bytes] = field(default_factory=list)
    """Consensus messages that left."""
    acknowledged: dict[bytes, int] = field(default_factory=dict)
    """Transactions that a client was told are final, with their heights."""

    def copy(self) -> World:
        return World(list(self.said), dict(self.acknowledged))


def on_machine(machine: Machine) -> Storage:
    return Storage(
        SimulatedKeyValue(machine), MemoryKeyValue(), HOME / "wal", HOME / "spool",
        files=SimulatedFiles(machine),
    )  # fmt: skip


class LabClock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def monotonic_ms(self) -> int:
        return self.now

    wall_ms = monotonic_ms


CLOCK = LabClock()


class LabNode(Node):
    def _make_clock(self) -> LabClock:
        return CLOCK


class Life:
    """One start of validator 0."""

    def __init__(
        self,
        genesis: Genesis,
        disk: Machine | Storage,
        world: World,
        name: str = "validator-0",
        waits: bool = False,
    ) -> None:
        """`waits`: somebody else calls `start`."""
        self.genesis, self.world = genesis, world
        own = key(name)
        keys = Keys(key(name + "/peer"), own, None)
        peers = {
            m.peer: PeerAddress(m.host, m.port, m.role, m.name)
            for m in genesis.members
            if m.peer != keys.peer.public
        }
        self.transport = MemoryTransport(Hub(), keys.peer.public, peers)
        storage = disk if isinstance(disk, Storage) else on_machine(disk)
        self.name = name
        self.node = LabNode(genesis, keys, storage, self.transport)
        self.agreement = self.node.agreement
        self.agreement.after_commit.append(self._acknowledge)
        execute = self.agreement._execute

        def watched(effect):
            if isinstance(effect, Broadcast):
                world.said.append(effect.message)
            execute(effect)

        self.agreement._execute = watched
        if not waits:
            self.start()

    def start(self) -> None:
        self.agreement.start()
        self._end_if_failed()

    def _acknowledge(self, committed) -> None:
        for receipt in committed.receipts:
            self.world.acknowledged[receipt.transaction] = committed.block.header.height

    def block(self, nonces=()) -> None:
        """Want a block, with these transfers."""
        for nonce in nonces:
            self.node.chain.add_transaction(transfer(self.genesis, nonce))
        self.agreement._driver.demand(self.node.clock.monotonic_ms())
        self.agreement._pump()
        self._end_if_failed()

    def _end_if_failed(self) -> None:
        if self.agreement._failure is not None:
            raise self.agreement._failure

    def nonce(self) -> int:
        return get_account(self.node.chain.state(), key("alice").public).nonce


def complaints(life: Life) -> list[str]:
    """Say what must never be: lost, doubled, contradicted, or not the state of the header."""
    world, store = life.world, life.node.chain.store
    found = contradictions(world.said)
    check_history(store)
    state = store.state()
    if state.root() != store.head.state_root:
        found.append("the state is not the header's")
    if compute_supply(state) != compute_supply(initial_state(life.genesis)):
        found.append("the supply changed")
    count = {}
    for height in range(1, store.height + 1):
        for data in store.block(height).body.transactions:
            identity = transaction_id(data)
            count[identity] = [*count.get(identity, []), height]
    for identity, height in world.acknowledged.items():
        if count.get(identity) != [height]:
            found.append(
                f"{identity.hex()[:8]}, final at {height}, stands at {count.get(identity)}"
            )
    if get_account(state, RECEIVER).balance != len(count):
        found.append("a transfer counts twice or not at all")
    return found


def contradictions(said: list[bytes]) -> list[str]:
    """Say where two messages that left would convict their author."""
    first: dict[tuple[bytes, int, int, int], tuple] = {}
    found = []
    for data in said:
        message = decode_message(data)
        if isinstance(message, Vote):
            place = message.validator, message.height, message.round, int(message.kind)
            what = message.block_id, message.extension
        elif isinstance(message, BlockProposal):
            made = message.proposal
            place, what = (made.validator, made.height, made.round, 0), (made.block_id, b"")
        else:
            continue
        if first.setdefault(place, what) != what:
            found.append(f"two signatures at height {place[1]} round {place[2]} step {place[3]}")
    return found
