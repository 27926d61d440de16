"""Room for content: what the operator pins stays, what nobody needs makes way beyond the quota.

The chain's own needs come before the quota: the data and states of jobs that are open or can still
be accused, the rows of open requests, and every model. Of the rest the files stay that were added
or asked for last.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

import structlog
import trio

from mlchain.errors import CodecError
from mlchain.ledger.content import ContentStore, Kept
from mlchain.ledger.kv import KeyValue
from mlchain.ledger.state import State
from mlchain.ledger.unixfs import MAX_CONTENT_BYTES, block_limit
from mlchain.node.chain import Chain
from mlchain.vm.families.jobs import ACTIVE, JOBS, SEGMENTS
from mlchain.vm.families.merges import MERGES
from mlchain.vm.families.models import MODEL_FILES, MODELS
from mlchain.vm.families.partitions import DRAWS, PART_OF
from mlchain.vm.families.predictions import OPEN, PREDICTIONS
from mlchain.vm.params import get_params

log = structlog.get_logger("keeper")

LOOK_S = 10.0
"""Between two looks at how much there is."""

Hold = Callable[[bytes, int], Awaitable[None]]


def open_content(kv: KeyValue) -> ContentStore:
    """Return the store of a node, which several threads write."""
    return ContentStore(kv, threading.Lock())


def needed_content(state: State, height: int) -> list[bytes]:
    """Return the content ids that models, open requests, draws and jobs at `height` rest on.

    A job that has ended may still be accused for `unbonding_blocks`, and whoever judges it needs
    what it was trained on, and its states.
    """
    found: dict[bytes, None] = {}
    kept: dict[bytes, None] = {}
    first = height - get_params(state).unbonding_blocks
    for (job_id,), job in JOBS.items(state):
        if job.height < first and ACTIVE.get(state, job_id) is None:
            continue
        found[job.dataset] = None
        if origin := PART_OF.get(state, job.dataset):
            kept[origin.draw] = None
        for index in range(job.assigned):
            segment = SEGMENTS.get(state, job_id, index)
            if segment is not None and segment.commit is not None:
                found[segment.commit.leaves_content] = None
                found[segment.commit.end_content] = None
    for (identity,), draw in DRAWS.items(state):
        if identity in kept or draw.height >= first or not draw.seed:
            found[draw.content] = None
    for _, merge in MERGES.items(state):
        found[merge.content] = None
    for (request,), _ in OPEN.items(state):
        if (prediction := PREDICTIONS.get(state, request)) is not None:
            found[prediction.data] = None
    for _, model in MODELS.items(state):
        found[model.content] = None
    for (content,), _ in MODEL_FILES.items(state):
        found[content] = None
    return list(found)


class Keeper:
    """Keeps content below `quota` bytes, 0 for no bound, as far as needs and pins allow."""

    def __init__(self, store: ContentStore, quota: int, chain: Chain, hold: Hold) -> None:
        self.quota = quota
        self._store = store
        self._chain = chain
        self._hold = hold
        self._turn = trio.Lock()
        self._used: int | None = None

    async def run(self) -> None:
        """Collect whenever there is more than the quota; for ever."""
        while self.quota:
            self._used = await trio.to_thread.run_sync(self._store.used_bytes)
            if self._used > self.quota:
                await self.collect()
            await trio.sleep(LOOK_S)

    async def collect(self) -> int:
        """Remove what nobody needs beyond the quota, or all of it without one; return the bytes."""
        async with self._turn:
            state, height = self._chain.state(), self._chain.height
            needed = await trio.to_thread.run_sync(needed_content, state, height)
            freed = await trio.to_thread.run_sync(self._store.collect, needed, self.quota)
            self._used = await trio.to_thread.run_sync(self._store.used_bytes)
        if freed:
            log.info("content-removed", bytes=freed, left=self._used)
        return freed

    def check_room(self, more: int) -> None:
        """Note that somebody stores `more` bytes.

        Raises:
            CodecError: twice the quota would be here; the next collection makes room.
        """
        if self.quota and self._used is not None:
            if self._used + more > 2 * self.quota:
                raise CodecError(
                    f"this node keeps {self.quota} bytes of content and has {self._used}",
                    "try again in a few seconds, or ask its operator for a larger --content-quota",
                )
            self._used += more

    async def pin(self, cid: bytes) -> None:
        """Fetch a file from peers if it is not here, and keep it until it is unpinned.

        Raises:
            MlchainError: nobody has all of it, or it is no file.
        """
        block_limit(cid)
        await self._hold(cid, MAX_CONTENT_BYTES)
        async with self._turn:
            await self._hold(cid, MAX_CONTENT_BYTES)  # what a collection took in between
            await trio.to_thread.run_sync(self._store.pin, cid)

    async def unpin(self, cid: bytes) -> None:
        """Let a file make way again."""
        await trio.to_thread.run_sync(self._store.pin, cid, False)

    async def files(self, limit: int, before: int | None = None) -> list[Kept]:
        """Return the newest files that were added, asked for or pinned, of an order below
        `before`."""
        return await trio.to_thread.run_sync(self._store.files, limit, before)

    async def used(self) -> int:
        """Return the bytes of all content here."""
        return await trio.to_thread.run_sync(self._store.used_bytes)
