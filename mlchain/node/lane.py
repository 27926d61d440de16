"""One sender's transactions in the mempool, in nonce order."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import NamedTuple

from mlchain.ledger.transaction import Opened, Transaction

Worth = tuple[bool, int]
"""What a transaction is worth to a block: whether it is a duty, then its price."""

NOTHING: Worth = (False, -1)
"""Of a transaction behind a gap."""


class Entry(NamedTuple):
    """A transaction in the mempool. It came at `height`, as number `sequence` of all.

    `is_duty`: a member owes it to the chain and pays nothing (a segment's commit, a claim).
    `price` is in micro-credits per unit of gas, `cost` what its gas costs at most; `rank` is what
    it is worth by itself: duties first, then by price.
    """

    identity: bytes
    data: bytes
    transaction: Transaction
    height: int
    sequence: int
    is_duty: bool
    sender: bytes
    nonce: int
    price: int
    cost: int
    rank: Worth


def make_entry(opened: Opened, data: bytes, height: int, sequence: int, is_duty: bool) -> Entry:
    """Return the entry of a transaction that came at `height`, as number `sequence` of all."""
    body = opened.transaction.body
    price = body.gas_price
    return Entry(
        opened.identity, data, opened.transaction, height, sequence, is_duty, body.sender,
        body.nonce, price, body.gas_limit * price, (is_duty, price),
    )  # fmt: skip


@dataclass(slots=True)
class Lane:
    """Transactions of one sender by nonce; the `ready` first from `base` have no gap before them.

    `base` is the nonce of the account; `bytes`, `cost` (most that their gas may cost) and `duties`
    are sums over all transactions.

    A transaction cannot run before those in front of it, so it is worth no more than the least of
    them: `floors` has this number for each ready one. It never rises along the lane, hence the last
    transaction is the one that a full mempool misses least.
    """

    base: int
    bytes: int = 0
    cost: int = 0
    duties: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    floors: list[Worth] = field(default_factory=list)

    @property
    def ready(self) -> int:
        """Number of transactions that a block could take, one after the other."""
        return len(self.floors)

    @property
    def waiting(self) -> int:
        """Number of transactions behind a gap."""
        return len(self.entries) - len(self.floors)

    def worth(self, nonce: int) -> Worth:
        """Return what the transaction at `nonce` is worth, with those before it."""
        place = nonce - self.base
        return self.floors[place] if place < len(self.floors) else NOTHING

    def offer(self, entry: Entry) -> Worth:
        """Return what `entry` would be worth in this lane."""
        place = entry.nonce - self.base
        if place > len(self.floors):
            return NOTHING
        return min(self.floors[place - 1], entry.rank) if place else entry.rank

    def put(self, entry: Entry) -> None:
        """Add a transaction at a nonce that is free."""
        assert entry.nonce >= self.base and entry.nonce not in self.entries, "refused before"
        self.entries[entry.nonce] = entry
        insort(self.order, entry.nonce)
        self._count(entry, 1)
        self._extend()

    def remove(self, entry: Entry) -> None:
        """Take a transaction out; those after it wait from now on."""
        del self.entries[entry.nonce]
        del self.order[bisect_left(self.order, entry.nonce)]
        self._count(entry, -1)
        del self.floors[max(0, entry.nonce - self.base) :]

    def rebase(self, base: int) -> list[Entry]:
        """Follow the account to a new nonce; remove and return what is below it."""
        end = bisect_left(self.order, base)
        gone = [self.entries.pop(nonce) for nonce in self.order[:end]]
        del self.order[:end]
        for entry in gone:
            self._count(entry, -1)
        self.base = base
        self.floors.clear()
        self._extend()
        return gone

    def from_nonce(self, nonce: int) -> list[Entry]:
        """Return the transactions at `nonce` and after it, the last one first."""
        return [self.entries[at] for at in reversed(self.order[bisect_left(self.order, nonce) :])]

    def _count(self, entry: Entry, sign: int) -> None:
        self.bytes += sign * len(entry.data)
        self.cost += sign * entry.cost
        self.duties += sign * entry.is_duty

    def _extend(self) -> None:
        while (entry := self.entries.get(self.base + len(self.floors))) is not None:
            self.floors.append(min(self.floors[-1], entry.rank) if self.floors else entry.rank)
