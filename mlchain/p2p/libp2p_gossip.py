"""GossipSub 1.1 of py-libp2p 0.8.1, without the parts that kill, leak, drop or slow a validator.

A message is named by its content, so equal data travels once, and a restarted publisher that counts
from the same number again is heard. Every message is signed by its author, who must be known.
Validators and subscribers are plain functions, called in the reading task: no queue between, no
reordering, and a peer that sends too fast is read more slowly.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import INetStream
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import MessageTooLarge
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.mcache import CacheEntry, MessageCache
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import PriorityQueue
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from mlchain import crypto
from mlchain.errors import CodecError
from mlchain.p2p.endpoint import Endpoint, check_gossip, label
from mlchain.p2p.libp2p_gate import public_key
from mlchain.p2p.libp2p_host import reset
from mlchain.p2p.transport import MAX_GOSSIP_BYTES

log = logging.getLogger("mlchain.p2p")

HEARTBEAT_S = 1
MAX_RPC_BYTES = MAX_GOSSIP_BYTES + (48 << 10)
"""One message with its envelope, below the library's own limit of 1 MiB for sending."""

MAX_QUEUED = 1024
MAX_QUEUED_BYTES = 16 << 20
"""What may wait for one peer; the library's 32 messages lose a burst of 200."""

MAX_WANTED = 64
MAX_WANTED_BYTES = 2 << 20
"""What one IWANT may make us send."""

MAX_SUBSCRIPTIONS = 64
"""Subscriptions in one RPC."""

REPLAY_PAUSE_MS = 1000
"""Recent messages are repeated for one subscriber at most this often."""

SIGNING_PREFIX = b"libp2p-pubsub:"


def message_id(message: rpc_pb2.Message) -> bytes:
    """Name a message by what it says."""
    return crypto.digest("mlchain/gossip", *(t.encode() for t in message.topicIDs), message.data)


def is_signed_by_author(message: rpc_pb2.Message, author: bytes) -> bool:
    """Tell whether `author` signed the message, as the gossipsub specification says."""
    signed = rpc_pb2.Message(
        data=message.data,
        topicIDs=message.topicIDs,
        from_id=message.from_id,
        seqno=message.seqno,
    )
    return crypto.is_signed(author, SIGNING_PREFIX + signed.SerializeToString(), message.signature)


