"""What `transport.Transport` promises, kept by every transport there is."""

import pytest
import trio
from p2p_factory import (
    addresses,
    collect,
    collect_gossip,
    is_linked,
    key,
    libp2p,
    make,
    play,
    running,
    until,
)

from mlchain.errors import (
    CodecError,
    InvalidTransaction,
    NotFound,
    Rejected,
    StoreCorrupted,
    Timeout,
    Unreachable,
)
from mlchain.p2p import framing
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import (
    CHANNELS,
    MAX_REQUEST_BYTES,
    MAX_REQUESTS_IN_FLIGHT,
    Channel,
    PeerRefused,
    Role,
)

pytestmark = pytest.mark.parametrize("kind", ["memory", "libp2p"])


def test_frames_of_a_link_arrive_in_order_and_once(kind):
    async def scenario():
        a, b = make(kind, 2)
        got = collect(b)
        sent = [(Channel.STATUS, b"%d " % i + bytes(i * 37 % 3000)) for i in range(2000)]
        async with running(a, b):
            for channel, frame in sent:
                while not a.send(b.public_key, channel, frame):
                    await trio.sleep(0.001)
            await until(lambda: len(got) >= len(sent))
            await trio.sleep(0.05)
        assert got == [(a.public_key, channel, frame) for channel, frame in sent]

    play(scenario)


def test_the_largest_frame_of_each_channel_passes(kind):
    async def scenario():
        a, b = make(kind, 2)
        got = collect(b)
        async with running(a, b):
            for channel, rule in CHANNELS.items():
                assert a.send(b.public_key, channel, bytes([channel]) * rule.max_bytes)
                with pytest.raises(CodecError):
                    a.send(b.public_key, channel, bytes(rule.max_bytes + 1))
            await until(lambda: len(got) == len(CHANNELS))
        assert {c: len(f) for _, c, f in got} == {c: r.max_bytes for c, r in CHANNELS.items()}

    play(scenario)


def test_a_broadcast_reaches_every_peer_but_ourselves(kind):
    async def scenario():
        transports = make(kind, 4)
        boxes = [collect(t) for t in transports]
        async with running(*transports):
            assert transports[0].broadcast(Channel.CONSENSUS, b"vote") == 3
            await until(lambda: all(boxes[1:]))
            await trio.sleep(0.05)
        heard = [(transports[0].public_key, Channel.CONSENSUS, b"vote")]
        assert boxes == [[], heard, heard, heard]

    play(scenario)


def test_a_full_queue_refuses_and_the_account_tells(kind):
    async def scenario():
        a, b = make(kind, 2)
        async with running(a, b):
            big = bytes(CHANNELS[Channel.CONSENSUS].max_bytes)
            taken = [a.send(b.public_key, Channel.CONSENSUS, big) for _ in range(8)]
            fit = framing.MAX_QUEUE_BYTES // (len(big) + framing.FRAME_HEADER.size)
            assert taken == [True] * fit + [False] * (8 - fit)
            (status,) = a.peers()
            assert status.frames_dropped == 8 - fit
            assert status.bytes_dropped > (8 - fit) * len(big)

    play(scenario)


def test_a_frame_to_a_peer_that_is_away_is_refused_not_kept(kind):
    async def scenario():
        a, b = make(kind, 2)
        got = collect(b)
        async with a.run():
            assert not a.send(b.public_key, Channel.STATUS, b"stale")
            async with running(b):
                await until(lambda: is_linked(a, b.public_key))
                assert a.send(b.public_key, Channel.STATUS, b"fresh")
                await until(lambda: got)
                await trio.sleep(0.05)
        assert got == [(a.public_key, Channel.STATUS, b"fresh")]

    play(scenario)


def test_a_link_that_comes_back_is_announced_again(kind):
    async def scenario():
        a, b = make(kind, 2)
        up = []
        a.on_link = up.append
        async with a.run():
            for times in (1, 2):
                async with b.run():
                    await until(lambda n=times: len(up) == n, "link announced")
                    assert is_linked(a, b.public_key)
                await until(lambda: not is_linked(a, b.public_key), "link down")
        assert up == [b.public_key] * 2

    play(scenario)


