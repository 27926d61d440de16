"""Signatures of many transactions at once, in threads: libsodium releases the interpreter lock.

What holds is remembered by the mempool; neither admission nor a block looks at it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import trio

from mlchain.errors import CodecError, MlchainError
from mlchain.ledger.block import decode_block
from mlchain.ledger.transaction import Opened, verify_transaction
from mlchain.node.mempool import Mempool

THREAD_COUNT = 64
"""Fewer signatures than this are checked where they are, in 3 ms at most: a thread costs as much as
three checks, and beside a busy loop each of its checks waits for the interpreter lock."""
AHEAD = 1_024
"""Signatures of fetched blocks that are checked before the first of these blocks is looked at. A
peer that lies makes us check so many for nothing, some 60 ms, before it is distrusted; or those of
one block, if that has more."""


async def verify_many(mempool: Mempool, opened: Sequence[Opened], threads: int = 1) -> None:
    """Remember in `mempool` which of these transactions their senders signed."""
    if len(opened) < THREAD_COUNT:
        _remember(mempool, _verify(opened))
        return

    async def verify(part: Sequence[Opened]) -> None:
        _remember(mempool, await trio.to_thread.run_sync(_verify, part))

    async with trio.open_nursery() as nursery:
        for first in range(threads):
            nursery.start_soon(verify, opened[first::threads])


async def verify_ahead(mempool: Mempool, blocks: Sequence[bytes]) -> int:
    """Check the signatures of the first of these encoded blocks on all cores; return how many.

    Nothing rests on it: what does not hold, or was not looked at, is met again in its block.
    """
    opened: list[Opened] = []
    count = 0
    while count < len(blocks) and len(opened) < AHEAD:
        opened += _open_block(mempool, blocks[count])
        count += 1
    if len(opened) >= THREAD_COUNT:
        await verify_many(mempool, opened, os.cpu_count() or 1)
    return count


def _open_block(mempool: Mempool, block: bytes) -> Iterator[Opened]:
    """Yield what nobody verified yet, up to what cannot be decoded."""
    try:
        for data in decode_block(block).body.transactions:
            opened = mempool.open(data)
            if not opened.is_verified:
                yield opened
    except CodecError:
        return  # checking the block says what is wrong


def _verify(transactions: Iterable[Opened]) -> list[bytes]:
    """Return the ids of those that their senders signed."""
    good = []
    for opened in transactions:
        try:
            verify_transaction(opened.transaction)
            good.append(opened.identity)
        except MlchainError:
            continue  # admission, or the block, says why
    return good


def _remember(mempool: Mempool, identities: Iterable[bytes]) -> None:
    for identity in identities:
        mempool.verified.add(identity)
