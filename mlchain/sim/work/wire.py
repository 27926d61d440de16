"""The invented network between whole nodes: frames, requests and gossip through one post office."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from mlchain.errors import MlchainError, Timeout, Unreachable
from mlchain.p2p.endpoint import Endpoint, check_gossip
from mlchain.p2p.framing import (
    REPLY_HEADER,
    STATUS_OK,
    check_reply_header,
    decode_error,
    encode_error,
    encode_frame,
    encode_question,
)
from mlchain.p2p.transport import Channel, PeerAddress, PublicKey
from mlchain.sim.network import Network
from mlchain.sim.work.machine import PowerCut

if TYPE_CHECKING:
    from mlchain.sim.work.place import Place

RESEND_S = 0.2
"""A link carries again what was lost: questions are late then, not gone."""
PROPOSAL_TAG = b"\x01"


def now_ms() -> int:
    """The invented time in milliseconds."""
    return int(trio.current_time() * 1000)


class PostOffice:
    """Carries everything, as the weather allows."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.places: dict[PublicKey, list[Place]] = {}
        self.delivered = 0
        self.tampers: list[Callable[[Place, Place, int, bytes], list[bytes]]] = []
        """What an adversary of the network makes of a frame (sender, receiver, channel, frame)."""
        self.on_speech: Callable[[Place, bytes], None] | None = None
        """Told of every frame of the agreement, once, for the picture."""
        self.on_mute: Callable[[int, int, int], None] = lambda place, at, until: None
        """Told whose words are swallowed, from when, until when."""
        self._last_frame = b""
        self._muted: dict[int, int] = {}
        self._queue: list[tuple[float, int, Place, int, Callable[[], None]]] = []
        self._count = 0
        self._wake = trio.Event()

    def mute(self, place: Place | None, for_ms: int) -> None:
        """Let nothing out of a place for a while."""
        assert place is not None
        self._muted[place.index] = until = now_ms() + for_ms
        self.on_mute(place.index, now_ms(), until)

    def all(self) -> list[Place]:
        """Return every place."""
        return [place for places in self.places.values() for place in places]

    async def run(self) -> None:
        """Deliver what is due; for ever."""
        while True:
            now = trio.current_time()
            while self._queue and self._queue[0][0] <= now:
                _, _, receiver, life, deliver = heapq.heappop(self._queue)
                if receiver.life == life and receiver.node is not None:
                    self.delivered += 1
                    receiver.do(deliver)
            self._wake = trio.Event()
            if self._queue:
                with trio.move_on_at(self._queue[0][0]):
                    await self._wake.wait()
            else:
                await self._wake.wait()

    def post(self, sender: Place, peer: PublicKey, channel: int, frame: bytes) -> None:
        """Send a frame to everybody who goes by the name of `peer`."""
        if now_ms() < self._muted.get(sender.index, 0):
            return
        if self.on_speech is not None and channel == Channel.CONSENSUS:
            if frame is not self._last_frame:
                self.on_speech(sender, frame)
            self._last_frame = frame
        for receiver in self.places.get(peer, ()):
            if receiver is not sender:
                for each in sender.outgoing(channel, frame, receiver):
                    self._carry(sender, receiver, channel, each)

    def _carry(self, sender: Place, receiver: Place, channel: int, frame: bytes) -> None:
        frames = [frame]
        for tamper in self.tampers:
            frames = [f for each in frames for f in tamper(sender, receiver, channel, each)]
        is_block = channel == Channel.CONSENSUS and frame[:1] == PROPOSAL_TAG
        for each in frames:
            delays = self.network.delays(sender.index, receiver.index, now_ms(), is_block)
            for delay in delays:
                self.later(delay, receiver, self._handing(sender, receiver, channel, each))
            if not delays and channel != Channel.CONSENSUS:
                self.relink(sender, receiver)

    def relink(self, one: Place, other: Place) -> None:
        """A link broke, for a frame was lost or a node was away; it comes up when it can."""

        def link_up() -> None:
            transport = one.transport
            if transport is None or other.node is None:
                return
            if self.network.is_connected(one.index, other.index, now_ms()):
                transport.on_link(other.peer)
            else:
                self.relink(one, other)

        self.later(1_000, one, link_up)

    @staticmethod
    def _handing(sender: Place, receiver: Place, channel: int, frame: bytes) -> Callable[[], None]:
        def hand() -> None:
            transport = receiver.transport
            assert transport is not None
            transport.hand(sender.peer, channel, frame)

        return hand

    def gossip(self, sender: Place, topic: str, data: bytes) -> None:
        """Tell everybody else."""
        for receiver in self.all():
            if receiver is sender or receiver.peer == sender.peer:
                continue

            def hand(receiver: Place = receiver) -> None:
                transport = receiver.transport
                assert transport is not None
                if transport.accepts_gossip(topic, data):
                    transport.deliver_gossip(sender.peer, topic, data)

            for delay in self.network.delays(sender.index, receiver.index, now_ms(), False):
                self.later(delay, receiver, hand)

    def later(self, delay_ms: int, receiver: Place, deliver: Callable[[], None]) -> None:
        """Do something at a place, unless it crashes before."""
        self._count += 1
        at = trio.current_time() + delay_ms / 1000
        heapq.heappush(self._queue, (at, self._count, receiver, receiver.life, deliver))
        self._wake.set()

    async def pass_by(self, sender: Place, receiver: Place) -> None:
        """Wait as long as something takes from one place to the other."""
        while True:
            delays = self.network.delays(sender.index, receiver.index, now_ms(), False)
            if delays and now_ms() >= self._muted.get(sender.index, 0):
                await trio.sleep(delays[0] / 1000)
                return
            await trio.sleep(RESEND_S)


