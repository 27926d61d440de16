"""A process to be attacked: `p2p_victim.py guarded|stock PORT`. Says what it hears, ends on EOF.

It is peer 1 and knows peers 1..30. "guarded" is our transport, "stock" the library as documented.
"""

import os
import sys

import trio
from p2p_factory import key, libp2p, seed

from mlchain.p2p.transport import PeerAddress

TOPIC = "t"
FRAIL = "/frail/1"


async def frail(stream):
    """A handler with a bug."""
    await stream.read(1)
    raise RuntimeError("bug in our own stream handler")


def frail_validator(*args):
    """A validator with a bug, for messages that say so."""
    data = args[-1] if isinstance(args[-1], bytes) else args[-1].data
    if data == b"bug":
        raise RuntimeError("bug in our own validator")
    return True


async def guarded(port):
    book = {key(n): PeerAddress("127.0.0.1", port if n == 1 else 0) for n in range(1, 31)}
    transport = libp2p(1, book)
    transport.subscribe(TOPIC, lambda _, data: print("heard", data, flush=True), frail_validator)
    async with transport.run():
        transport._libp2p.set_stream_handler(FRAIL, frail)
        print("up", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


async def stock(port):
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
    from libp2p.pubsub.pubsub import Pubsub
    from libp2p.tools.anyio_service import background_trio_service

    from mlchain.p2p.libp2p_host import to_multiaddr

    host = new_host(key_pair=create_new_key_pair(seed(1)))
    router = GossipSub(protocols=[PROTOCOL_ID_V11], degree=6, degree_low=4, degree_high=12)
    pubsub = Pubsub(host, router)
    pubsub.set_topic_validator(TOPIC, frail_validator, False)
    host.set_stream_handler(FRAIL, frail)
    async with (
        host.run(listen_addrs=[to_multiaddr("127.0.0.1", port)]),
        background_trio_service(pubsub),
        background_trio_service(router),
    ):
        await pubsub.wait_until_ready()
        await pubsub.subscribe(TOPIC)
        print("up", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run({"guarded": guarded, "stock": stock}[sys.argv[1]], int(sys.argv[2]))
    os._exit(0)
