"""A member that holds good keys and means no good: what it says, on every way there is."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator

import trio
from process_network import Network
from spoil import spoilt

from mlchain import codec
from mlchain.consensus.messages import (
    BlockProposal,
    Decided,
    Have,
    Proposal,
    Status,
    Want,
    encode_message,
)
from mlchain.crypto import SecretKey
from mlchain.errors import MlchainError
from mlchain.ledger.commit import Commit, CommitSignature, Vote, VoteKind, sign_bytes
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.node.artifacts import CHUNK_PROTOCOL, ChunkRequest
from mlchain.node.exchange import GET_BLOCK, HAVE, HaveQuestion
from mlchain.node.main import make_transport
from mlchain.node.spread import HEADS_TOPIC, Batch, HeadNews
from mlchain.node.sync import BLOCKS_PROTOCOL, BlocksRequest
from mlchain.p2p.framing import FRAME_HEADER
from mlchain.p2p.transport import CHANNELS, MAX_GOSSIP_BYTES, Channel, Transport
from mlchain.vm.families.accounts import Transfer

FAR = 2**53
CID = b"\x01\x55\x12\x20" + bytes(32)


def consensus_messages(chain_id: str, key: SecretKey, height: int) -> list[bytes]:
    """One well-formed message of each kind, for a height that is being decided or close to it."""
    votes = []
    for kind, round_, block in (
        (VoteKind.PREVOTE, 0, bytes(32)),
        (VoteKind.PRECOMMIT, 3, b""),
        (VoteKind.PREVOTE, 5_000, b""),
    ):
        message = sign_bytes(chain_id, kind, height, round_, block)
        votes.append(Vote(kind, height, round_, block, key.public, b"", key.sign(message)))
    proposal = Proposal(height, 1, bytes(32), -1, key.public, bytes(64))
    message = proposal.sign_bytes(chain_id)
    proposal = Proposal(height, 1, bytes(32), -1, key.public, key.sign(message))
    signature = CommitSignature(key.public, b"", bytes(64))
    messages = [
        *votes,
        BlockProposal(proposal, (), bytes(1000)),
        Status(height, 2, 1, (Have(1, 0, bytes(32), b"\x0f"), Have(2, 7, b"", b"\xff"))),
        Status(FAR, -1, 0, ()),
        Want(height, 0, b""),
        Want(FAR, 0, bytes(32)),
        Decided(Commit(height, 0, bytes(32), (signature,))),
        Decided(Commit(FAR, 0, bytes(32), (signature,) * 100)),
    ]
    return [encode_message(message) for message in messages]


def transactions(chain_id: str, key: SecretKey) -> list[bytes]:
    bodies = [
        TransactionBody(chain_id, key.public, nonce, gas, price, kind, payload)
        for nonce, gas, price, kind, payload in (
            (0, 10**6, 1, 1, codec.encode(Transfer(bytes(32), 1))),
            (FAR, FAR, FAR, 1, codec.encode(Transfer(bytes(32), FAR))),
            (1, 0, 0, 9999, b""),
            (2, 10**6, 1, 20, bytes(60_000)),
        )
    ]
    return [codec.encode(sign_transaction(body, key)) for body in bodies]


REQUESTS: dict[str, list[bytes]] = {
    BLOCKS_PROTOCOL: [codec.encode(BlocksRequest(n, c)) for n, c in ((0, 1), (1, 64), (FAR, 64))],
    CHUNK_PROTOCOL: [codec.encode(ChunkRequest(bytes(32), 0, 0, 0))],
    GET_BLOCK: [CID, CID[:10], b""],
    HAVE: [codec.encode(HaveQuestion((CID,) * n)) for n in (1, 1024)],
    "/mlchain/no-such-thing/1": [b"", bytes(1000)],
}


class Hostile:
    """Plays a member of a network whose own process does not run."""

    def __init__(self, network: Network, name: str, seed: int) -> None:
        self.network, self.name = network, name
        self.seed, self.draw = seed, random.Random(seed)
        self.keys = network.keys(name)
        own = self.keys.validator or self.keys.worker
        assert own is not None
        self.key = own
        self.sent = 0
        self.refusals: dict[str, set[str]] = {}
        self.answered: dict[str, int] = {}

    def play(self, *acts: Callable[[Transport], Awaitable[None]]) -> None:
        """Connect as that member and do these things."""

        async def scenario() -> None:
            config = _Config(self.network.plans[self.name].peer_port)
            transport = make_transport(self.network.genesis, config, self.keys.peer)  # type: ignore[arg-type]
            transport.subscribe(HEADS_TOPIC, lambda author, data: None)
            async with transport.run():
                await self._until_linked(transport)
                for act in acts:
                    await act(transport)
                await trio.sleep(1)  # let it arrive

        with_limit(scenario)

    async def _until_linked(self, transport: Transport) -> None:
        with trio.fail_after(60):
            while not self.victims(transport):
                await trio.sleep(0.05)

    def victims(self, transport: Transport) -> list[bytes]:
        return [status.peer for status in transport.peers() if status.connected]

    # ---- acts ---------------------------------------------------------------------------------

    async def on_channels(self, transport: Transport, count: int = 300) -> None:
        """Spoilt and well-formed nonsense on every channel that this role may use."""
        chain_id, height = self.network.genesis.chain_id, self.network.top() + 1
        some = transactions(chain_id, self.key)
        good = consensus_messages(chain_id, self.key, height) + some
        good += [codec.encode(Batch(tuple(batch))) for batch in (some, [b"", bytes(1000)] * 500)]
        for data in (*good, *spoilt(self.seed, good, count)):
            for channel, rule in CHANNELS.items():
                if transport.role in rule.roles and len(data) <= rule.max_bytes:  # type: ignore[attr-defined]
                    self.sent += transport.broadcast(channel, data)
            await trio.sleep(0.002)

    async def in_requests(self, transport: Transport, count: int = 40) -> None:
        """Every protocol, with good, spoilt, empty and large questions."""
        for protocol, samples in REQUESTS.items():
            questions = [*samples, b"", bytes(1 << 20), *spoilt(self.seed, samples, count)]
            async with trio.open_nursery() as nursery:
                for number, question in enumerate(questions):
                    victims = self.victims(transport)
                    if victims:
                        peer = victims[number % len(victims)]
                        nursery.start_soon(self._ask, transport, peer, protocol, question)
                    await trio.sleep(0.005)

    async def _ask(self, transport: Transport, peer: bytes, protocol: str, question: bytes) -> None:
        try:
            await transport.request(peer, protocol, question, 64 << 20, 30)
            self.answered[protocol] = self.answered.get(protocol, 0) + 1
        except MlchainError as error:
            self.refusals.setdefault(protocol, set()).add(error.message)

    async def in_gossip(self, transport: Transport, count: int = 60) -> None:
        """News that are spoilt, senseless, or signed for nothing."""
        heads = [codec.encode(HeadNews(n, bytes(32))) for n in (0, 5, FAR)]
        for data in (*heads, bytes(900_000), *spoilt(self.seed, heads, count)):
            if len(data) <= MAX_GOSSIP_BYTES:
                await transport.publish(HEADS_TOPIC, data)
                self.sent += 1
            await trio.sleep(0.01)

    async def against_the_framing(self, transport: Transport) -> None:
        """Frames that no honest transport sends: each costs the link, and in the end a ban."""
        for raw in self._raw_frames():
            for peer in self.victims(transport):
                transport._enqueue(transport.book.get(peer), raw)  # type: ignore[attr-defined]
            await trio.sleep(0.3)

    def _raw_frames(self) -> Iterator[bytes]:
        yield FRAME_HEADER.pack(2**32 - 1, Channel.CONSENSUS)
        yield FRAME_HEADER.pack(5, 99) + b"hello"
        yield FRAME_HEADER.pack(CHANNELS[Channel.STATUS].max_bytes + 1, Channel.STATUS)
        yield self.draw.randbytes(5000)


class _Config:
    """What `make_transport` reads of a configuration."""

    def __init__(self, port: int) -> None:
        from mlchain.node.config import Address

        self.p2p_listen = Address("127.0.0.1", port)


def with_limit(scenario: Callable[[], Awaitable[None]], seconds: float = 240) -> None:
    async def bounded() -> None:
        with trio.fail_after(seconds):
            await scenario()

    trio.run(bounded)
