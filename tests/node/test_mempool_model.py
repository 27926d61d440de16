"""The mempool beside a plain list that follows the same rules by brute force."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from mempool_factory import ALICE, BOB, CAROL, DUTY, EVERYTHING, ORDINARY, Accounts, make, make_pool

from mlchain.errors import InvalidTransaction, Rejected
from mlchain.ledger.transaction import TransactionBody, decode_transaction
from mlchain.node.mempool import Limits


def is_duty_body(body) -> bool:
    return body.kind == DUTY


def rank(body: TransactionBody) -> tuple[bool, int]:
    return body.kind == DUTY, body.gas_price


GAP = (False, -1)
BALANCE = 3_000
"""Of each account: 100 gas at the highest price is 1,200."""


class MempoolMachine(RuleBasedStateMachine):
    """The pool beside a plain list that applies the same rules by brute force."""

    KEYS = (ALICE, BOB, CAROL)
    LIMITS = Limits(
        count=8, bytes=1500, waiting=3, sender_count=5, sender_bytes=900, sender_duties=2,
        min_price=1, lifetime=6, recheck=100,
    )  # fmt: skip
    CACHE: dict = {}  # noqa: RUF012 - signatures are slow; the same bytes each time

    @initialize()
    def start(self):
        self.accounts = Accounts()
        self.accounts.balances = {key.public: BALANCE for key in self.KEYS}
        self.pool = make_pool(self.accounts, self.LIMITS)
        self.model: list[tuple[bytes, TransactionBody, int]] = []  # in order of arrival
        self.height = 1

    def sign(self, who, nonce, price, size, kind):
        key = (who, nonce, price, size, kind)
        if key not in self.CACHE:
            self.CACHE[key] = make(self.KEYS[who], nonce, price, payload=bytes(size), kind=kind)
        return self.CACHE[key]

    def lane(self, sender, model=None):
        rows = self.model if model is None else model
        return {body.nonce: row for row in rows for body in [row[1]] if body.sender == sender}

    def ready(self, sender, model=None):
        lane, nonce = self.lane(sender, model), self.accounts.nonce(sender)
        while nonce in lane:
            nonce += 1
        return nonce

    def waiting(self):
        return sum(body.nonce > self.ready(body.sender) for _, body, _ in self.model)

    def worth(self, row, rows):
        """The least rank of a row and those before it in its lane; GAP if one is missing."""
        body = row[1]
        lane, base = self.lane(body.sender, rows), self.accounts.nonce(body.sender)
        before = [lane.get(nonce) for nonce in range(base, body.nonce + 1)]
        return GAP if None in before else min(rank(other[1]) for other in before)

    def tails(self, rows):
        """The last row of each lane with its worth and place of arrival, the least first."""
        last = [max(self.lane(key.public, rows).items(), default=None) for key in self.KEYS]
        found = [(self.worth(row[1], rows), -rows.index(row[1]), row[1]) for row in last if row]
        return sorted(found, key=lambda tail: tail[:2])

    def without(self, row, rows):
        """`rows` without `row` and its followers."""
        body = row[1]
        return [r for r in rows if r[1].sender != body.sender or r[1].nonce < body.nonce]

    def expected(self, data, body):
        """Return the model after the transaction was offered, or None if it is refused."""
        limits, base = self.LIMITS, self.accounts.nonce(body.sender)
        if any(row[0] == data for row in self.model):
            return self.model
        if not base <= body.nonce < base + limits.sender_count:
            return None
        lane = self.lane(body.sender)
        old = lane.pop(body.nonce, None)
        duties = sum(row[1].kind == DUTY for row in lane.values())
        if body.gas_price < 1 if body.kind == ORDINARY else duties >= 2:
            return None
        if old and body.gas_price < max(old[1].gas_price * 1.1, 0.01):
            return None
        if sum(len(r[0]) for r in lane.values()) + len(data) > limits.sender_bytes:
            return None
        runs = body.nonce <= self.ready(body.sender)
        if not runs and not old and self.waiting() >= limits.waiting:
            return None
        paid = sum(r[1].gas_limit * r[1].gas_price for r in lane.values())
        if body.gas_price and paid + body.gas_limit * body.gas_price > BALANCE:
            return None
        new = (data, body, self.height)
        mine = self.worth(new, [*(r for r in self.model if r is not old), new])
        rows = list(self.model)  # the replaced one keeps its place until the new one is in
        while True:
            kept = [r for r in rows if r is not old]
            size = sum(len(r[0]) for r in kept) + len(data)
            if len(kept) + 1 <= limits.count and size <= limits.bytes:
                break
            least = next(iter(self.tails(rows)), None)
            if least is None or least[0] >= mine:
                return None
            rows = [r for r in rows if r is not least[2]]
        rows = kept
        if body.sender in self.accounts.refused:
            return None
        return [*rows, (data, body, self.height)]

    @rule(
        who=st.integers(0, 2),
        ahead=st.integers(-1, 5),
        price=st.integers(0, 12),
        size=st.sampled_from([0, 0, 0, 150, 400]),
        kind=st.sampled_from([ORDINARY, ORDINARY, DUTY]),
    )
    def offer(self, who, ahead, price, size, kind):
        sender = self.KEYS[who].public
        data = self.sign(who, max(0, self.accounts.nonce(sender) + ahead), price, size, kind)
        body = decode_transaction(data).body
        expected = self.expected(data, body)
        try:
            self.pool.add(data, self.height)
        except (InvalidTransaction, Rejected):
            assert expected is None
        else:
            assert expected is not None
            self.model = expected

    @rule(who=st.integers(0, 2))
    def refuse_or_allow(self, who):
        self.accounts.refused ^= {self.KEYS[who].public}

    @rule(count=st.integers(0, 4), passes=st.integers(1, 3), gas=st.integers(0, 500))
    def commit_a_block(self, count, passes, gas):
        taken = self.pool.take(1 << 20, gas, count)
        assert len(taken) <= min(count, gas // 100)
        duties = sum(is_duty_body(decode_transaction(data).body) for data in taken)
        assert duties <= gas // 2 // 100
        touched = {}
        for data in taken:
            body = decode_transaction(data).body
            assert body.nonce == self.accounts.nonce(body.sender), "in nonce order, without gap"
            self.accounts.nonces[body.sender] = touched[body.sender] = body.nonce + 1
        self.height += passes
        self.pool.commit(touched, self.height)
        rows = [r for r in self.model if r[0] not in taken]
        for sender in touched:
            if sender in self.accounts.refused and self.ready(sender, rows) > touched[sender]:
                rows = [r for r in rows if r[1].sender != sender]
            left, lane, nonce = BALANCE, self.lane(sender, rows), touched[sender]
            while nonce in lane and left >= lane[nonce][1].gas_limit * lane[nonce][1].gas_price:
                left -= lane[nonce][1].gas_limit * lane[nonce][1].gas_price
                nonce += 1
            if nonce in lane and lane[nonce][1].gas_price:
                rows = self.without(lane[nonce], rows)
        for row in [r for r in rows if r[2] + self.LIMITS.lifetime <= self.height]:
            if row in rows:
                rows = self.without(row, rows)
        self.model = rows

    @precondition(lambda self: self.model)
    @rule()
    def take_everything(self):
        ready = [r for r in self.model if r[1].nonce < self.ready(r[1].sender)]
        taken = self.pool.take(*EVERYTHING)
        assert sorted(taken) == sorted(row[0] for row in ready)
        fronts: dict = {}
        for data in taken:
            body = decode_transaction(data).body
            fronts.setdefault(body.sender, []).append(body)
        turns = dict.fromkeys(fronts, 0)
        for data in taken:  # each one is worth what the best of all lanes' fronts is
            body = decode_transaction(data).body
            best = max(rank(lane[0]) for lane in fronts.values() if lane)
            assert rank(body) == best or (is_duty_body(body) and best[0])
            rivals = [key for key, lane in fronts.items() if lane and rank(lane[0]) == rank(body)]
            assert turns[body.sender] == min(turns[key] for key in rivals) or is_duty_body(body)
            turns[body.sender] += 1
            assert fronts[body.sender].pop(0) == body

    @invariant()
    def agrees_with_the_model(self):
        if not hasattr(self, "pool"):
            return
        assert list(self.pool) == [row[0] for row in self.model]
        assert self.pool.bytes == sum(len(row[0]) for row in self.model)
        assert self.pool.ready == len(self.model) - self.waiting()
        assert len(self.pool) <= self.LIMITS.count
        assert self.pool.bytes <= self.LIMITS.bytes


TestMempoolAgainstItsModel = MempoolMachine.TestCase
TestMempoolAgainstItsModel.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None
)
