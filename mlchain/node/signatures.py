"""Signatures of many transactions: those that are spread in turns with agreement, those of fetched
blocks in threads.

What holds is remembered by the mempool; neither admission nor a block looks at it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import trio

from mlchain.errors import CodecError, InvalidSignature
from mlchain.ledger.block import decode_block
from mlchain.ledger.transaction import Opened, verify_transaction
from mlchain.node.mempool import Mempool

STRIDE = 16
"""Signatures between two turns of the others, about a millisecond."""
THREAD_COUNT = 64
"""For fewer signatures than this no thread is begun: it costs as much as three."""
AHEAD = 1_024
"""Signatures of fetched blocks that are checked before the first of these blocks is looked at. A
peer that lies makes us check so many for nothing, some 60 ms, before it is distrusted; or those of
one block, if that has more."""


async def verify_in_turns(mempool: Mempool, transactions: Sequence[Opened]) -> int:
    """Remember in `mempool` which of these transactions their senders signed, up to the first that
    its sender did not; return how many come before it.

    Not in a thread: beside a busy loop each check there waits for the interpreter lock, up to 5 ms,
    and a block that carries what waits has it checked a second time.
    """
    for count, opened in enumerate(transactions):
        try:
            mempool.verify(opened)
        except InvalidSignature:
            return count
        if count % STRIDE == STRIDE - 1:
            await trio.lowlevel.checkpoint()
    return len(transactions)


async def verify_ahead(mempool: Mempool, blocks: Sequence[bytes]) -> int:
    """Check the signatures of the first of these encoded blocks on all cores; return how many.

    Nothing rests on it: what does not hold, or was not looked at, is met again in its block.
    """
    opened: list[Opened] = []
    count = 0
    while count < len(blocks) and len(opened) < AHEAD:
        opened += _open_block(mempool, blocks[count])
        count += 1
    if len(opened) < THREAD_COUNT:
        return count
    threads = os.cpu_count() or 1

    async def verify(part: Sequence[Opened]) -> None:
        for identity in await trio.to_thread.run_sync(_verify, part):
            mempool.verified.add(identity)

    async with trio.open_nursery() as nursery:
        for first in range(threads):
            nursery.start_soon(verify, opened[first::threads])
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
        except InvalidSignature:
            continue  # the block says so
    return good
