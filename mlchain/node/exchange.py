"""Exchange of content between nodes: datasets, models and states, block by block.

Every block is compared with its id before it is stored, so it does not matter who sends it; who
sends another one is not asked again. What has come stays, so a fetch that was cut off goes on
where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar
from weakref import WeakValueDictionary

import structlog
import trio
from msgspec import Meta

from mlchain import codec
from mlchain.codec import Record
from mlchain.errors import (
    CodecError,
    MlchainError,
    NotFound,
    StoreCorrupted,
    Unreachable,
    VerificationFailed,
)
from mlchain.ledger.content import ContentStore
from mlchain.ledger.unixfs import CID_BYTES, MAX_CONTENT_BYTES, block_limit, cid_text
from mlchain.p2p.transport import PublicKey, Transport

log = structlog.get_logger("exchange")

GET_BLOCK = "/mlchain/content/block/1"
"""Question: the id of a block. Answer: the block."""

HAVE = "/mlchain/content/have/1"
"""Question: a `HaveQuestion`. Answer: one byte for each id, 1 if that block is here."""

MAX_HAVE_IDS = 1024
BLOCKS_IN_FLIGHT = 16
"""Blocks asked for at one time, all peers together: at most 4 MiB in memory."""
WINDOW = 1024
"""Missing blocks looked up at a time."""
BLOCK_TIMEOUT_S = 10
HAVE_TIMEOUT_S = 5
BREATH_S = 1
"""Before peers that were too slow, or away, are asked again."""
MAX_FAULTS = 3
"""A peer that sent so many wrong answers is not asked for content any more."""

T = TypeVar("T")
ContentId = Annotated[bytes, Meta(min_length=CID_BYTES, max_length=CID_BYTES)]


class HaveQuestion(Record, frozen=True):
    """Which of these blocks do you have?"""

    blocks: Annotated[tuple[ContentId, ...], Meta(min_length=1, max_length=MAX_HAVE_IDS)]


class Exchange:
    """Serves our blocks to peers, and fetches files from theirs.

    `faults` counts the wrong answers of each peer, `fetched_bytes` what came and was right.
    """

    def __init__(self, transport: Transport, store: ContentStore) -> None:
        self.store = store
        self.faults: Counter[PublicKey] = Counter()
        self.fetched_bytes: Counter[PublicKey] = Counter()
        self._transport = transport
        self._disk = trio.CapacityLimiter(1)
        self._fetching: WeakValueDictionary[bytes, trio.Lock] = WeakValueDictionary()

    def serve(self) -> None:
        """Answer peers. Call before the transport runs."""
        self._transport.serve(GET_BLOCK, self._answer_block)
        self._transport.serve(HAVE, self._answer_have)

    async def holders(self, cid: bytes, peers: Iterable[PublicKey]) -> list[PublicKey]:
        """Return those of `peers` that say they have the first block of a file, in their order."""
        question = codec.encode(HaveQuestion((cid,)))
        holders: set[PublicKey] = set()

        async def ask(peer: PublicKey) -> None:
            try:
                answer = await self._transport.request(peer, HAVE, question, 1, HAVE_TIMEOUT_S)
            except MlchainError as error:
                log.debug("have-unanswered", peer=peer.hex()[:12], reason=error.message)
            else:
                if answer == b"\1":
                    holders.add(peer)

        peers = list(dict.fromkeys(peers))
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(ask, peer)
        return [peer for peer in peers if peer in holders]

    async def fetch(
        self, cid: bytes, peers: Sequence[PublicKey], max_bytes: int = MAX_CONTENT_BYTES
    ) -> None:
        """Make a file complete here, with the blocks that any of `peers` have.

        A second call for the same file waits for the first one.

        Raises:
            NotFound: none of the peers has a block that is missing. What came is kept.
            Unreachable: no peer to ask is left.
            CodecError: the file is larger than `max_bytes`, or `cid` is no content id.
            VerificationFailed: the id names something, but not a file in the layout of this chain.
            StoreCorrupted: our disk does not take a block, or lost one.
        """
        block_limit(cid)
        lock = self._fetching.setdefault(cid, trio.Lock())
        async with lock:
            await self.on_disk(self.store.note, cid)
            fetch = _Fetch(self, cid, [peer for peer in dict.fromkeys(peers) if self.trusts(peer)])
            while missing := await self.on_disk(self.store.missing, cid, WINDOW):
                if missing != [cid]:
                    await self._check_size(cid, max_bytes)
                try:
                    await fetch.run(missing)
                except (Unreachable, NotFound):
                    if not fetch.starts_again():
                        raise
                    await trio.sleep(BREATH_S)
            await self._check_size(cid, max_bytes)

    def trusts(self, peer: PublicKey) -> bool:
        """Tell whether `peer` is still worth asking."""
        return self.faults[peer] < MAX_FAULTS

    def blame(self, peer: PublicKey, error: MlchainError) -> None:
        """Count a wrong answer."""
        self.faults[peer] += 1
        log.warning("wrong-block", peer=peer.hex()[:12], reason=error.message)

    async def on_disk(self, function: Callable[..., T], *args: object) -> T:
        """Call a method of the store in a thread: the event loop must not wait for a disk."""
        return await trio.to_thread.run_sync(function, *args, limiter=self._disk)

    async def request_block(self, peer: PublicKey, cid: bytes) -> None:
        """Fetch and store one block from one peer.

        Raises:
            MlchainError: what the transport raises; VerificationFailed for wrong bytes.
        """
        block = await self._transport.request(
            peer, GET_BLOCK, cid, block_limit(cid), BLOCK_TIMEOUT_S
        )
        await self.on_disk(self.store.put_block, cid, block)
        self.fetched_bytes[peer] += len(block)

    async def _check_size(self, cid: bytes, max_bytes: int) -> None:
        size = await self.on_disk(self.store.size, cid)
        if size > max_bytes:
            raise CodecError(f"{cid_text(cid)}: {size} bytes, at most {max_bytes} allowed")

    async def _answer_block(self, peer: PublicKey, question: bytes) -> bytes:
        block_limit(question)
        try:
            return await self.on_disk(self.store.get_block, question)
        except StoreCorrupted as error:
            log.error("block-damaged", reason=error.message, hint=error.hint)
            raise NotFound(f"no block {cid_text(question)} here") from error

    async def _answer_have(self, peer: PublicKey, question: bytes) -> bytes:
        blocks = codec.decode(HaveQuestion, question).blocks
        return await self.on_disk(lambda: bytes(self.store.has_block(cid) for cid in blocks))


@dataclass
class _Fetch:
    """The state of one fetch: which peers may still be asked, and what they are busy with."""

    exchange: Exchange
    cid: bytes
    peers: list[PublicKey]
    busy: Counter[PublicKey] = field(default_factory=Counter)
    failure: MlchainError | None = None
    away: list[PublicKey] = field(default_factory=list)
    """Peers that did not answer, though nothing they sent was wrong."""
    came: int = 0

    def starts_again(self) -> bool:
        """Ask those who did not answer once more, if anything has come since the last time.

        One of a thousand answers that is late, on a busy machine, must not end a long fetch.
        """
        if not (self.away and self.came):
            return False
        self.peers += self.away
        self.away, self.came, self.failure = [], 0, None
        return True

    async def run(self, missing: Iterable[bytes]) -> None:
        """Fetch these blocks.

        Raises:
            MlchainError: of the first block that cannot be had.
        """
        blocks = iter(missing)
        async with trio.open_nursery() as nursery:
            for _ in range(BLOCKS_IN_FLIGHT):
                nursery.start_soon(self._fetch_each, blocks)
        if self.failure:
            raise self.failure

    async def _fetch_each(self, blocks: Iterator[bytes]) -> None:
        for cid in blocks:
            try:
                await self._fetch_block(cid)
            except MlchainError as error:
                self.failure = self.failure or error
            if self.failure:
                return

    async def _fetch_block(self, cid: bytes) -> None:
        """Ask one peer after the other, the least busy first."""
        tried: set[PublicKey] = set()
        while untried := [peer for peer in self.peers if peer not in tried]:
            peer = min(untried, key=self.busy.__getitem__)
            tried.add(peer)
            self.busy[peer] += 1
            try:
                await self.exchange.request_block(peer, cid)
                self.came += 1
                return
            except StoreCorrupted:
                raise  # our own disk
            except NotFound:
                continue
            except (VerificationFailed, CodecError) as error:
                self.exchange.blame(peer, error)
                self._leave_out(peer)
                if peer in self.away:
                    self.away.remove(peer)
            except MlchainError as error:
                log.info("peer-left-out", peer=peer.hex()[:12], reason=error.message)
                if self._leave_out(peer):
                    self.away.append(peer)
            finally:
                self.busy[peer] -= 1
        raise self._exhausted(cid)

    def _leave_out(self, peer: PublicKey) -> bool:
        """Do not ask a peer for now; tell whether it was asked so far."""
        if peer not in self.peers:
            return False
        self.peers.remove(peer)
        return True

    def _exhausted(self, cid: bytes) -> MlchainError:
        what = f"block {cid_text(cid)} of {cid_text(self.cid)}"
        if not self.peers:
            return Unreachable(f"{what}: no peer to ask", "is the node connected?")
        return NotFound(f"{what}: none of {len(self.peers)} peers has it")
