"""Start a node from its configuration and run it until it is told to stop."""

from __future__ import annotations

import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from mlchain.errors import MlchainError
from mlchain.ledger.genesis import Genesis, load_genesis
from mlchain.ledger.kv import LevelKeyValue
from mlchain.ml_runtime import get_backend
from mlchain.node.config import Config
from mlchain.node.node import Keys, Node, Storage
from mlchain.p2p.transport import PeerAddress, Transport

Serve = Callable[..., Awaitable[None]]
"""The node's API: called as `serve(node, task_status=…)`, runs until cancelled."""


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
    storage = Storage(
        LevelKeyValue(config.data), LevelKeyValue(config.content), config.wal, config.home / "spool"
    )
    transport = make_transport(genesis, config, keys)
    return Node(genesis, keys, storage, transport, misbehaviour, config.executor, config.backend)


def make_transport(genesis: Genesis, config: Config, keys: Keys) -> Transport:
    """Return libp2p between the members of the chain; a chain of one node needs no network."""
    own = keys.peer.public
    peers = {
        member.peer: PeerAddress(member.host, member.port, member.role, member.name)
        for member in genesis.members
        if member.peer != own
    }
    role = next((m.role for m in genesis.members if m.peer == own), "observer")
    if not peers:
        from mlchain.p2p.memory import Hub, MemoryTransport

        return MemoryTransport(Hub(), own, peers, role)
    from mlchain.p2p.libp2p import LibP2PTransport

    listen = config.p2p_listen
    return LibP2PTransport(keys.peer.seed, listen.host, listen.port, peers, role)


def run_node(config: Config, keys: Keys, serve: Serve | None, misbehaviour: str = "") -> None:
    """Run until SIGINT or SIGTERM.

    `serve(node, task_status)` is the API that runs beside the node; the caller brings it, because
    the web stands above the node.

    Raises:
        MlchainError: the node cannot start, or had to stop; says why.
    """
    set_up_logging(config.log_format)
    try:
        trio.run(_run, config, keys, serve, misbehaviour, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        raise _first_cause(group) from None


async def _run(config: Config, keys: Keys, serve: Serve | None, misbehaviour: str) -> None:
    node = open_node(config, keys, misbehaviour)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
            await nursery.start(node.run)
            if serve is not None:
                await nursery.start(serve, node)
            gc.collect()  # what is here now stays: modules, the state's tree; the collector would
            gc.freeze()  # walk all of it again and again, and agreement would wait
    finally:
        node.close()


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


def _first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error a person should read out of a group: ours first."""
    ours, rest = group.split(MlchainError)
    found: BaseException = ours or rest or group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def set_up_logging(kind: str) -> None:
    """Log to stderr: one readable line per event, or one JSON document."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if kind == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
