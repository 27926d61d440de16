"""The mempool: signed transactions that wait for a block. A data structure; it knows no clock.

Each sender has a lane, ordered by nonce. A transaction is *ready* when every nonce between the
account's and its own is in the lane; behind a gap it *waits*: the network promises no order.
Blocks are filled from the fronts of the lanes, the best gas price first and senders in turn where
prices are equal, so an expensive transaction never overtakes a cheap one of its own sender. Duties
of members (commits of segments, claims of fraud) come before all of them and are free: nobody can
outbid the evidence.

A full mempool gives up the last transaction of the lane that is worth least, never one before those
that need it; and what is worth no more finds no room. What a sender has here it must be able to
pay, all together. Whatever else is dropped takes those after it in its lane along.

Every number that an outsider can drive up has a cap in `Limits`.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mlchain.errors import InvalidTransaction, Rejected
from mlchain.ledger.transaction import (
    Opened,
    Transaction,
    open_transaction,
    verify_transaction,
)
from mlchain.node.lane import NOTHING, Entry, Lane, Worth, make_entry

ENTRY_OVERHEAD_BYTES = 5
"""Most bytes that msgpack adds to one transaction inside a block."""

Row = tuple[Worth, int, bytes]
"""Worth, negative sequence and sender of the last transaction in a lane: the least leaves first."""

REPLACEMENT_PERCENT = 10
"""A replacement pays at least this much more per gas, or gossip could be driven for free."""


def max_duty_gas(max_block_gas: int) -> int:
    """Return how much of a block's gas duties may take: being free, they must leave room."""
    return max_block_gas // 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps of a mempool. Bytes are those of encoded transactions, lifetimes are heights."""

    count: int = 20_000
    bytes: int = 64 << 20
    waiting: int = 2_000
    """Transactions behind a gap, all senders together: nothing obliges anybody to close a gap."""
    sender_count: int = 2_048
    sender_bytes: int = 8 << 20
    sender_duties: int = 64
    """Free transactions of one member: it owes a few for each block at most."""
    min_price: int = 1
    """Micro-credits per gas that everything but duties must offer: a price on flooding."""
    lifetime: int = 100
    recheck: int = 256
    """Transactions of one lane that are checked again after a block: about its next share."""
    verified: int = 65_536
    """Remembered ids of transactions whose signature was found good."""
    replaced: int = 4_096
    """Remembered ids of transactions that another took the place of."""


