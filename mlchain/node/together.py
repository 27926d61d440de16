"""Whole nodes in one process: own files, own ML processes, and a network in memory between them.

For development and for trying things; a chain that others rely on has a process for each node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import trio

from mlchain.ledger.block import Header
from mlchain.ledger.genesis import Genesis, Member
from mlchain.ledger.kv import LevelKeyValue
from mlchain.node.machine import Storage
from mlchain.node.main import Api, first_cause, set_up_logging, stop_on_signal
from mlchain.node.membership import Keys
from mlchain.node.node import Node
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import PeerAddress

LOG = "nodes.log"

OnReady = Callable[[Node, int], None]
OnBlock = Callable[[Node, Header], None]


def run_together(
    genesis: Genesis,
    keys: Mapping[str, Keys],
    folder: Path,
    api: Api,
    on_ready: OnReady,
    on_block: OnBlock,
    misbehaviour: Mapping[str, str],
) -> None:
    """Run a node for each member, and the API of the first, until SIGINT or SIGTERM.

    Each has a folder of its name in `folder`, which gets their log, too. `api` is as in
    `run_node`; `on_ready` is told the first node and its port, `on_block` each of its blocks.

    Raises:
        MlchainError: a node cannot start, or had to stop; says why.
    """
    with (folder / LOG).open("a") as log:
        set_up_logging("text", log)
        try:
            trio.run(
                _run, genesis, keys, folder, api, on_ready, on_block, misbehaviour,
                strict_exception_groups=True,
            )  # fmt: skip
        except BaseExceptionGroup as group:
            raise first_cause(group) from None


async def _run(
    genesis: Genesis,
    keys: Mapping[str, Keys],
    folder: Path,
    api: Api,
    on_ready: OnReady,
    on_block: OnBlock,
    misbehaviour: Mapping[str, str],
) -> None:
    hub, nodes = Hub(), list[Node]()
    with ExitStack() as stack:
        for member in genesis.members:
            kind = misbehaviour.get(member.name, "")
            node = _open(genesis, member, keys[member.name], folder / member.name, hub, kind)
            stack.callback(node.close)
            nodes.append(node)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal, nursery.cancel_scope)
            for node in nodes:
                await nursery.start(node.run)
            on_ready(nodes[0], await nursery.start(api.serve_node, nodes[0]))
            while True:
                async with nodes[0].subscribe_blocks() as blocks:
                    async for committed in blocks:
                        on_block(nodes[0], committed.block.header)


def _open(
    genesis: Genesis, member: Member, keys: Keys, home: Path, hub: Hub, misbehaviour: str
) -> Node:
    for part in ("wal", "spool"):
        (home / part).mkdir(parents=True, exist_ok=True)
    peers = {
        other.peer: PeerAddress(other.host, other.port, other.role, other.name)
        for other in genesis.members
        if other is not member
    }
    transport = MemoryTransport(hub, keys.peer.public, peers, member.role)
    data, content = LevelKeyValue(home / "data"), LevelKeyValue(home / "content")
    storage = Storage(data, content, home / "wal", home / "spool")
    return Node(genesis, keys, storage, transport, misbehaviour)
