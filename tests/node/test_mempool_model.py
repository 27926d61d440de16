"""The mempool beside a plain list that follows the same rules by brute force."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from mempool_factory import ALICE, BOB, CAROL, DUTY, EVERYTHING, ORDINARY, Accounts, is_duty, make

from mlchain.errors import InvalidTransaction, Rejected
from mlchain.ledger.transaction import TransactionBody, decode_transaction, transaction_id
from mlchain.node.mempool import Limits, Mempool


def is_duty_body(body) -> bool:
    return body.kind == DUTY


def worth(body: TransactionBody) -> tuple[bool, int]:
    return body.kind == DUTY, body.gas_price


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
        self.pool = Mempool(self.accounts.check, self.accounts.nonce, self.LIMITS, is_duty)
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
        rows = [r for r in self.model if r is not old]
        order = sorted(enumerate(self.model), key=lambda r: (worth(r[1][1]), -r[0]))
        cheap = [row for _, row in order if row[1].sender != body.sender]
        while (
            len(rows) + 1 > limits.count or sum(len(r[0]) for r in rows) + len(data) > limits.bytes
        ):
            victim = next((row for row in cheap if row in rows), None)
            if not runs or not victim or worth(victim[1]) >= worth(body):
                return None
            rows = self.without(victim, rows)
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
        self.pool.commit(map(transaction_id, taken), touched, self.height)
        rows = [r for r in self.model if r[0] not in taken]
        for sender in touched:
            if sender in self.accounts.refused and self.ready(sender, rows) > touched[sender]:
                rows = [r for r in rows if r[1].sender != sender]
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
        for data in taken:  # each one is worth what the best of all lanes' fronts is
            body = decode_transaction(data).body
            best = max(worth(lane[0]) for lane in fronts.values() if lane)
            assert worth(body) == best or (is_duty_body(body) and best[0])
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