class Gossip:
    """Gossip of one host."""

    def __init__(self, host: BasicHost, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._router = LeanGossipSub(endpoint)
        self._pubsub = SturdyPubsub(host, self._router, endpoint)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Take part inside the `async with`."""
        async with (
            background_trio_service(self._pubsub),
            background_trio_service(self._router),
        ):
            await self._pubsub.wait_until_ready()
            for topic in self._endpoint.topics:
                await self.join(topic)
            yield

    async def join(self, topic: str) -> None:
        """Tell the others that we listen to `topic`."""
        await self._pubsub.subscribe(topic)

    async def publish(self, topic: str, data: bytes) -> None:
        """Sign and send `data`, unless it has been seen.

        Raises:
            CodecError: larger than MAX_GOSSIP_BYTES.
        """
        check_gossip(data)
        await self._pubsub.publish(topic, data)


class SturdyPubsub(Pubsub):
    """The library's pubsub, with the path of incoming bytes rewritten.

    The library starts a task for each message and lets an exception there, or one from the protobuf
    parser, cancel the service and with it the process.
    """

    def __init__(self, host: BasicHost, router: GossipSub, endpoint: Endpoint) -> None:
        super().__init__(
            host,
            router,
            strict_signing=True,
            msg_id_constructor=message_id,
            max_inbound_rpc_size=MAX_RPC_BYTES,
        )
        self._endpoint = endpoint
        self._replayed_ms: dict[tuple[ID, str], int] = {}
        self.counter = time.time_ns()

    async def stream_handler(self, stream: INetStream) -> None:
        """Read what a peer gossips, no faster than it may, until its stream ends."""
        identity = stream.muxed_conn.peer_id
        peer = self._endpoint.book.get(public_key(identity) or b"")
        if peer is None:
            await reset(stream)
            return
        try:
            while self.manager.is_running:
                raw = await read_varint_prefixed_bytes_limited(stream, MAX_RPC_BYTES)
                if self._endpoint.book.get(peer.key) is not peer:
                    break
                rpc = _parse(raw)
                now_ms = self._endpoint.clock_ms()
                wait_ms = peer.receive_gossip(_weight(rpc), len(raw), now_ms)
                await self._take(identity, rpc)
                if wait_ms:
                    await trio.sleep(wait_ms / 1000)
        except StreamError as error:
            log.debug("gossip stream of %s ended: %r", label(peer), error)
            return  # a lost connection is told to the library by other means
        except (CodecError, DecodeError, ParseError, MessageTooLarge) as error:
            if self._endpoint.blame(peer, repr(error)):
                await self.host.disconnect(identity)
        except Exception as error:
            log.warning("gossip stream of %s failed: %r", label(peer), error)
        await reset(stream)
        self._handle_dead_peer(identity)

    async def _take(self, identity: ID, rpc: rpc_pb2.RPC) -> None:
        for message in rpc.publish:
            await self.push_msg(identity, message)
        if len(rpc.subscriptions) > MAX_SUBSCRIPTIONS:
            raise CodecError(f"gossip: {len(rpc.subscriptions)} subscriptions at once")
        for subscription in rpc.subscriptions:
            if subscription.topicid in self._endpoint.topics:
                self.handle_subscription(identity, subscription)
        if rpc.HasField("control"):
            rpc.ClearField("senderRecord")
            await self.router.handle_rpc(rpc, identity)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Check a message, deliver it and pass it on, once."""
        name = message_id(msg)
        if self.seen_messages.has(name) or len(msg.topicIDs) != 1:
            return
        topic, author = msg.topicIDs[0], public_key(ID(msg.from_id))
        if msg_forwarder != self.my_id:
            if author is None or self._endpoint.book.get(author) is None:
                return  # also what claims to be ours: we are not in our own book
            if not is_signed_by_author(msg, author):
                raise CodecError("gossip: not signed by its author")
            if not self._endpoint.accepts_gossip(topic, msg.data):
                return
            self.seen_messages.add(name)
            self._endpoint.deliver_gossip(author, topic, msg.data)
        self.seen_messages.add(name)
        await self.router.publish(msg_forwarder, msg)

    def get_hello_packet(self) -> rpc_pb2.RPC:
        """Return our subscriptions, without the signed address record nobody needs here."""
        subscriptions = [rpc_pb2.RPC.SubOpts(subscribe=True, topicid=t) for t in self.topic_ids]
        return rpc_pb2.RPC(subscriptions=subscriptions)

    async def _replay_recent_messages(self, peer_id: ID, topic: str) -> None:
        """Give a new subscriber what it may have missed, but not as often as it subscribes."""
        if peer_id not in self.peers:
            return  # called again once we can write
        now_ms = self._endpoint.clock_ms()
        last_ms = self._replayed_ms.get((peer_id, topic))
        if last_ms is None or now_ms - last_ms >= REPLAY_PAUSE_MS:
            self._replayed_ms[peer_id, topic] = now_ms
            await super()._replay_recent_messages(peer_id, topic)

    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if queue is not None and not isinstance(queue._queue, BoundedQueue):
            queue._queue = BoundedQueue(queue._queue)


class BoundedQueue(PriorityQueue):
    """A queue of messages to one peer, bounded in bytes too."""

    def __init__(self, begun: PriorityQueue) -> None:
        super().__init__(MAX_QUEUED)
        self._bytes = 0
        while (rpc := begun.pop()) is not None:
            self.push(rpc)

    def push(self, rpc: rpc_pb2.RPC, priority: bool = False) -> bool:
        """Append; False if there is no room."""
        size = rpc.ByteSize()
        if self._bytes + size > MAX_QUEUED_BYTES or not super().push(rpc, priority):
            return False
        self._bytes += size
        return True

    def pop(self) -> rpc_pb2.RPC | None:
        """Remove and return the next one, None if there is none."""
        rpc = super().pop()
        if rpc is not None:
            self._bytes -= rpc.ByteSize()
        return rpc


class ContentCache(MessageCache):
    """The library's cache of recent messages, under the names they have here."""

    def put(self, msg: rpc_pb2.Message) -> None:
        """Keep `msg` for some heartbeats."""
        name = message_id(msg)
        if name not in self.msgs:
            self.msgs[name] = msg
            self.history[0].append(CacheEntry(name, msg.topicIDs))


class LeanGossipSub(GossipSub):
    """The library's router, without what it keeps for ever or sends for nothing."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(
            protocols=[PROTOCOL_ID_V11],  # 1.2 sends an IDONTWANT to everybody for every message
            degree=8,
            degree_low=6,
            degree_high=12,
            heartbeat_interval=HEARTBEAT_S,  # the default of 120 s keeps messages that much longer
            spam_protection_enabled=False,  # drops all beyond 10 messages a second, our own too
            eclipse_protection_enabled=False,
            adaptive_gossip_enabled=False,  # slows the heartbeat to 30 s in a small network
        )
        self._endpoint = endpoint
        self.mcache = ContentCache(window_size=3, history_size=5)

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Send a message to the mesh. Full queues lose it, and the peer's account tells."""
        assert self.pubsub is not None, "attached before it runs"
        self.mcache.put(pubsub_msg)
        rpc = rpc_pb2.RPC(publish=[pubsub_msg])
        for identity in self._get_peers_to_send(
            pubsub_msg.topicIDs, msg_forwarder=msg_forwarder, origin=ID(pubsub_msg.from_id)
        ):
            queue = self.pubsub.peer_queues.get(identity)
            peer = self._endpoint.book.get(public_key(identity) or b"")
            if queue is not None and not queue.push(rpc) and peer is not None:
                peer.drop(1, len(pubsub_msg.data))

    async def emit_control_message(self, control_msg: rpc_pb2.ControlMessage, to_peer: ID) -> None:
        """Send a control message, without a signed address record."""
        rpc = rpc_pb2.RPC()
        rpc.control.CopyFrom(control_msg)
        self.send_rpc(to_peer, rpc, priority=True)

    async def handle_iwant(self, iwant_msg: rpc_pb2.ControlIWant, sender_peer_id: ID) -> None:
        """Answer each wanted message once and not too many: the library repeats them as asked."""
        if self.pubsub is None or not self._check_iwant_rate_limit(sender_peer_id):
            return
        total = 0
        for name in dict.fromkeys(iwant_msg.messageIDs[:MAX_WANTED]):
            message = self.mcache.get(name)
            queue = self.pubsub.peer_queues.get(sender_peer_id)
            if message is None or queue is None:
                continue
            total += len(message.data)
            if total > MAX_WANTED_BYTES:
                return
            queue.push(rpc_pb2.RPC(publish=[message]))

    async def handle_ihave(self, ihave_msg: rpc_pb2.ControlIHave, sender_peer_id: ID) -> None:
        """Ask for what we lack in topics we take part in."""
        if ihave_msg.topicID in self.mesh:
            await super().handle_ihave(ihave_msg, sender_peer_id)

    async def handle_graft(self, graft_msg: rpc_pb2.ControlGraft, sender_peer_id: ID) -> None:
        """Take a peer into the mesh of a topic we take part in; others leave no trace."""
        if graft_msg.topicID in self.mesh:
            await super().handle_graft(graft_msg, sender_peer_id)

    async def handle_prune(self, prune_msg: rpc_pb2.ControlPrune, sender_peer_id: ID) -> None:
        """Leave a peer's mesh; do not dial the peers it offers instead."""
        if prune_msg.topicID in self.mesh:
            prune_msg.ClearField("peers")
            await super().handle_prune(prune_msg, sender_peer_id)

    async def handle_idontwant(
        self, idontwant_msg: rpc_pb2.ControlIDontWant, sender_peer_id: ID
    ) -> None:
        """Not part of 1.1: ignored."""

    async def heartbeat(self) -> None:
        """Keep the mesh in shape; an error in one round must not end the service."""
        while True:
            try:
                await super().heartbeat()
            except Exception:
                log.exception("gossip heartbeat failed")
            await trio.sleep(HEARTBEAT_S)


def _weight(rpc: rpc_pb2.RPC) -> int:
    """Count what an RPC makes us look at, as messages."""
    c = rpc.control
    control = len(c.ihave) + len(c.iwant) + len(c.graft) + len(c.prune) + len(c.idontwant)
    return max(1, len(rpc.publish) + len(rpc.subscriptions) + control)


def _parse(raw: bytes) -> rpc_pb2.RPC:
    rpc = rpc_pb2.RPC()
    rpc.ParseFromString(raw)
    return rpc
