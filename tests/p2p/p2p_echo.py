"""A process to be killed: `p2p_echo.py OWN_PORT PEER_PORT` is peer 2 and echoes peer 1."""

import sys

import trio
from p2p_factory import key, libp2p

from mlchain.p2p.transport import PeerAddress


async def main(own_port, peer_port):
    transport = libp2p(
        2, {key(1): PeerAddress("127.0.0.1", peer_port), key(2): PeerAddress("127.0.0.1", own_port)}
    )
    transport.on_frame = lambda peer, channel, frame: transport.send(peer, channel, frame)
    transport.subscribe("t", lambda author, data: None)
    async with transport.run():
        print("up", flush=True)
        count = 0
        while True:
            await trio.sleep(0.1)
            count += 1
            await transport.publish("t", b"%d of %d" % (count, id(transport)))


trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
