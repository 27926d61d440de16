"""A known peer that breaks the rules costs us little, and its account shows it."""

import contextlib
import struct
from types import SimpleNamespace

import pytest
import trio
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.utils import encode_varint_prefixed
from p2p_factory import (
    addresses,
    dial,
    is_reset,
    key,
    libp2p,
    play,
    running,
    seed,
    stock_host,
    until,
)

from mlchain.p2p import endpoint as endpoint_module
from mlchain.p2p import framing, peers, transport
from mlchain.p2p import libp2p_gate as gate_module
from mlchain.p2p import libp2p_gossip as gossip_module
from mlchain.p2p import libp2p_links as links_module
from mlchain.p2p import libp2p_mux as mux_module
from mlchain.p2p.endpoint import Endpoint
from mlchain.p2p.transport import CHANNELS, Channel

ASK = "/mlchain/request/1.0.0"
MESHSUB = "/meshsub/1.1.0"


def attack(act, **settings):
    """Let peer 2 (or `number`) `act` on a transport that serves `ask`."""
    number = settings.pop("number", 2)

    async def scenario():
        a = libp2p(1, addresses(5), **settings)
        a.got = []
        a.on_frame = lambda *frame: a.got.append(frame)

        async def ask(peer, payload):
            return payload

        a.serve("ask", ask)
        a.subscribe("t", lambda *gossip: a.got.append(gossip))
        async with a.run(), stock_host(number) as attacker:
            await dial(attacker, 1, a.port)
            await act(a, attacker, a.book.get(key(number)))

    play(scenario)


async def open_stream(attacker, protocol):
    return await attacker.new_stream(gate_module.peer_id(key(1)), [protocol])


BAD_HEADERS = [
    framing.FRAME_HEADER.pack(CHANNELS[Channel.STATUS].max_bytes + 1, Channel.STATUS),
    framing.FRAME_HEADER.pack(2**32 - 1, Channel.CONSENSUS),
    framing.FRAME_HEADER.pack(1, 77),
]


def test_a_frame_against_the_rules_resets_the_link_and_is_counted():
    async def act(a, attacker, account):
        fine = framing.encode_frame(Channel.STATUS, b"fine", "validator")
        for count, header in enumerate(BAD_HEADERS, 1):
            stream = await open_stream(attacker, links_module.LINK)
            await stream.write(fine + header)
            assert await is_reset(stream)
            assert a.got == [(key(2), Channel.STATUS, b"fine")] * count
            assert account.violations == count

    attack(act)


def test_an_observer_that_votes_is_counted_and_not_heard():
    async def act(a, attacker, account):
        stream = await open_stream(attacker, links_module.LINK)
        await stream.write(framing.encode_frame(Channel.CONSENSUS, b"vote", "validator"))
        assert await is_reset(stream)
        assert a.got == []
        assert account.violations == 1

    attack(act, number=5)


def test_an_oversized_question_is_refused_on_its_header():
    async def act(a, attacker, account):
        stream = await open_stream(attacker, ASK)
        await stream.write(framing.QUESTION_HEADER.pack(3, transport.MAX_REQUEST_BYTES + 1))
        assert await is_reset(stream)
        assert account.violations == 1

    attack(act)


def test_a_question_that_never_comes_is_given_up(monkeypatch):
    monkeypatch.setattr("mlchain.p2p.libp2p.REQUEST_READ_TIMEOUT_S", 0.1)

    async def act(a, attacker, account):
        stream = await open_stream(attacker, ASK)
        await stream.write(framing.encode_question("ask", b"1234567890")[:-1])
        assert await is_reset(stream)

    attack(act)