def test_a_request_returns_the_answer_of_the_peer(kind):
    async def scenario():
        a, b = make(kind, 2)

        async def double(peer, payload):
            assert peer == a.public_key
            return payload + payload

        b.serve("double", double)
        async with running(a, b):
            for payload in (b"", b"x", bytes(MAX_REQUEST_BYTES)):
                answer = await a.request(b.public_key, "double", payload, 3 << 20, 10)
                assert answer == payload + payload
        with pytest.raises(Unreachable):
            await a.request(b.public_key, "double", b"", 100, 1)

    play(scenario)


def test_many_requests_at_once_get_their_own_answers(kind):
    async def scenario():
        a, b = make(kind, 2)
        answers = {}

        async def echo(peer, payload):
            await trio.sleep(0.001)
            return payload

        async def ask(n):
            answers[n] = await a.request(b.public_key, "echo", b"%d" % n, 100, 15)

        b.serve("echo", echo)
        async with running(a, b), trio.open_nursery() as nursery:
            for n in range(5 * MAX_REQUESTS_IN_FLIGHT):
                nursery.start_soon(ask, n)
        assert answers == {n: b"%d" % n for n in range(5 * MAX_REQUESTS_IN_FLIGHT)}

    play(scenario)


SEEN = {
    NotFound("no block 7"): NotFound,
    InvalidTransaction("nonce"): InvalidTransaction,
    Rejected("full"): Rejected,
    StoreCorrupted("bad block"): PeerRefused,
    ZeroDivisionError(): PeerRefused,
}
"""What a handler raises: what its asker sees."""


def test_not_found_differs_from_broken(kind):
    async def scenario():
        a, b = make(kind, 2)
        errors = list(SEEN)

        async def fail(peer, payload):
            raise errors[payload[0]]

        b.serve("fail", fail)
        async with running(a, b):
            for which, raised in enumerate(errors):
                with pytest.raises(SEEN[raised]) as caught:
                    await a.request(b.public_key, "fail", bytes([which]), 100, 10)
                assert type(caught.value) is SEEN[raised]

    play(scenario)


def test_a_request_ends_in_time_without_an_answer(kind):
    async def scenario():
        a, b = make(kind, 2)

        async def never(peer, payload):
            await trio.sleep_forever()

        b.serve("never", never)
        async with running(a, b):
            with pytest.raises(Timeout):
                await a.request(b.public_key, "never", b"", 100, 0.2)

    play(scenario)


def test_oversized_questions_and_answers_are_refused(kind):
    async def scenario():
        a, b = make(kind, 2)

        async def blob(peer, payload):
            return bytes(5000)

        b.serve("blob", blob)
        async with running(a, b):
            with pytest.raises(CodecError, match="at most"):
                await a.request(b.public_key, "blob", bytes(MAX_REQUEST_BYTES + 1), 100, 10)
            with pytest.raises(CodecError, match="at most 4999"):
                await a.request(b.public_key, "blob", b"", 4999, 10)
            assert len(await a.request(b.public_key, "blob", b"", 5000, 10)) == 5000

    play(scenario)


def test_a_protocol_is_served_to_its_roles_only(kind):
    async def scenario():
        transports = make(kind, 5)
        validator, worker, observer = transports[1], transports[3], transports[4]

        async def secret(peer, payload):
            return b"secret"

        transports[0].serve("secret", secret, roles={Role.VALIDATOR, Role.WORKER})
        async with running(*transports):
            for asker in (validator, worker):
                assert await asker.request(key(1), "secret", b"", 100, 10) == b"secret"
            with pytest.raises(Rejected):
                await observer.request(key(1), "secret", b"", 100, 10)
            with pytest.raises(PeerRefused) as caught:
                await validator.request(key(1), "unheard of", b"", 100, 10)
            assert caught.value.code == "NotServed"

    play(scenario)


