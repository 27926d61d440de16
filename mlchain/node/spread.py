"""How transactions and news of blocks get around, in batches.

Transactions go to each linked peer directly. Members are all linked with each other, and a link
says who is speaking, so a batch needs no signature of its own and nobody has to pass it on; gossip
would carry each batch nine times between four nodes. What waits when a link comes up is sent again
over it. News of blocks, for observers and workers, are gossip: whoever hears them first will do.

Signatures of received transactions are checked some at a time (`signatures.py`), so that agreement
does not wait for them. Nobody sends on what it has not checked itself: a batch with a transaction
that nobody signed is its sender's fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Annotated

import structlog
import trio
from msgspec import Meta

from mlchain import codec
from mlchain.codec import Hash, Record, Uint
from mlchain.errors import CodecError, MlchainError
from mlchain.ledger.transaction import MAX_TRANSACTION_BYTES, Opened
from mlchain.node.chain import Chain
from mlchain.node.inbox import Inbox
from mlchain.node.signatures import verify_in_turns
from mlchain.p2p.transport import Channel, Transport

log = structlog.get_logger("spread")

HEADS_TOPIC = "mlchain/heads/1"
BATCH_BYTES = 512 << 10
BATCH_COUNT = 2_000
BATCH_PAUSE_S = 0.02
"""After a batch; what comes meanwhile leaves together. The first after a pause leaves at once."""
RESENT = 2_000
RESENT_BYTES = 4 << 20
"""Waiting transactions that are sent to a peer whose link comes up; half of what it takes."""
MAX_NEWS_BYTES = 128
COMPLAIN_S = 10.0
"""Pause between two log lines about what is dropped of one peer."""


class Batch(Record, frozen=True):
    """Encoded transactions."""

    transactions: Annotated[
        tuple[Annotated[bytes, Meta(max_length=MAX_TRANSACTION_BYTES)], ...],
        Meta(max_length=BATCH_COUNT),
    ]


class HeadNews(Record, frozen=True):
    """A block became final."""

    height: Uint
    block_id: Hash


class Spread:
    """Sends our transactions to all, and takes those of others into the mempool."""

    def __init__(self, chain: Chain, transport: Transport) -> None:
        self._chain = chain
        self._transport = transport
        self._outgoing: deque[bytes] = deque()
        self._news: HeadNews | None = None
        self._has_outgoing = trio.Event()
        self._inbox = Inbox()
        self._complain_at: dict[bytes, float] = {}
        self.on_admitted: Callable[[], None] = lambda: None

    def listen(self, on_news: Callable[[bytes, int], None]) -> None:
        """Have `on_news(author, height)` called when somebody tells of a final block.

        Validators do not: they hear of blocks through agreement, and would hear of each from all.
        """

        def take(author: bytes, data: bytes) -> None:
            try:
                news = codec.decode(HeadNews, data, MAX_NEWS_BYTES)
            except CodecError as error:
                self._transport.report(author, error.message)
            else:
                on_news(author, news.height)

        self._transport.subscribe(HEADS_TOPIC, take)

    def send(self, transaction: bytes) -> None:
        """Spread a transaction that is in our mempool."""
        self._outgoing.append(transaction)
        self._has_outgoing.set()

    def announce(self, height: int, block_id: bytes) -> None:
        """Tell observers and workers of a final block; only the latest news is worth sending."""
        self._news = HeadNews(height, block_id)
        self._has_outgoing.set()

    def on_link(self, peer: bytes) -> None:
        """Send a peer what waits here, as far as it is taken: it may have missed it."""
        waiting = deque(islice(self._chain.mempool, RESENT))
        room = RESENT_BYTES
        while waiting and room > 0:
            frame = codec.encode(Batch(_take_batch(waiting)))
            room -= len(frame)
            if not self._transport.send(peer, Channel.TRANSACTIONS, frame):
                return

    def receive(self, peer: bytes, frame: bytes) -> None:
        """Take a frame of the transactions channel."""
        try:
            batch = codec.decode(Batch, frame)
        except CodecError as error:
            self._transport.report(peer, error.message)
            return
        if self._inbox.push(peer, batch.transactions, len(frame)):
            return
        now = trio.current_time()
        if now >= self._complain_at.get(peer, now):
            self._complain_at[peer] = now + COMPLAIN_S
            log.warning("batch-dropped", peer=peer.hex()[:8], count=len(batch.transactions))

    async def run_sender(self) -> None:
        """Send what collects; for ever."""
        while True:
            await self._has_outgoing.wait()
            if self._news is not None:
                news, self._news = codec.encode(self._news), None
                await self._transport.publish(HEADS_TOPIC, news)
            if batch := _take_batch(self._outgoing):
                self._transport.broadcast(Channel.TRANSACTIONS, codec.encode(Batch(batch)))
            await trio.sleep(BATCH_PAUSE_S)
            if not self._outgoing and self._news is None:
                self._has_outgoing = trio.Event()

    async def run_receiver(self) -> None:
        """Verify and admit what others send; for ever."""
        while True:
            peer, batch = await self._inbox.pop()
            await self._admit(peer, batch)
            self.on_admitted()

    async def _admit(self, peer: bytes, batch: tuple[bytes, ...]) -> None:
        """Admit a batch up to the first transaction that nobody signed; its sender is told of."""
        mempool = self._chain.mempool
        opened: dict[bytes, Opened] = {}
        fault = ""
        try:
            for data in batch:
                opened[data] = mempool.open(data)
        except CodecError as error:
            fault = error.message
        signed = await verify_in_turns(mempool, tuple(opened.values()))
        if signed < len(opened):
            fault = "a transaction that its sender did not sign"
        for data, each in islice(opened.items(), signed):
            try:
                self._chain.add_transaction(data, each)
            except MlchainError as error:
                log.debug("not-admitted", reason=error.message)
        if fault:
            self._transport.report(peer, fault)


def _take_batch(waiting: deque[bytes]) -> tuple[bytes, ...]:
    """Remove and return what goes into one batch."""
    batch: list[bytes] = []
    size = 0
    while waiting and len(batch) < BATCH_COUNT and size < BATCH_BYTES:
        batch.append(waiting.popleft())
        size += len(batch[-1])
    return tuple(batch)
