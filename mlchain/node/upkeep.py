"""What a node does for its store while it runs: snapshots, mending, the removal of old blocks.

Each is done in small steps beside agreement, and none of it is needed for a vote.
"""

from __future__ import annotations

import structlog
import trio

from mlchain.ledger.kv import KeyValue
from mlchain.ledger.store import Store
from mlchain.node.mend import Mender
from mlchain.node.snapshots import (
    CHUNK_PROTOCOL,
    LIGHT_PROTOCOL,
    OFFERS_PROTOCOL,
    SnapshotFolder,
    Snapshots,
)
from mlchain.p2p.transport import Transport

log = structlog.get_logger("upkeep")

PRUNE_STEP = 100
"""Blocks removed in one write."""
PRUNE_PAUSE_S = 0.02
PRUNE_SLACK = 100
"""So many more than wanted are let stand before a round of removing starts."""
COMPACT_AFTER = 1_000
"""Blocks removed after which the database is asked to give the space back."""


class Upkeep:
    """Takes and serves snapshots; keeps the last `keep_blocks` blocks (0: all)."""

    def __init__(
        self,
        store: Store,
        kv: KeyValue,
        transport: Transport,
        folder: SnapshotFolder | None,
        snapshot_every: int,
        keep_blocks: int,
    ) -> None:
        self._store = store
        self._kv = kv
        self._keep = keep_blocks
        self._wake = trio.Event()
        self._removed = 0
        self._mender = Mender(store, transport)
        self._snapshots = Snapshots(store, folder, snapshot_every) if folder else None
        if self._snapshots:
            transport.serve(OFFERS_PROTOCOL, self._snapshots.serve_offers)
            transport.serve(CHUNK_PROTOCOL, self._snapshots.serve_chunk)
            transport.serve(LIGHT_PROTOCOL, self._snapshots.serve_light)

    def on_block(self, height: int) -> None:
        """Note that a block became final; cheap."""
        if self._snapshots:
            self._snapshots.on_block(height)
        if self._keep and height - self._store.kept > self._keep + PRUNE_SLACK:
            self._wake.set()

    async def run(self) -> None:
        """Do what is due; for ever.

        Raises:
            StoreCorrupted: the disk failed.
        """
        async with trio.open_nursery() as nursery:
            if self._snapshots:
                nursery.start_soon(self._snapshots.run)
            nursery.start_soon(self._mender.run)
            if self._keep:
                self._wake.set()
                nursery.start_soon(self._prune)

    async def _prune(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            if self._removed >= COMPACT_AFTER:  # by an earlier round: views of before are gone
                log.info("pruned", blocks=self._removed, kept_from=self._store.kept)
                self._removed = 0
                await trio.to_thread.run_sync(self._kv.compact)
            while done := self._store.prune(self._store.height - self._keep + 1, PRUNE_STEP):
                self._removed += done
                await trio.sleep(PRUNE_PAUSE_S)