def test_questions_beyond_the_limit_are_rejected_not_queued():
    async def act(a, attacker, account):
        release = trio.Event()

        async def slow(peer, payload):
            await release.wait()
            return b"done"

        a.serve("slow", slow)
        streams = []
        for _ in range(transport.MAX_REQUESTS_IN_FLIGHT + 3):
            stream = await open_stream(attacker, ASK)
            await stream.write(framing.encode_question("slow", b""))
            streams.append(stream)
        await until(lambda: account.serving == transport.MAX_REQUESTS_IN_FLIGHT)
        refused = await streams[-1].read(5)
        assert framing.REPLY_HEADER.unpack(refused)[0] == framing.STATUS_ERROR
        release.set()
        answer = await streams[0].read(9)
        assert framing.REPLY_HEADER.unpack(answer[:5])[0] == framing.STATUS_OK

    attack(act)


def test_streams_beyond_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(peers, "MAX_STREAMS", 4)

    async def act(a, attacker, account):
        network = attacker.get_network()
        for _ in range(30):
            await network.new_stream(gate_module.peer_id(key(1)))
        await trio.sleep(0.2)
        assert account.streams <= 4
        assert len(a._libp2p.get_network().get_connections()[0].get_streams()) <= 4 + 3  # and ours

    attack(act)


@pytest.mark.parametrize("is_limited", [True, False])
def test_a_flood_is_read_no_faster_than_allowed(monkeypatch, is_limited):
    rate = 200_000
    monkeypatch.setattr(peers, "BYTES_PER_S", rate if is_limited else 10**9)

    async def act(a, attacker, account):
        stream = await open_stream(attacker, links_module.LINK)
        frame = framing.encode_frame(Channel.STATUS, bytes(20_000), "validator")
        started_ms = a.clock_ms()

        async def flood():
            for _ in range(100):
                await stream.write(frame)

        with trio.move_on_after(1 if is_limited else 20):
            await flood()
            await until(lambda: account.frames_received == 100)
        elapsed_ms = a.clock_ms() - started_ms
        if is_limited:
            most = rate + rate * elapsed_ms // 1000 + mux_module.READ_BYTES
            assert account.bytes_received <= most < 100 * len(frame)
            assert account.violations == 0, "fast is not wrong"
        else:
            assert account.frames_received == 100, "the flood would fit through"

    attack(act)


def signed_message(data):
    """A gossip message of peer 2."""
    message = rpc_pb2.Message(
        data=data,
        topicIDs=["t"],
        from_id=gate_module.peer_id(key(2)).to_bytes(),
        seqno=bytes(8),
    )
    pair = gate_module.key_pair(seed(2))
    message.signature = pair.private_key.sign(b"libp2p-pubsub:" + message.SerializeToString())
    return message


def wire_of(message):
    return encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString())


@pytest.mark.parametrize("is_limited", [True, False])
def test_gossip_is_read_no_faster_than_allowed(monkeypatch, is_limited):
    rate, count = 20, 300
    monkeypatch.setattr(peers, "GOSSIP_MESSAGES_PER_S", rate if is_limited else 10**6)

    async def act(a, attacker, account):
        stream = await open_stream(attacker, MESHSUB)
        started_ms = a.clock_ms()
        with trio.move_on_after(1 if is_limited else 20):
            for n in range(count):
                await stream.write(wire_of(signed_message(b"%d" % n)))
            await until(lambda: len(a.got) == count)
        elapsed_ms = a.clock_ms() - started_ms
        if is_limited:
            assert len(a.got) <= 2 * rate + rate * elapsed_ms // 1000 + 1 < count
            assert account.violations == 0, "fast is not wrong"
        else:
            assert len(a.got) == count, "the flood would fit through"

    attack(act)


