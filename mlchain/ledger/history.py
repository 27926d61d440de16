"""Whether all blocks that should be in a store are there, whole and of one chain; and what is not.

Opening a store looks at its state and its last block only: this reads everything that is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mlchain.errors import NotFound, StoreCorrupted
from mlchain.ledger.block import header_id
from mlchain.ledger.kv import Unreadable
from mlchain.ledger.rows import HINT
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import transaction_id


class Damage(NamedTuple):
    """A block of which something is not what was written."""

    height: int
    what: str


def find_damage(store: Store, first: int, last: int) -> Iterator[Damage | None]:
    """Look at the blocks `first` to `last`; yield for each what is wrong with it, None if nothing.

    A lookup of one is a few reads and hashes, so a caller can do something else in between.

    Raises:
        Unreadable: it is not a row that is wrong but the database under it.
    """
    parent = b""
    for height in range(max(first, store.kept), last + 1):
        try:
            block, receipts = store.block(height), store.receipts(height)
            header, id_ = block.header, header_id(block.header)
            if height:
                store.commit(height)
            voting = store.validators_after(height).hash
            places = [store.find_transaction(transaction_id(t)) for t in block.body.transactions]
            named = [receipt.transaction for receipt in receipts]
            wanted = {
                "set of voters": header.next_validators_hash == voting,
                "parent": header.parent == (parent or header.parent),
                "transactions": places == [(height, index) for index in range(len(named))],
            }
            wrong = [name for name, holds in wanted.items() if not holds]
            what = f"block {height}: another {wrong[0]} than was committed" if wrong else ""
        except Unreadable:
            raise
        except NotFound:  # pruned meanwhile
            continue
        except StoreCorrupted as error:
            what, id_ = error.message, b""
        parent = id_
        yield Damage(height, what) if what else None


def check_history(store: Store) -> None:
    """Return if every block that is kept is there, whole, and child of the one before.

    Raises:
        StoreCorrupted: names the first that is not.
    """
    for damage in find_damage(store, 0, store.height):
        if damage:
            raise StoreCorrupted(damage.what, HINT)
