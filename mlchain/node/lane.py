"""One sender's transactions in the mempool, in nonce order."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlchain.ledger.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Entry:
    """A transaction in the mempool. It came at `height`, as number `sequence` of all.

    `is_duty`: a member owes it to the chain and pays nothing (a segment's commit, a claim).
    """

    identity: bytes
    data: bytes
    transaction: Transaction
    height: int
    sequence: int
    is_duty: bool

    @property
    def sender(self) -> bytes:
        """Account that signed it."""
        return self.transaction.body.sender

    @property
    def nonce(self) -> int:
        """Its place among the sender's transactions."""
        return self.transaction.body.nonce

    @property
    def price(self) -> int:
        """Micro-credits it pays per unit of gas."""
        return self.transaction.body.gas_price

    @property
    def rank(self) -> tuple[bool, int]:
        """What it is worth to a block: duties first, then by price."""
        return (self.is_duty, self.price)


@dataclass(slots=True)
class Lane:
    """Transactions of one sender by nonce; the `ready` first from `base` have no gap before them.

    `base` is the nonce of the account, `bytes` the size of all transactions together, `duties`
    the number of those that are duties.
    """

    base: int
    ready: int = 0
    bytes: int = 0
    duties: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Number of transactions behind a gap."""
        return len(self.entries) - self.ready

    def put(self, entry: Entry) -> None:
        """Add a transaction at a nonce that is free."""
        assert entry.nonce >= self.base and entry.nonce not in self.entries, "refused before"
        self.entries[entry.nonce] = entry
        self.bytes += len(entry.data)
        self.duties += entry.is_duty
        self._extend()

    def remove(self, entry: Entry) -> None:
        """Take a transaction out; those after it wait from now on."""
        del self.entries[entry.nonce]
        self.bytes -= len(entry.data)
        self.duties -= entry.is_duty
        self.ready = min(self.ready, max(0, entry.nonce - self.base))

    def rebase(self, base: int) -> None:
        """Follow the account to a new nonce; what is below has been removed."""
        self.base, self.ready = base, 0
        self._extend()

    def from_nonce(self, nonce: int) -> list[Entry]:
        """Return the transactions at `nonce` and after it."""
        return [entry for at, entry in self.entries.items() if at >= nonce]

    def _extend(self) -> None:
        while self.base + self.ready in self.entries:
            self.ready += 1
