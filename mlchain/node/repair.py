"""Repair of a damaged database, before the node starts: `mlchain node --repair`.

What is wrong is said first. Damaged blocks in a database that opens are left to the running node,
which fetches each from peers (`mend.py`). A database that does not open, or whose state is not the
one its head names, is moved aside, never deleted. From what LevelDB can still read of it the blocks
are replayed, each with its certificate, into a new one, up to the first that is not whole; the rest
comes from peers like any other block, or by snapshot.

Nothing of the old database is believed: a block counts by its certificate and its own execution.
What this validator signed last is in another folder, and without it there is no repair.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import structlog

from mlchain import codec
from mlchain.errors import MlchainError, NotFound, StoreCorrupted
from mlchain.ledger.block import Block, Body, Header, header_id
from mlchain.ledger.commit import Commit, verify_commit
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.history import Damage, find_damage
from mlchain.ledger.kv import LevelKeyValue, Reader, salvage
from mlchain.ledger.rows import at, read
from mlchain.ledger.snapshot import installing_height
from mlchain.ledger.store import Store
from mlchain.node.chain import Chain
from mlchain.node.wal import LastSignFile
from mlchain.vm.initial import write_genesis

log = structlog.get_logger("repair")

MAX_TOLD = 20
"""Damaged blocks named one by one."""


def repair(data: Path, genesis: Genesis, last_sign: Path | None) -> list[Damage]:
    """Make `data` a database that opens; return the damaged blocks that are left in it.

    `last_sign` is where this validator keeps its last signature, None for a node that does not
    vote.

    Raises:
        StoreCorrupted: the last signature is missing or damaged: it may not be guessed.
        ConfigError: the database is in use.
    """
    if last_sign is not None and data.exists():
        LastSignFile(last_sign, may_be_missing=False).load()
    try:
        found = examine(data, genesis)
    except StoreCorrupted as error:
        log.warning("damage", where=str(data), what=error.message)
    else:
        for damage in found[:MAX_TOLD]:
            log.warning("damage", where=str(data), what=damage.what, height=damage.height)
        log.info("repair", damaged_blocks=len(found), state="whole")
        return found
    aside = move_aside(data)
    height = _replay(aside, data, genesis)
    log.warning("repair", moved_to=str(aside), replayed_to=height, rest="from peers")
    return []


def examine(data: Path, genesis: Genesis) -> list[Damage]:
    """Return the damaged blocks of a database that opens.

    Raises:
        StoreCorrupted: it does not open, or its state is not the one of its head.
    """
    kv = LevelKeyValue(data)
    try:
        if installing_height(kv) is not None:
            return []  # catching up goes on with it
        store = Store.create_or_open(kv, genesis, lambda state: write_genesis(state, genesis))
        for _ in kv.items():  # every byte, with its checksum
            pass
        return [damage for damage in find_damage(store, 0, store.height) if damage]
    finally:
        kv.close()


def move_aside(data: Path) -> Path:
    """Rename a folder to a free name beside it and return that."""
    for number in range(1, 1000):
        aside = data.with_name(f"{data.name}.damaged-{number}")
        if not aside.exists():
            data.rename(aside)
            return aside
    raise StoreCorrupted(f"{data}: a thousand damaged copies beside it", "remove some")


def _replay(aside: Path, data: Path, genesis: Genesis) -> int:
    """Execute what is whole in `aside` into a new database; return the height reached."""
    kv = LevelKeyValue(data)
    old: LevelKeyValue | None = None
    try:
        store = Store.create_or_open(kv, genesis, lambda state: write_genesis(state, genesis))
        chain = Chain(store, None, lambda ref, commit: True)
        try:
            salvage(aside)
            old = LevelKeyValue(aside)
            for block, commit in _certified_blocks(old):
                identity = header_id(block.header)
                verify_commit(
                    commit, genesis.chain_id, chain.validators, store.height + 1, identity
                )
                chain.commit(identity, codec.encode(block), commit)
        except MlchainError as error:
            log.info("replay-ends", height=store.height, reason=error.message)
        return store.height
    finally:
        kv.close()
        if old is not None:
            old.close()


def _certified_blocks(kv: Reader) -> Iterator[tuple[Block, Commit]]:
    """Yield blocks with their certificates from height 1 on; nothing about them is checked.

    Raises:
        NotFound: the next one is not here any more.
        StoreCorrupted: the next one is damaged.
    """
    height = 0
    while True:
        height += 1
        found = [kv.get(at(letter, height)) for letter in (b"h", b"b", b"c")]
        header, body, commit = found
        if header is None or body is None or commit is None:
            raise NotFound(f"block {height} is not whole here")
        block = Block(read(Header, header, f"header {height}"), read(Body, body, f"body {height}"))
        yield block, read(Commit, commit, f"certificate {height}")
