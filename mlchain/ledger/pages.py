"""Whole blocks in pages, for who copies a chain from a node that runs."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlchain import codec
from mlchain.codec import Record
from mlchain.errors import NotFound
from mlchain.ledger.block import Block
from mlchain.ledger.commit import Commit
from mlchain.ledger.store import Store

MAX_PAGE_BLOCKS = 256
PAGE_BYTES = 1 << 20
"""A page is closed when its blocks have this many bytes."""
MAX_PAGE_BYTES = 16 << 20
"""What one more block may make of it."""


class BlockPage(Record, frozen=True):
    """Blocks that follow one another, and the certificate of the last; the others are certified by
    the block after them."""

    blocks: Annotated[tuple[Block, ...], Meta(min_length=1, max_length=MAX_PAGE_BLOCKS)]
    commit: Commit

    def certified(self) -> list[tuple[Block, Commit | None]]:
        """Return each block with what should be its certificate."""
        later = [block.body.last_commit for block in self.blocks[1:]]
        return list(zip(self.blocks, [*later, self.commit], strict=True))


def make_page(store: Store, after: int) -> BlockPage:
    """Return the page of the blocks after height `after`.

    Raises:
        NotFound: the chain is not that high, or the blocks were pruned.
    """
    last = store.height
    if after >= last:
        raise NotFound(f"no block {after + 1} yet, the last is {last}")
    blocks: list[Block] = []
    size = 0
    while after + len(blocks) < last and len(blocks) < MAX_PAGE_BLOCKS and size < PAGE_BYTES:
        blocks.append(store.block(after + len(blocks) + 1))
        size += len(codec.encode(blocks[-1]))
    return BlockPage(tuple(blocks), store.commit(after + len(blocks)))
