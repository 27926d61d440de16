"""What `transport.Transport` promises of gossip, kept by every transport there is."""

import pytest
import trio
from p2p_factory import collect_gossip, make, play, running, until

from mlchain.errors import CodecError
from mlchain.p2p.transport import MAX_GOSSIP_BYTES

pytestmark = pytest.mark.parametrize("kind", ["memory", "libp2p"])


def test_what_is_published_reaches_all_others_once(kind):
    async def scenario():
        transports = make(kind, 4)
        boxes = [collect_gossip(t, "tx") for t in transports]
        async with running(*transports):
            for n in range(20):
                await transports[n % 2].publish("tx", b"tx %d" % n)
                await transports[n % 2].publish("tx", b"tx %d" % n)
            await until(lambda: all(len(b) >= 10 * (1 + (i > 1)) for i, b in enumerate(boxes)))
            await trio.sleep(0.3)
        a, b = (t.public_key for t in transports[:2])
        sent = [((a, b)[n % 2], b"tx %d" % n) for n in range(20)]
        for transport, box in zip(transports, boxes, strict=True):
            assert sorted(box) == sorted(m for m in sent if m[0] != transport.public_key)

    play(scenario)


def test_equal_data_of_two_authors_arrives_once(kind):
    async def scenario():
        a, b, c = make(kind, 3)
        boxes = [collect_gossip(t, "tx") for t in (a, b, c)]
        async with running(a, b, c):
            await a.publish("tx", b"same")
            await until(lambda: boxes[1] and boxes[2])
            await b.publish("tx", b"same")
            await b.publish("tx", b"other")
            await until(lambda: len(boxes[2]) >= 2)
        assert sorted(data for _, data in boxes[2]) == [b"other", b"same"]

    play(scenario)


def test_what_the_validator_refuses_is_not_delivered(kind):
    async def scenario():
        a, b = make(kind, 2)
        collect_gossip(a, "tx")

        def is_valid(data):
            return {b"good": True, b"bad": False}[data]  # and a KeyError for the third

        got = collect_gossip(b, "tx", is_valid)
        async with running(a, b):
            for data in (b"bad", b"neither", b"good"):
                await a.publish("tx", data)
            await until(lambda: got)
        assert got == [(a.public_key, b"good")]

    play(scenario)


def test_gossip_is_bounded_in_size(kind):
    async def scenario():
        a, b = make(kind, 2)
        collect_gossip(a, "tx")
        got = collect_gossip(b, "tx")
        async with running(a, b):
            with pytest.raises(CodecError):
                await a.publish("tx", bytes(MAX_GOSSIP_BYTES + 1))
            await a.publish("tx", bytes(MAX_GOSSIP_BYTES))
            await until(lambda: got)
        assert len(got[0][1]) == MAX_GOSSIP_BYTES

    play(scenario)
