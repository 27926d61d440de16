"""Start a node from its configuration and run it until it is told to stop."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
from typing import Any, Protocol, TextIO

import structlog
import trio

from mlchain.crypto import SecretKey
from mlchain.errors import MlchainError
from mlchain.ledger.genesis import Genesis, load_genesis
from mlchain.ledger.kv import LevelKeyValue
from mlchain.ml_runtime import get_backend
from mlchain.node.catchup import start_from_snapshot, stored_state, wants_snapshot
from mlchain.node.config import Config
from mlchain.node.fetching import Fetching, Newcomer
from mlchain.node.machine import Storage
from mlchain.node.membership import Keys
from mlchain.node.node import Node
from mlchain.node.repair import repair
from mlchain.p2p.transport import PeerAddress, Transport

log = structlog.get_logger("node")


class Api(Protocol):
    """Where the process is asked: by the caller, because the web stands above the node."""

    async def serve_newcomer(
        self, newcomer: Newcomer, done: trio.Event, *, task_status: trio.TaskStatus[int] = ...
    ) -> None:
        """Tell how far state sync is, until it is done."""
        ...

    async def serve_node(self, node: Node, *, task_status: trio.TaskStatus[int] = ...) -> None:
        """Serve all that a node knows, until cancelled."""
        ...


def open_node(config: Config, keys: Keys, misbehaviour: str = "") -> Node:
    """Return the node that `config` describes, with its stores open.

    The runtime tests itself first: a machine that computes other bits must not vote.

    Raises:
        MlchainError: says which file or key is wrong, or what this machine computes differently.
    """
    get_backend(config.backend)
    genesis = load_genesis(config.genesis)
    config.check_exposure(genesis.chain_id)
    for folder in (config.home, config.wal, config.home / "spool"):
        folder.mkdir(parents=True, exist_ok=True)
    every = config.snapshot_every
    chain = LevelKeyValue(config.data)
    storage = Storage(
        chain,
        LevelKeyValue(config.content),
        config.wal,
        config.home / "spool",
        config.snapshots,
        genesis.params.epoch_blocks if every is None else every,
        config.keep_blocks,
        config.content_quota,
    )
    transport = make_transport(genesis, config, keys.at(stored_state(chain)).peer)
    return Node(
        genesis, keys, storage, transport, misbehaviour, config.executor, config.backend,
        config.recheck,
    )  # fmt: skip


def make_transport(genesis: Genesis, config: Config, peer: SecretKey) -> Transport:
    """Return libp2p between the members that began the chain; a node tells it who came and went.

    A development chain of one node needs no network.
    """
    own = peer.public
    peers = {
        member.peer: PeerAddress(member.host, member.port, member.role, member.name)
        for member in genesis.members
        if member.peer != own
    }
    role = next((m.role for m in genesis.members if m.peer == own), "observer")
    if not peers and genesis.is_dev:
        from mlchain.p2p.memory import Hub, MemoryTransport

        return MemoryTransport(Hub(), own, peers, role)
    from mlchain.p2p.libp2p import LibP2PTransport

    listen = config.p2p_listen
    return LibP2PTransport(peer.seed, listen.host, listen.port, peers, role)


def run_node(
    config: Config,
    keys: Keys,
    api: Api | None,
    misbehaviour: str = "",
    is_repair: bool = False,
) -> None:
    """Run until SIGINT or SIGTERM, with `api` beside the node.

    `is_repair`: a damaged database is repaired first.

    Raises:
        MlchainError: the node cannot start, or had to stop; says why.
    """
    set_up_logging(config.log_format)
    if is_repair:
        last_sign = config.wal / "last-sign" if keys.validator else None
        repair(config.data, load_genesis(config.genesis), last_sign)
    try:
        trio.run(_run, config, keys, api, misbehaviour, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        raise first_cause(group) from None


async def _run(config: Config, keys: Keys, api: Api | None, misbehaviour: str) -> None:
    """Run nodes one after another: each until its keys play another role than it was made for."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_on_signal, nursery.cancel_scope)
        await catch_up(config, keys, api)
        while True:
            await _run_one(config, keys, api, misbehaviour)


async def _run_one(config: Config, keys: Keys, api: Api | None, misbehaviour: str) -> None:
    node: Node | None = None
    try:
        async with trio.open_nursery() as nursery:
            node = open_node(config, keys, misbehaviour)
            await nursery.start(node.run)
            if api is not None:
                await nursery.start(api.serve_node, node)
            freeze_heap()
            await node.membership.outdated.wait()
            log.info("role-changed", height=node.chain.height)
            nursery.cancel_scope.cancel()
    finally:
        if node is not None:
            node.close()


def freeze_heap() -> None:
    """Set aside what is here now and stays, such as modules and the state's tree.

    The collector would walk all of it again and again, and agreement would wait.
    """
    gc.unfreeze()  # what was set aside with a node that played another role may go
    gc.collect()
    gc.freeze()


async def catch_up(config: Config, keys: Keys, api: Api | None = None) -> None:
    """Start from a snapshot if the configuration says so and there is one.

    Meanwhile `api` tells how far it is.

    Raises:
        MlchainError: it says so, and there is none; or a file is damaged.
    """
    genesis = load_genesis(config.genesis)
    config.home.mkdir(parents=True, exist_ok=True)
    kv = LevelKeyValue(config.data)
    try:
        if not wants_snapshot(config.sync, genesis, kv, time.time_ns() // 10**6):
            return
        transport = make_transport(genesis, config, keys.at(stored_state(kv)).peer)
        if not transport.peers():
            return
        fetching, done = Fetching(), trio.Event()
        async with trio.open_nursery() as nursery:
            if api is not None:
                newcomer = Newcomer(genesis, keys, transport, config.home, fetching)
                await nursery.start(api.serve_newcomer, newcomer, done)
            await start_from_snapshot(
                kv,
                genesis,
                transport,
                config.snapshots,
                is_needed=config.sync == "snapshot",
                trust=config.trust,
                last_sign=config.wal / "last-sign" if keys.validator else None,
                progress=fetching,
            )
            done.set()
    finally:
        kv.close()


async def stop_on_signal(scope: trio.CancelScope) -> None:
    """Cancel `scope` at the first SIGINT or SIGTERM."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error a person should read out of a group: ours first."""
    ours, rest = group.split(MlchainError)
    found: BaseException = ours or rest or group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def set_up_logging(kind: str, stream: TextIO | None = None) -> None:
    """Log to `stream`, or stderr: one readable line per event, or one JSON document."""
    stream = stream or sys.stderr
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if kind == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    logging.basicConfig(stream=stream, level=logging.WARNING, format="%(message)s")
