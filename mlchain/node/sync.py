"""Block sync: fetching final blocks with their certificates from peers that are ahead.

A block is believed for its certificate alone, so any peer may serve it; one that serves something
else is left out for a while.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
import trio
from msgspec import Meta

from mlchain import codec
from mlchain.codec import Record, Uint
from mlchain.errors import (
    CodecError,
    InvalidBlock,
    InvalidSignature,
    MlchainError,
    Pruned,
    Timeout,
)
from mlchain.ledger.block import MAX_BLOCK_BYTES
from mlchain.ledger.commit import Commit
from mlchain.ledger.store import Store
from mlchain.node.progress import Progress
from mlchain.p2p.transport import Transport

log = structlog.get_logger("sync")

BLOCKS_PROTOCOL = "/mlchain/blocks/1"
WINDOW = 64
"""Most blocks of one answer."""
MAX_ANSWER_BYTES = 16 << 20
FIRST_TIMEOUT_S = 3.0
"""What a peer gets to answer at first: the next one is asked when this one is silent."""
TIMEOUT_S = 24.0
"""The most it gets. The time is doubled by each silence, so large blocks come over slow lines too,
and halved by an answer that took little of it."""
DISTRUST_S = 10.0
PRUNED_S = 60.0
"""A peer that removed the next block is not asked for so long: it may keep later ones."""
RETRY_S = 0.5
QUIET_S = 5.0
"""After so long without news, somebody is asked: news of a block may get lost."""

SNAPSHOT_HINT = "if nobody keeps all blocks: mlchain node --sync snapshot"


class BlocksRequest(Record, frozen=True):
    """Asks for blocks from a height on."""

    first: Uint
    count: Annotated[int, Meta(ge=1, le=WINDOW)]


class SyncedBlock(Record, frozen=True):
    """An encoded block and the certificate of its height."""

    block: Annotated[bytes, Meta(max_length=MAX_BLOCK_BYTES)]
    commit: Commit


class BlocksAnswer(Record, frozen=True):
    """Consecutive blocks, none if the asked one does not exist yet; and where the sender is.

    The height is for people: nothing rests on it.
    """

    blocks: Annotated[tuple[SyncedBlock, ...], Meta(max_length=WINDOW)]
    height: Uint


Synced = Callable[[bytes, Commit], None]
"""Takes a fetched block and its certificate. Raises a MlchainError if they do not hold."""

Prepare = Callable[[list[bytes]], Awaitable[int]]
"""Does what it can of the work that fetched blocks will be, and tells for how many of them: at
least one. Their certificates were not looked at."""


class BlockSync:
    """Serves our blocks, and fetches those we lack."""

    def __init__(
        self, store: Store, transport: Transport, on_block: Synced, prepare: Prepare | None = None
    ) -> None:
        self._store = store
        self._prepare = prepare
        self._transport = transport
        self._on_block = on_block
        self._wanted: tuple[bytes, int] | None = None
        self._wake = trio.Event()
        self._distrusted: dict[bytes, float] = {}
        self._turn = 0
        self._progress: Progress | None = None
        self._waited_s = 0.0
        self._patience_s = FIRST_TIMEOUT_S
        self.is_syncing = False

    async def serve(self, peer: bytes, payload: bytes) -> bytes:
        """Answer a `BlocksRequest` within `MAX_ANSWER_BYTES`."""
        request = codec.decode(BlocksRequest, payload, 64)
        blocks: list[SyncedBlock] = []
        size = 0
        for height in range(max(1, request.first), request.first + request.count):
            if height > self._store.height:
                break
            data = codec.encode(self._store.block(height))
            size += len(data)
            if blocks and size > MAX_ANSWER_BYTES // 2:
                break
            blocks.append(SyncedBlock(data, self._store.commit(height)))
        return codec.encode(BlocksAnswer(tuple(blocks), self._store.height))

    def want(self, peer: bytes, height: int) -> None:
        """Note that `peer` says it has blocks up to `height` or beyond."""
        trusted_at = self._distrusted.get(peer, -math.inf)
        if height > self._store.height and trio.current_time() >= trusted_at:
            self._wanted = peer, height
            self._wake.set()

    async def run(self) -> None:
        """Fetch whenever somebody is known to be ahead, or nothing was heard; for ever."""
        failed = 0
        while True:
            if self._wanted is None or self._wanted[1] <= self._store.height:
                self._wanted, self.is_syncing = None, False
                self._wake = trio.Event()
                with trio.move_on_after(QUIET_S):
                    await self._wake.wait()
            peers = self._trusted()
            if await self._fetch_from(self._whom(peers, failed)):
                failed = 0
            elif self._wanted is not None:
                failed += 1
                if failed > len(peers):  # nobody has it: whoever said so was wrong
                    self._wanted, failed = None, 0
                await trio.sleep(RETRY_S)

    def _trusted(self) -> list[bytes]:
        """Return the connected peers that neither lied lately nor lacked what we need."""
        now = trio.current_time()
        peers = [status.peer for status in self._transport.peers() if status.connected]
        return [peer for peer in peers if now >= self._distrusted.get(peer, -math.inf)]

    def _whom(self, peers: list[bytes], failed: int) -> bytes | None:
        """Return whom to ask: who said that it is ahead, after failures the others in turn."""
        if self._wanted is not None and not failed and self._wanted[0] in peers:
            return self._wanted[0]
        self._turn += 1
        return peers[self._turn % len(peers)] if peers else None

    async def _fetch_from(self, peer: bytes | None) -> bool:
        """Fetch what `peer` has; tell whether anything came of it."""
        before = self._store.height
        try:
            if peer is not None:
                await self._fetch(peer)
        except (CodecError, InvalidBlock, InvalidSignature) as error:
            log.warning("lying-peer", peer=peer.hex()[:8] if peer else "", reason=error.message)
            if peer:
                self._distrusted[peer] = trio.current_time() + DISTRUST_S
        except Pruned as error:  # perhaps another has that block
            if peer:
                self._distrusted[peer] = trio.current_time() + PRUNED_S
            log.warning("blocks-pruned", reason=error.message, hint=SNAPSHOT_HINT)
        except MlchainError as error:
            log.info("sync-interrupted", reason=error.message)
        return self._store.height > before

    async def _fetch(self, peer: bytes) -> None:
        first, started = self._store.height + 1, trio.current_time()
        request = codec.encode(BlocksRequest(first, WINDOW))
        try:
            data = await self._transport.request(
                peer, BLOCKS_PROTOCOL, request, 2 * MAX_ANSWER_BYTES, self._patience_s
            )
        except Timeout:
            self._patience_s = min(2 * self._patience_s, TIMEOUT_S)
            raise
        if trio.current_time() - started < self._patience_s / 4:
            self._patience_s = max(self._patience_s / 2, FIRST_TIMEOUT_S)
        answer = codec.decode(BlocksAnswer, data, 2 * MAX_ANSWER_BYTES)
        self.is_syncing = len(answer.blocks) > 2
        self._waited_s += trio.current_time() - started
        blocks, prepared = [synced.block for synced in answer.blocks], 0
        for place, synced in enumerate(answer.blocks):
            if self._prepare is not None and place == prepared:
                prepared += await self._prepare(blocks[place:])
            if synced.commit.height == self._store.height + 1:
                self._on_block(synced.block, synced.commit)
                await trio.lowlevel.checkpoint()
        self._tell(len(answer.blocks), max(answer.height, self._store.height))

    def _tell(self, count: int, goal: int) -> None:
        """Say now and then how far we are, how fast, and how much of the time was waiting."""
        if count < WINDOW:
            self._progress = None
            return
        if self._progress is None:
            self._progress = Progress("blocks", goal, self._store.height)
            self._waited_s = 0.0
        self._progress.done, self._progress.total = self._store.height, goal
        self._progress.tell(waited_ms=round(self._waited_s * 1000))
