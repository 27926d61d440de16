"""No bytes a known peer can send end our process; four of these end a host as the library makes it.

The victim is a process of its own. Every attack comes from another known peer, with the library's
own means below the rules it would keep.
"""

import os

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed
from p2p_factory import child, dial, free_port, key, play, seed, stock_host, until

from mlchain.p2p import libp2p_gate as gate_module

VICTIM = gate_module.peer_id(key(1))
MESHSUB = "/meshsub/1.1.0"
TOPIC, FRAIL = "t", "/frail/1"


def rpc(**fields) -> bytes:
    return encode_varint_prefixed(rpc_pb2.RPC(**fields).SerializeToString())


def message(number, data=b"x", **changes):
    """A gossip message, signed by peer `number`."""
    fields = {
        "data": data,
        "topicIDs": [TOPIC],
        "from_id": gate_module.peer_id(key(number)).to_bytes(),
        "seqno": bytes(8),
    }
    signed = rpc_pb2.Message(**fields)
    pair = gate_module.key_pair(seed(number))
    signature = pair.private_key.sign(b"libp2p-pubsub:" + signed.SerializeToString())
    return rpc_pb2.Message(**{**fields, "signature": signature, **changes})


def control(number):
    """Control messages about nothing."""
    c = rpc_pb2.ControlMessage()
    c.ihave.add(topicID="nope", messageIDs=[b"zz", b"\xff"])
    c.ihave.add(topicID=TOPIC, messageIDs=[b"", b"\xff" * 300])
    c.iwant.add(messageIDs=[b"zz"] * 500)
    c.graft.add(topicID="nope")
    c.graft.add(topicID=TOPIC)
    prune = c.prune.add(topicID=TOPIC, backoff=2**63)
    prune.peers.add(peerID=b"\x00\x01", signedPeerRecord=b"junk")
    return rpc(control=c)


RSA_ID = b"\x12\x20" + bytes(32)

ON_STREAMS = {
    "gossip that is no protobuf": (MESHSUB, lambda n: encode_varint_prefixed(b"\xff\xff garbage")),
    "gossip of random bytes": (MESHSUB, lambda n: os.urandom(4096)),
    "gossip of absurd length": (MESHSUB, lambda n: b"\xff\xff\xff\xff\x7f"),
    "topic that is no text": (
        MESHSUB,
        lambda n: encode_varint_prefixed(b"\x0a\x06\x08\x01\x12\x02\xff\xfe"),
    ),
    "author whose key is not in the name": (
        MESHSUB,
        lambda n: rpc(publish=[message(n, from_id=RSA_ID, key=b"garbage")]),
    ),
    "no author": (MESHSUB, lambda n: rpc(publish=[message(n, from_id=b"", key=b"k")])),
    "short signature": (MESHSUB, lambda n: rpc(publish=[message(n, signature=b"s")])),
    "two topics": (MESHSUB, lambda n: rpc(publish=[message(n, topicIDs=[TOPIC, "u"])])),
    "bad address record": (MESHSUB, lambda n: rpc(senderRecord=b"garbage")),
    "strange control messages": (MESHSUB, control),
    "ten thousand subscriptions": (
        MESHSUB,
        lambda n: rpc(
            subscriptions=[
                rpc_pb2.RPC.SubOpts(subscribe=True, topicid=str(i)) for i in range(10_000)
            ]
        ),
    ),
    "bug in a validator of ours": (MESHSUB, lambda n: rpc(publish=[message(n, b"bug")])),
    "bug in a handler of ours": (FRAIL, lambda n: b"x"),
    "short ping": ("/ipfs/ping/1.0.0", lambda n: b"abc"),
    "link of random bytes": ("/mlchain/link/1.0.0", lambda n: os.urandom(4096)),
}


async def attack_stream(host, name, number):
    protocol, payload = ON_STREAMS[name]
    stream = await host.new_stream(VICTIM, [protocol])
    await stream.write(payload(number))
    await trio.sleep(0.02)
    await stream.reset()


async def attack_mux(host, raw):
    (connection,) = host.get_network().get_connections(VICTIM)
    await connection.muxed_conn.secured_conn.write(raw)


ON_CONNECTIONS = {
    "mux frame of another version": b"\x07\x09" + bytes(10),
    "mux frames of random bytes": bytes(range(256)) * 5,
    "mux frame that announces 4 GB": b"\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff",
    "data for a stream that is not": b"\x00\x00\x00\x00\x00\x00\x0f\xff\x00\x00\x00\x01x",
}


async def attack_negotiation(host):
    stream = await host.get_network().new_stream(VICTIM)
    await stream.write(os.urandom(300))
    half = await host.get_network().new_stream(VICTIM)
    await half.write(b"\x80")
    await half.reset()


async def is_well(port) -> bool:
    """Whether the victim answers a peer that comes anew."""
    from libp2p.host.ping import PingService

    async with stock_host(30) as probe:
        with trio.move_on_after(10):
            await dial(probe, 1, port)
            return bool(await PingService(probe).ping(VICTIM))
    return False


async def heard(victim, data) -> None:
    """Wait until the victim says that a gossip message reached it."""
    wanted = f"heard {data!r}"
    with trio.fail_after(10):
        while (await trio.to_thread.run_sync(victim.stdout.readline)).strip() != wanted:
            assert victim.poll() is None, "the victim died"


def test_no_bytes_of_a_known_peer_end_the_process():
    async def scenario(victim, port):
        async with stock_host(2) as attacker:
            for name in ON_STREAMS:
                await dial(attacker, 1, port)
                await attack_stream(attacker, name, 2)
                assert victim.poll() is None, name
            for name, raw in ON_CONNECTIONS.items():
                await dial(attacker, 1, port)
                await attack_mux(attacker, raw)
                await attacker.disconnect(VICTIM)
                assert victim.poll() is None, name
            await dial(attacker, 1, port)
            await attack_negotiation(attacker)
            stream = await attacker.new_stream(VICTIM, [MESHSUB])
            await stream.write(rpc(publish=[message(2, b"all is well")]))
            await heard(victim, b"all is well")
        assert await is_well(port)

    port = free_port()
    with child("p2p_victim.py", "guarded", port) as victim:
        assert victim.stdout.readline() == "up\n", victim.stderr.read()
        play(scenario, victim, port)
        assert victim.poll() is None


@pytest.mark.parametrize("name", ["gossip that is no protobuf", "bug in a handler of ours"])
def test_the_same_bytes_end_a_host_as_the_library_makes_it(name):
    async def scenario(victim, port):
        async with stock_host(2) as attacker:
            await dial(attacker, 1, port)
            await attack_stream(attacker, name, 2)
            await until(lambda: victim.poll() is not None, "the victim dies")

    port = free_port()
    with child("p2p_victim.py", "stock", port) as victim:
        assert victim.stdout.readline() == "up\n", victim.stderr.read()
        play(scenario, victim, port)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["author whose key is not in the name", "no author", "bug in a validator of ours"]
)
def test_these_bytes_too_end_a_host_as_the_library_makes_it(name):
    test_the_same_bytes_end_a_host_as_the_library_makes_it(name)
