"""How transactions and news of blocks get around: gossip, in batches.

A batch collects what came within a few milliseconds. Signatures of a received batch are checked
in a thread (libsodium releases the interpreter lock), so that agreement does not wait for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Annotated

import structlog
import trio
from msgspec import Meta

from mlchain import codec
from mlchain.codec import Hash, Record, Uint
from mlchain.errors import CodecError, MlchainError
from mlchain.ledger.transaction import (
    MAX_TRANSACTION_BYTES,
    decode_transaction,
    transaction_id,
    verify_transaction,
)
from mlchain.node.chain import Chain
from mlchain.p2p.transport import Transport

log = structlog.get_logger("spread")

TRANSACTIONS_TOPIC = "mlchain/transactions/1"
HEADS_TOPIC = "mlchain/heads/1"
BATCH_BYTES = 512 << 10
BATCH_COUNT = 2_000
BATCH_WAIT_S = 0.01
INBOX_BATCHES = 256
"""Received batches that may wait; further ones are dropped (senders see it by no receipt)."""


class Batch(Record, frozen=True):
    """Encoded transactions.

    `height` is the sender's: gossip carries equal bytes once, and what is spread again after some
    blocks must not count as the same.
    """

    height: Uint
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
        self._send, self._receive = trio.open_memory_channel[tuple[bytes, ...]](INBOX_BATCHES)
        self.on_admitted: Callable[[], None] = lambda: None
        self.on_news = _ignore_news
        transport.subscribe(TRANSACTIONS_TOPIC, self._on_batch)
        transport.subscribe(HEADS_TOPIC, self._on_head)

    def send(self, transaction: bytes) -> None:
        """Spread a transaction that is in our mempool."""
        self._outgoing.append(transaction)
        self._has_outgoing.set()

    def announce(self, height: int, block_id: bytes) -> None:
        """Tell observers and workers of a final block; only the latest news is worth sending."""
        self._news = HeadNews(height, block_id)
        self._has_outgoing.set()

    async def run_sender(self) -> None:
        """Publish what collects; for ever."""
        while True:
            await self._has_outgoing.wait()
            if self._news is not None:
                news, self._news = codec.encode(self._news), None
                await self._transport.publish(HEADS_TOPIC, news)
            await trio.sleep(BATCH_WAIT_S)
            batch: list[bytes] = []
            size = 0
            while self._outgoing and len(batch) < BATCH_COUNT and size < BATCH_BYTES:
                transaction = self._outgoing.popleft()
                batch.append(transaction)
                size += len(transaction)
            if not self._outgoing and self._news is None:
                self._has_outgoing = trio.Event()
            if batch:
                data = codec.encode(Batch(self._chain.height, tuple(batch)))
                await self._transport.publish(TRANSACTIONS_TOPIC, data)

    async def run_receiver(self) -> None:
        """Verify and admit what others send; for ever."""
        async for transactions in self._receive:
            unknown = [t for t in transactions if transaction_id(t) not in self._chain.mempool]
            for identity in await trio.to_thread.run_sync(_verify_all, unknown):
                self._chain.mempool.verified.add(identity)
            for transaction in transactions:
                try:
                    self._chain.add_transaction(transaction)
                except MlchainError as error:
                    log.debug("not-admitted", reason=error.message)
            self.on_admitted()

    def _on_batch(self, author: bytes, data: bytes) -> None:
        try:
            batch = codec.decode(Batch, data)
            self._send.send_nowait(batch.transactions)
        except CodecError as error:
            log.warning("bad-batch", peer=author.hex()[:8], reason=error.message)
        except trio.WouldBlock:
            log.warning("batch-dropped", peer=author.hex()[:8], count=len(batch.transactions))

    def _on_head(self, author: bytes, data: bytes) -> None:
        try:
            news = codec.decode(HeadNews, data, 128)
        except CodecError as error:
            log.warning("bad-head", peer=author.hex()[:8], reason=error.message)
            return
        self.on_news(author, news.height)


def _verify_all(transactions: list[bytes]) -> list[bytes]:
    """Return the ids of those that their senders signed."""
    good = []
    for data in transactions:
        try:
            verify_transaction(decode_transaction(data))
            good.append(transaction_id(data))
        except MlchainError:
            continue  # admission says why
    return good


def _ignore_news(author: bytes, height: int) -> None:
    """Stand in until the node connects its block sync."""