class VerifiedIds:
    """The ids of transactions whose signature held, the latest `limit` of them.

    An id covers the signature, so the same body under another signature is another id.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: OrderedDict[bytes, None] = OrderedDict()  # a dict gets slow where it is emptied

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._ids

    def add(self, identity: bytes) -> None:
        """Remember `identity`; the oldest one may be forgotten for it."""
        self._ids[identity] = None
        if len(self._ids) > self._limit:
            self._ids.popitem(last=False)


class Mempool:
    """Transactions of one node that are not yet in a block.

    Args:
        check: raises InvalidTransaction for what the present state would refuse (role, balance,
            payload). It is not asked about the nonce and the signature.
        nonce_of: the nonce of an account in the present state.
        is_duty: tells by its kind whether a transaction is a duty, which `check` allows to
            members only.
        balance_of: what an account can pay in the present state, in micro-credits.
    """

    def __init__(
        self,
        check: Callable[[Transaction], None],
        nonce_of: Callable[[bytes], int],
        limits: Limits | None = None,
        is_duty: Callable[[Transaction], bool] = lambda transaction: False,
        balance_of: Callable[[bytes], int] = lambda account: 2**63,
    ) -> None:
        self.limits = limits or Limits()
        self.verified = VerifiedIds(self.limits.verified)
        self.bytes = 0
        self._check = check
        self._nonce_of = nonce_of
        self._is_duty = is_duty
        self._balance_of = balance_of
        self._entries: dict[bytes, Entry] = {}  # by id; insertion order is order of arrival
        self._opened: dict[bytes, Opened] = {}  # by encoding, of the same
        self._lanes: dict[bytes, Lane] = {}
        self._cheapest: list[Row] = []  # heap with stale rows, for eviction
        self._replaced: dict[bytes, bytes] = {}
        self._waiting = 0
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._entries

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the encoded transactions in order of arrival."""
        return (entry.data for entry in self._entries.values())

    @property
    def ready(self) -> int:
        """Number of transactions that a block could take: this is what demands a block."""
        return len(self._entries) - self._waiting

    def get(self, identity: bytes) -> bytes | None:
        """Return the encoded transaction of this id, if it is here."""
        entry = self._entries.get(identity)
        return entry.data if entry else None

    def replacement(self, identity: bytes) -> bytes | None:
        """Return the id of the transaction that took the place of `identity` here, if one did."""
        return self._replaced.get(identity)

    def next_nonce(self, sender: bytes) -> int:
        """Return the nonce for the sender's next transaction, after all that are ready."""
        lane = self._lanes.get(sender)
        return lane.base + lane.ready if lane else self._nonce_of(sender)

    def open(self, data: bytes) -> Opened:
        """Decode a transaction; what waits here was decoded when it came.

        Raises:
            CodecError: malformed.
        """
        entry = self._opened.get(data)
        if entry is not None:
            return entry
        opened = open_transaction(data)
        return opened._replace(is_verified=True) if opened.identity in self.verified else opened

    def verify(self, opened: Opened) -> None:
        """Check a signature, unless that was done before.

        Raises:
            InvalidSignature: the sender did not sign it.
        """
        if not opened.is_verified and opened.identity not in self.verified:
            verify_transaction(opened.transaction)
            self.verified.add(opened.identity)

    def add(self, data: bytes, height: int, opened: Opened | None = None) -> bool:
        """Admit an encoded transaction at `height`; return False if it is here already.

        The cheap refusals come first, the signature next, the state last. `opened` is what `open`
        gave, if it was asked before.

        Raises:
            CodecError, InvalidSignature: not a transaction, or not the sender's.
            InvalidTransaction: its nonce is used, or the present state refuses it.
            Rejected: no room for it, by the caps of this node.
        """
        if data in self._opened:
            return False
        opened = opened or self.open(data)
        transaction = opened.transaction
        is_duty = self._is_duty(transaction)
        entry = make_entry(opened, data, height, self._sequence, is_duty)
        lane = self._lanes.get(entry.sender) or Lane(self._nonce_of(entry.sender))
        replaced = self._admit(lane, entry)
        victims = self._make_room(lane, entry, replaced)
        self.verify(opened)
        self._check(transaction)
        if replaced is not None:
            self._remove(replaced)
            self._remember(replaced, entry)
        for victim in victims:
            self._remove(victim)
        self._sequence += 1
        self._put(lane, entry)
        return True

    def front(self, sender: bytes) -> Transaction | None:
        """Return the sender's transaction that a block could take next."""
        lane = self._lanes.get(sender)
        return lane.entries[lane.base].transaction if lane and lane.ready else None

    def take(self, max_bytes: int, max_gas: int, max_count: int) -> list[bytes]:
        """Return transactions for a block, duties and best prices first; they stay until `commit`.

        A lane whose next transaction does not fit is left out from there on.
        """
        taken: list[bytes] = []
        duty_gas = max_duty_gas(max_gas)
        fronts = [self._front(lane, 0) for lane in self._lanes.values() if lane.ready]
        heapq.heapify(fronts)
        while fronts and len(taken) < max_count:
            entry = heapq.heappop(fronts)[-1]
            size = len(entry.data) + ENTRY_OVERHEAD_BYTES
            gas = entry.transaction.body.gas_limit
            if size > max_bytes or gas > max_gas or (entry.is_duty and gas > duty_gas):
                continue
            max_bytes -= size
            max_gas -= gas
            duty_gas -= gas if entry.is_duty else 0
            taken.append(entry.data)
            lane = self._lanes[entry.sender]
            turn = entry.nonce + 1 - lane.base
            if turn < lane.ready:
                heapq.heappush(fronts, self._front(lane, turn))
        return taken

    def commit(self, nonces: Mapping[bytes, int], height: int) -> None:
        """Follow a block: drop what it includes, what it makes stale and what is too old.

        Args:
            nonces: the new nonce of each account that sent a transaction in the block: it took
                what is below. Only their lanes are checked again, and `nonce_of` and `check` must
                answer for the new state.
            height: the block's height.
        """
        for sender, nonce in nonces.items():
            if sender in self._lanes:
                self._rebase(self._lanes[sender], nonce)
        self._expire(height)

    def _admit(self, lane: Lane, entry: Entry) -> Entry | None:
        """Return the transaction that `entry` replaces; raise if its sender may not add it."""
        if entry.nonce < lane.base:
            raise InvalidTransaction(
                f"nonce {entry.nonce} is used, the account is at {lane.base}",
                "sign it again with the account's next nonce",
            )
        if entry.price < self.limits.min_price and not entry.is_duty:
            raise Rejected(
                f"gas price {entry.price}, at least {self.limits.min_price} is taken",
                f"raise the gas price to {self.limits.min_price}",
            )
        if entry.nonce >= lane.base + self.limits.sender_count:
            raise Rejected(
                f"nonce {entry.nonce} is too far ahead of the account's {lane.base}",
                f"at most {self.limits.sender_count} of one sender wait: wait for the next block",
            )
        old = lane.entries.get(entry.nonce)
        least = -(-old.price * (100 + REPLACEMENT_PERCENT) // 100) if old else 0
        if old and entry.price < max(least, 1):
            raise Rejected(
                f"nonce {entry.nonce} waits already with gas price {old.price}",
                f"raise the gas price to {max(least, 1)} to replace it, or use the next nonce",
            )
        if entry.is_duty and lane.duties - bool(old and old.is_duty) >= self.limits.sender_duties:
            raise Rejected("this member has enough duties in the mempool", "wait for a block")
        if lane.bytes - (len(old.data) if old else 0) + len(entry.data) > self.limits.sender_bytes:
            raise Rejected("this sender fills its share of the mempool", "wait for the next block")
        cost = lane.cost - (old.cost if old else 0) + entry.cost
        if entry.cost and cost > (balance := self._balance_of(entry.sender)):
            raise InvalidTransaction(
                f"balance {balance} cannot pay {cost}: the gas of all that waits for this account",
                "lower gas limit or price, or wait for the next block",
            )
        return old

    def _make_room(self, lane: Lane, entry: Entry, replaced: Entry | None) -> list[Entry]:
        """Return what must leave for `entry`, besides the one that it replaces."""
        worth = lane.offer(entry)
        if worth == NOTHING and not replaced and self._waiting >= self.limits.waiting:
            raise Rejected("too many transactions behind a gap", "send the missing nonce first")
        count = len(self._entries) + (replaced is None) - self.limits.count
        size = self.bytes + len(entry.data) - self.limits.bytes
        size -= len(replaced.data) if replaced else 0
        if count <= 0 and size <= 0:
            return []
        victims: list[Entry] = []
        popped: list[Row] = []
        tails: list[Row] = []  # of lanes that lose more than one
        taken: dict[bytes, int] = {}
        try:
            while count > 0 or size > 0:
                row = self._pop_cheapest(popped, tails)
                if row is None or row[0] >= worth:
                    raise Rejected("the mempool is full", self._advice(lane, entry, row))
                sender = row[2]
                other, place = self._lanes[sender], taken.get(sender, 0) + 1
                taken[sender] = place
                if place < len(other.order):
                    heapq.heappush(tails, self._row(other, place))
                victim = other.entries[other.order[-place]]
                if victim is not replaced:
                    victims.append(victim)
                    count -= 1
                    size -= len(victim.data)
        finally:
            for row in popped:
                heapq.heappush(self._cheapest, row)
        return victims

    def _advice(self, lane: Lane, entry: Entry, row: Row | None) -> str:
        """Tell what would get `entry` into a full mempool, whose least worth is `row`'s."""
        worth = lane.offer(entry)
        if worth == NOTHING and entry.nonce != lane.base:
            return "send the missing nonce first"
        if row is None or row[0][0]:
            return "wait for the next block"
        if worth < entry.rank:
            return (
                f"an earlier nonce of yours offers {worth[1]}: replace it by one at {row[0][1] + 1}"
            )
        return f"raise the gas price to {row[0][1] + 1}, or wait"

    def _pop_cheapest(self, popped: list[Row], tails: list[Row]) -> Row | None:
        """Return the least row, the latest of equals; one of the heap goes to `popped`."""
        while self._cheapest and (not tails or self._cheapest[0] < tails[0]):
            row = heapq.heappop(self._cheapest)
            lane = self._lanes.get(row[2])
            is_stale = lane is None or row != self._row(lane, 0)
            if not is_stale and row not in popped[-1:]:  # a lane may have left the same row twice
                popped.append(row)
                return row
        return heapq.heappop(tails) if tails else None

    @staticmethod
    def _row(lane: Lane, place: int) -> Row:
        """Return the row of a lane that has lost its `place` last transactions."""
        entry = lane.entries[lane.order[-1 - place]]
        return (lane.worth(entry.nonce), -entry.sequence, entry.sender)

    def _remember(self, replaced: Entry, entry: Entry) -> None:
        self._replaced[replaced.identity] = entry.identity
        if len(self._replaced) > self.limits.replaced:
            del self._replaced[next(iter(self._replaced))]

    def _put(self, lane: Lane, entry: Entry) -> None:
        self._lanes[entry.sender] = lane
        self._waiting -= lane.waiting
        lane.put(entry)
        self._waiting += lane.waiting
        self._entries[entry.identity] = entry
        self._opened[entry.data] = Opened(entry.identity, entry.transaction, True)
        self.bytes += len(entry.data)
        self._note(lane)

    def _remove(self, entry: Entry) -> None:
        lane = self._lanes[entry.sender]
        self._waiting -= lane.waiting
        lane.remove(entry)
        self._waiting += lane.waiting
        self._forget(entry)
        if not lane.entries:
            del self._lanes[entry.sender]
        else:
            self._note(lane)

    def _forget(self, entry: Entry) -> None:
        """Take a transaction out that has left its lane."""
        del self._entries[entry.identity], self._opened[entry.data]
        self.bytes -= len(entry.data)

    def _note(self, lane: Lane) -> None:
        """Keep the heap in step with a lane that changed."""
        heapq.heappush(self._cheapest, self._row(lane, 0))
        if len(self._cheapest) > 2 * len(self._lanes) + 64:  # mostly stale rows: make it anew
            self._cheapest = [self._row(other, 0) for other in self._lanes.values()]
            heapq.heapify(self._cheapest)

    def _rebase(self, lane: Lane, nonce: int) -> None:
        self._waiting -= lane.waiting
        gone = lane.rebase(nonce)
        self._waiting += lane.waiting
        for entry in gone:
            self._forget(entry)
        if not lane.entries:
            del self._lanes[gone[0].sender]
            return
        self._note(lane)
        left = self._balance_of(lane.entries[lane.order[0]].sender)
        for step in range(lane.ready):
            entry = lane.entries[nonce + step]
            left -= entry.cost
            try:
                if left < 0 and entry.cost:
                    raise InvalidTransaction("the balance no longer pays for it")
                if step < self.limits.recheck:
                    self._check(entry.transaction)
            except InvalidTransaction:
                self._drop(entry)
                break

    def _expire(self, height: int) -> None:
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if oldest.height + self.limits.lifetime > height:
                break
            self._drop(oldest)

    def _drop(self, entry: Entry) -> None:
        for follower in self._lanes[entry.sender].from_nonce(entry.nonce):
            self._remove(follower)

    @staticmethod
    def _front(lane: Lane, turn: int) -> tuple[bool, int, int, int, Entry]:
        """Return where the lane's next transaction stands, after `turn` of it were taken."""
        entry = lane.entries[lane.base + turn]
        price = 0 if entry.is_duty else entry.price  # no duty outbids another, either
        return (not entry.is_duty, -price, turn, entry.sequence, entry)