@pytest.mark.parametrize("is_bounded", [True, False])
def test_a_connection_that_ignores_windows_is_closed_before_memory_fills(monkeypatch, is_bounded):
    limit = 1 << 20
    monkeypatch.setattr(mux_module, "MAX_UNREAD_BYTES", limit)
    if not is_bounded:
        monkeypatch.setattr(mux_module.BoundedYamux, "_room", lambda muxed: 1 << 30)

    async def act(a, attacker, account):
        async def never_read(stream):
            await trio.sleep_forever()

        a._libp2p.set_stream_handler("/unread/1", never_read)
        stream = await open_stream(attacker, "/unread/1")
        (ours,) = a._libp2p.get_network().get_connections()
        wire = stream.muxed_conn.secured_conn
        number = stream.muxed_stream.stream_id
        header = struct.pack("!BBHII", 0, 0, 0, number, 60_000)
        held = 0
        for _ in range(60):
            with contextlib.suppress(Exception):  # closed, if all is well
                await wire.write(header + bytes(60_000))
            held = max(held, sum(map(len, ours.muxed_conn.stream_buffers.values())))
        await trio.sleep(0.2)
        held = max(held, sum(map(len, ours.muxed_conn.stream_buffers.values())))
        assert (held <= limit) is is_bounded
        assert ours.muxed_conn.is_closed is is_bounded

    attack(act)


def test_gossip_that_its_author_did_not_sign_is_refused_and_counted():
    async def act(a, attacker, account):
        forged = signed_message(b"from 3, says 2")
        forged.from_id = gate_module.peer_id(key(3)).to_bytes()
        stream = await open_stream(attacker, MESHSUB)
        await stream.write(wire_of(forged))
        assert await is_reset(stream)
        assert (a.got, account.violations) == ([], 1)

    attack(act)


def test_a_forged_copy_does_not_keep_the_true_message_out():
    async def act(a, attacker, account):
        forged = signed_message(b"truth")
        forged.signature = bytes(64)
        for each in (forged, signed_message(b"truth")):
            stream = await open_stream(attacker, MESHSUB)
            await stream.write(wire_of(each))
        await until(lambda: a.got)
        assert a.got == [(key(2), b"truth")]

    attack(act)


class Router:
    """A router that has published one message of 100 KB, and its queue to a peer."""

    def __init__(self, kind):
        self.peer = gate_module.peer_id(key(2))
        self.queue = RpcQueue(max_size=10**6, max_message_size=10**9)
        endpoint = SimpleNamespace(topics={"t": None})
        if kind is GossipSub:
            self.router = GossipSub(["/meshsub/1.1.0"], 6, 4, 12)
        else:
            self.router = kind(endpoint)
        self.router.pubsub = SimpleNamespace(peer_queues={self.peer: self.queue}, host=None)
        message = rpc_pb2.Message(data=bytes(100_000), topicIDs=["t"], from_id=b"f", seqno=b"s")
        self.router.mcache.put(message)
        (self.name,) = self.router.mcache.msgs

    async def sent(self, *names) -> int:
        """Bytes that one IWANT for `names` makes the router send."""
        await self.router.handle_iwant(rpc_pb2.ControlIWant(messageIDs=names), self.peer)
        total = 0
        while (rpc := self.queue._queue.pop()) is not None:
            total += rpc.ByteSize()
        return total


@pytest.mark.parametrize(
    ("kind", "is_amplified"), [(gossip_module.LeanGossipSub, False), (GossipSub, True)]
)
def test_a_message_wanted_many_times_is_sent_once(kind, is_amplified):
    async def scenario():
        router = Router(kind)
        assert 100_000 < await router.sent(router.name) < 101_000
        assert (await router.sent(*[router.name] * 200) > 10**7) is is_amplified

    play(scenario)


def test_control_messages_about_foreign_topics_leave_no_trace():
    async def scenario():
        router = Router(gossip_module.LeanGossipSub).router
        sender = gate_module.peer_id(key(2))
        for n in range(1000):
            topic = f"nonsense {n}"
            await router.handle_prune(rpc_pb2.ControlPrune(topicID=topic), sender)
            await router.handle_graft(rpc_pb2.ControlGraft(topicID=topic), sender)
            await router.handle_ihave(rpc_pb2.ControlIHave(topicID=topic), sender)
        assert not router.graft_flood_tracking[sender]
        assert not router.back_off
        assert not router.ihave_message_limits[sender]

    play(scenario)