def test_strangers_are_unreachable(kind):
    async def scenario():
        a, b = make(kind, 2)
        async with running(a, b):
            assert not a.send(key(9), Channel.STATUS, b"")
            with pytest.raises(Unreachable):
                await a.request(key(9), "blocks", b"", 100, 1)
        assert [p.peer for p in a.peers()] == [b.public_key]

    play(scenario)


def test_an_error_in_a_handler_of_ours_breaks_nothing(kind, caplog):
    async def scenario():
        a, b = make(kind, 2)
        got = []

        def frail(*args):
            got.append(args[-1])
            raise ZeroDivisionError

        b.on_frame = b.on_link = frail
        b.subscribe("tx", frail)
        collect_gossip(a, "tx")
        async with running(a, b):
            for n in range(3):
                assert a.send(b.public_key, Channel.STATUS, b"frame %d" % n)
                await a.publish("tx", b"gossip %d" % n)
            await until(lambda: len(got) == 7)
            assert a.peers()[0].connected

    play(scenario)
    errors = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert errors == [ZeroDivisionError] * 7


def test_peers_come_and_go_while_running(kind):
    async def scenario():
        book = addresses(2, ports=kind == "libp2p")
        if kind == "memory":
            hub = Hub()
            a = MemoryTransport(hub, key(1), {})
            b = MemoryTransport(hub, key(2), book)
        else:
            a, b = libp2p(1, book), libp2p(2, book)
            a.remove_peer(key(2))
        got = collect(a)
        async with a.run(), b.run():
            await trio.sleep(0.2)
            assert not is_linked(b, key(1)), "a does not know b yet"
            a.add_peer(key(2), book[key(2)])
            await until(lambda: is_linked(a, key(2)) and is_linked(b, key(1)))
            assert b.send(key(1), Channel.STATUS, b"hello")
            await until(lambda: got)
            a.remove_peer(key(2))
            await until(lambda: not is_linked(b, key(1)), "link down")
            assert a.peers() == []
            assert not a.send(key(2), Channel.STATUS, b"gone")
            a.add_peer(key(2), book[key(2)])
            await until(lambda: is_linked(a, key(2)) and is_linked(b, key(1)), "back")

    play(scenario)


def test_the_account_of_a_peer_shows_what_came_from_it(kind):
    async def scenario():
        a, b = make(kind, 2)
        got = collect(a)
        async with running(a, b):
            b.send(a.public_key, Channel.STATUS, b"12345")
            await until(lambda: got)
            (status,) = a.peers()
            assert status.connected
            assert (status.name, status.role) == ("n2", "validator")
            assert (status.frames_received, status.violations) == (1, 0)
            assert status.bytes_received == 5 + framing.FRAME_HEADER.size
            assert status.last_seen_ms is not None

    play(scenario)


@pytest.mark.parametrize("is_apart", [True, False])
def test_handlers_that_wait_hold_up_those_who_asked_alone(kind, is_apart):
    async def scenario():
        server, honest, *others = make(kind, 4)
        waiting = 0

        async def slow(peer, payload):
            nonlocal waiting
            waiting += 1
            await trio.sleep_forever()

        async def quick(peer, payload):
            return b"block"

        async def ask(transport):
            await transport.request(server.public_key, "slow", b"", 9, 100)

        server.serve("slow", slow)
        server.serve("quick", quick)
        if not is_apart:  # the control: as many places as these can take, for all together
            places, answer = trio.Semaphore(len(others) * MAX_REQUESTS_IN_FLIGHT), server.answer

            async def answer_in_turn(*args):
                async with places:
                    return await answer(*args)

            server.answer = answer_in_turn
        async with running(server, honest, *others), trio.open_nursery() as nursery:
            for transport in others:
                for _ in range(MAX_REQUESTS_IN_FLIGHT):
                    nursery.start_soon(ask, transport)
            await until(lambda: waiting == len(others) * MAX_REQUESTS_IN_FLIGHT)
            got = b""
            with trio.move_on_after(10 if is_apart else 0.5):
                got = await honest.request(server.public_key, "quick", b"", 9, 10)
            assert (got == b"block") is is_apart
            nursery.cancel_scope.cancel()

    play(scenario)
