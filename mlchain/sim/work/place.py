"""One process of the simulation: a real node that crashes and starts again from its disk."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from random import Random
from typing import TYPE_CHECKING

import trio

from mlchain.ledger.genesis import Genesis, Member
from mlchain.node.node import Keys
from mlchain.p2p.transport import PeerAddress
from mlchain.sim.work.cast import make_key, secret_of
from mlchain.sim.work.machine import Disk, Machine, Power, PowerCut, SimulatedNode
from mlchain.sim.work.wire import InventedTransport, PostOffice

if TYPE_CHECKING:
    from mlchain.sim.work.cheat import Cheat

SPEAKER: ContextVar[Place | None] = ContextVar("speaker", default=None)
"""Whose code runs: what is logged is logged by it."""


class Place:
    """One process and its disk. `is_honest`: nothing about it is changed."""

    def __init__(
        self, index: int, member: Member, genesis: Genesis, office: PostOffice, rng: Random
    ) -> None:
        self.index = index
        self.member = member
        self.name, self.role, self.peer = member.name, member.role, member.peer
        self.genesis = genesis
        self.office = office
        self.rng = rng
        self.disk = Disk()
        self.life = 0
        self.crashes = 0
        self.skew_ms = 0
        self.node: SimulatedNode | None = None
        self.node_type: type[SimulatedNode] = SimulatedNode
        self.transport: InventedTransport | None = None
        self.cheat: Cheat | None = None
        self.draw: Callable[[], bool] = lambda: False
        """Tells whether power fails now."""
        self.on_start: list[Callable[[Place], None]] = []
        self.on_crash: list[Callable[[Place], None]] = []
        self.on_bug: Callable[[Place, str], None] = lambda place, what: None
        self._scope = trio.CancelScope()
        self._power = Power(lambda: False)
        office.places.setdefault(self.peer, []).append(self)

    @property
    def is_honest(self) -> bool:
        """Whether its key is not misused."""
        return self.cheat is None

    @property
    def key(self) -> bytes:
        """Its public key."""
        return self.member.key

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Have what is logged inside be said by this place."""
        token = SPEAKER.set(self)
        try:
            yield
        finally:
            SPEAKER.reset(token)

    def outgoing(self, channel: int, frame: bytes, receiver: Place) -> list[bytes]:
        """Return what is sent in place of a frame."""
        return [frame] if self.cheat is None else self.cheat.outgoing(channel, frame, receiver)

    def do(self, action: Callable[[], None]) -> None:
        """Let something happen here; power may fail in it."""
        life = self.life
        with self.speaking():
            try:
                action()
            except PowerCut:
                self.lose_power(life)
            except Exception as error:
                self.on_bug(self, _first(error))

    def lose_power(self, life: int) -> None:
        """End this life."""
        if life != self.life:
            return
        self.life += 1
        self.crashes += 1
        self._power.is_on = False
        self.node = self.transport = None
        self.disk.crash(self.rng)
        for listener in self.on_crash:
            listener(self)
        self._scope.cancel()

    async def live(self) -> None:
        """Start, run until power fails, wait a little, and again; for ever."""
        SPEAKER.set(self)
        await trio.sleep(self.rng.random() * 0.2)
        while True:
            life = self.life
            self._power = Power(self.draw)
            try:
                with trio.CancelScope() as self._scope:
                    await self._start().run()
            except* PowerCut:
                pass
            except* Exception as group:
                self.on_bug(self, _first(group))
            self.lose_power(life)
            await trio.sleep(0.001 + self.rng.random() * 1.5)

    def _start(self) -> SimulatedNode:
        machine = Machine(self.disk, self._power, self.skew_ms)
        secret, peer = secret_of(self.member.key), make_key(self.name + "/peer")
        is_validator = self.role == "validator"
        keys = Keys(peer, secret if is_validator else None, None if is_validator else secret)
        peers = {
            m.peer: PeerAddress(m.host, m.port, m.role, m.name)
            for m in self.genesis.members
            if m.peer != self.peer
        }
        self.transport = InventedTransport(self, self.office, peers)
        misbehaviour = self.cheat.misbehaviour if self.cheat else ""
        node = self.node_type(
            machine, self.genesis, keys, machine.storage(), self.transport, misbehaviour
        )
        if self.cheat is not None:
            self.cheat.corrupt(node)
        self.node = node
        for listener in self.on_start:
            listener(self)
        return node


def _first(error: BaseException) -> str:
    """Name an exception and where it came from."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error!r} in {at.name}, line {at.lineno} of {at.filename.rsplit('/', 1)[-1]}"