def test_a_burst_of_gossip_is_delivered_whole():
    async def scenario():
        book = addresses(2)
        a, b = libp2p(1, book), libp2p(2, book)
        got = []
        a.subscribe("t", lambda author, data: None)
        b.subscribe("t", lambda author, data: got.append(data))
        async with running(a, b):
            await a.publish("t", b"first")
            await until(lambda: got)
            burst = [b"%d" % n for n in range(500)]
            for data in burst:
                await a.publish("t", data)
            await until(lambda: len(got) > 500)
        assert got[1:] == burst, "and in order, over one connection"

    play(scenario)


def test_a_publisher_that_counts_from_the_same_number_again_is_heard(monkeypatch):
    monkeypatch.setattr(gossip_module.time, "time_ns", lambda: 1000)

    async def scenario():
        book = addresses(2)
        a = libp2p(1, book)
        got = []
        a.subscribe("t", lambda author, data: got.append(data))
        async with a.run():
            for data in (b"before", b"after"):
                b = libp2p(2, book)
                b.subscribe("t", lambda author, data: None)
                async with running(b):
                    await until(lambda: a.peers()[0].connected)
                    await b.publish("t", data)
                    await until(lambda d=data: d in got)
        assert got == [b"before", b"after"]

    play(scenario)


def test_a_peers_queue_of_gossip_is_bounded_in_bytes():
    begun = RpcQueue()._queue
    begun.push(rpc_pb2.RPC(publish=[rpc_pb2.Message(data=b"hello")]))
    queue = gossip_module.BoundedQueue(begun)
    big = rpc_pb2.RPC(publish=[rpc_pb2.Message(data=bytes(1 << 20))])
    taken = sum(queue.push(big) for _ in range(100))
    assert taken == gossip_module.MAX_QUEUED_BYTES // big.ByteSize()
    assert queue.pop().publish[0].data == b"hello"
    while queue.pop() is not None:
        pass
    assert queue.push(big), "room again"


@pytest.mark.parametrize("is_counted", [True, False])
def test_answers_that_are_not_read_are_counted_and_the_next_question_is_refused(
    monkeypatch, is_counted
):
    most, size = 2, 20 << 20  # more than the windows that the library opens by itself
    monkeypatch.setattr(endpoint_module, "MAX_REQUESTS_IN_FLIGHT", most)
    if not is_counted:  # the control: as if each had left when its handler was done
        monkeypatch.setattr(Endpoint, "serving", lambda *args: contextlib.nullcontext())

    async def act(a, attacker, account):
        handled = []

        async def large(peer, payload):
            handled.append(payload)
            return bytes(size)

        a.serve("large", large)
        for _ in range(most):
            stream = await open_stream(attacker, ASK)
            await stream.write(framing.encode_question("large", b""))
        await until(lambda: len(handled) == most)
        await until(lambda: account.serving == (most if is_counted else 0))
        last = await open_stream(attacker, ASK)
        await last.write(framing.encode_question("large", b""))
        status, _ = framing.REPLY_HEADER.unpack(await last.read(5))
        assert (status == framing.STATUS_ERROR) is is_counted
        assert len(handled) == most + (not is_counted)

    attack(act)


def test_answers_that_are_not_read_are_bounded_in_bytes(monkeypatch):
    size = 4 << 20
    monkeypatch.setattr(endpoint_module, "MAX_UNSENT_BYTES", 2 * size)

    async def act(a, attacker, account):
        async def large(peer, payload):
            return bytes(size)

        a.serve("large", large)
        streams = []
        for count in (1, 2, 2):
            stream = await open_stream(attacker, ASK)
            await stream.write(framing.encode_question("large", b""))
            await until(lambda n=count: account.unsent_bytes == n * size)
            streams.append(stream)
        heads = [framing.REPLY_HEADER.unpack(await stream.read(5)) for stream in streams]
        assert [status for status, _ in heads] == [0, 0, 1], "the third would be too much"
        for stream in streams[:2]:
            await stream.reset()
        await until(lambda: account.unsent_bytes == account.serving == 0)

    attack(act)