class InventedTransport(Endpoint):
    """`p2p.transport.Transport` of one life of a node."""

    def __init__(
        self, place: Place, office: PostOffice, peers: Mapping[PublicKey, PeerAddress]
    ) -> None:
        super().__init__(place.peer, peers, place.role, now_ms)
        self.place = place
        self.office = office
        self._life = place.life
        for peer in self.book.all():
            peer.is_linked = True

    @property
    def is_up(self) -> bool:
        """Whether this life of the node goes on."""
        return self.place.transport is self and self.place.life == self._life

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Take part inside the `async with`."""
        for other in self.office.all():
            if other.peer != self.public_key:
                self.office.relink(self.place, other)
                self.office.relink(other, self.place)
        yield

    def send(self, peer: PublicKey, channel: int, frame: bytes) -> bool:
        """Send a frame."""
        encode_frame(channel, frame, self.role)  # what a link would refuse is a bug
        if not self.is_up:
            return False
        self.office.post(self.place, peer, channel, frame)
        return True

    def add_peer(self, peer: PublicKey, address: PeerAddress) -> None:
        """Know `peer` from now on."""
        self.book.add(peer, address).is_linked = True

    def remove_peer(self, peer: PublicKey) -> None:
        """Forget `peer`."""
        self.book.remove(peer)

    def broadcast(self, channel: int, frame: bytes) -> int:
        """Send a frame to everybody."""
        return sum(self.send(peer.key, channel, frame) for peer in self.book.all())

    def hand(self, peer: PublicKey, channel: int, frame: bytes) -> None:
        """Take a frame that has arrived."""
        entry = self.book.get(peer)
        if entry is not None:
            entry.receive(1, len(frame), now_ms())
            self.on_frame(peer, channel, frame)

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip `data`."""
        check_gossip(data)
        await trio.lowlevel.checkpoint()
        if self.is_up:
            self.office.gossip(self.place, topic, data)

    async def request(
        self, peer: PublicKey, protocol: str, payload: bytes, max_bytes: int, timeout_s: float
    ) -> bytes:
        """Ask `peer` and return its answer."""
        encode_question(protocol, payload)
        there = next((p for p in self.office.places.get(peer, ()) if p.node is not None), None)
        if there is None:
            await trio.sleep(0.01)
            raise Unreachable(f"{peer.hex()[:12]} is not connected")
        try:
            with trio.fail_after(timeout_s):
                await self.office.pass_by(self.place, there)
                body = await self._ask(there, protocol, payload)
                await self.office.pass_by(there, self.place)
        except trio.TooSlowError as error:
            raise Timeout(f"{there.name}: no answer in {timeout_s} s") from error
        check_reply_header(REPLY_HEADER.pack(STATUS_OK, len(body)), max_bytes)
        return body

    async def _ask(self, there: Place, protocol: str, payload: bytes) -> bytes:
        transport, life = there.transport, there.life
        asker = transport.book.get(self.public_key) if transport else None
        if transport is None or asker is None:
            raise Unreachable(f"{there.name} is not connected")
        result: list[Any] = []
        with there.speaking():
            try:
                with transport.serving(asker):
                    result.append(await transport.answer(asker, protocol, payload))
            except (MlchainError, PowerCut) as error:
                result.append(error)
        if there.life != life or isinstance(result[0], PowerCut):
            there.lose_power(life)
            raise Unreachable(f"{there.name} went away")
        if isinstance(result[0], MlchainError):
            raise decode_error(encode_error(result[0]))  # as much of it as travels
        answer: bytes = result[0]
        return answer
