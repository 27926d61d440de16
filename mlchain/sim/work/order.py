"""What the submitter orders: small real jobs, and how each of them must end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np

from mlchain import codec
from mlchain.crypto import digest
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.ledger.unixfs import cid_of
from mlchain.ml_runtime import Dataset, make_plan
from mlchain.sim.work.cast import make_key
from mlchain.vm.context import Payload
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.jobs import JobState, fixed_seed
from mlchain.vm.families.submit import SubmitJob

GAS = 50_000_000
ROWS, TRAIN, TEST, FEATURES = 60, 45, 15, 4


@dataclass(frozen=True)
class Order:
    """One job: its data, the request, and the state it must end in; `data` "" is had by nobody."""

    data: bytes
    register: RegisterData
    submit: SubmitJob
    end: JobState


@cache
def make_data(kind: str) -> bytes:
    """Return an encoded dataset: "blobs" that a linear model learns, or their "sums"."""
    random = np.random.default_rng(7)
    labels = np.arange(ROWS) % 3
    x = random.normal(0, 0.2, (ROWS, FEATURES)) + np.eye(3, FEATURES)[labels]
    if kind == "blobs":
        return Dataset.from_arrays(x, labels, classes=3).encode()
    return Dataset.from_arrays(x, x.sum(axis=1, keepdims=True)).encode()


@cache
def _plan(model: str, rate: str) -> bytes:
    size = {"classes": 3} if model == "softmax" else {"outputs": 1}
    plan = make_plan(model, features=FEATURES, optimiser="sgd", batch=8, rate=rate, **size)
    return plan.encode()


def _order(
    model: str, data: bytes, end: JobState, seed: bytes, tier: str, segment: int, steps: int = 16,
    rate: str = "0.5", content: bytes = b"",
) -> Order:  # fmt: skip
    content = content or cid_of(data)
    register = RegisterData(content, len(data) or 4096, ROWS, FEATURES)
    submit = SubmitJob(
        model, _plan(model, rate), content, TRAIN, TEST, steps, 2, segment, tier, 1_000_003, seed
    )
    return Order(data, register, submit, end)


def draw_orders(rng: Random, most: int) -> list[Order]:
    """Draw one to three jobs. Most have one of few fixed seeds, so that training is remembered."""

    def blobs() -> Order:
        seed = fixed_seed(rng.randrange(4)) if rng.random() < 0.8 else b""
        tier = rng.choice(("economic", "audited", "covered:2", "replicated"))
        return _order("softmax", make_data("blobs"), JobState.SETTLED, seed, tier,
                      rng.choice((2, 4, 8)))  # fmt: skip

    orders = [blobs()]
    if rng.random() < 0.3:
        orders.append(blobs())
    if rng.random() < 0.15:
        orders.append(overflow_job(rng))
    if rng.random() < 0.1:
        orders.append(absent_data(rng))
    rng.shuffle(orders)
    return orders[: most or len(orders)]


def small_slices_job(rng: Random) -> Order:
    """A job of four segments, of which everybody re-runs one chunk in eight."""
    return _order("softmax", make_data("blobs"), JobState.SETTLED, fixed_seed(rng.randrange(4)),
                  "economic", 8, steps=64)  # fmt: skip


def overflow_job(rng: Random) -> Order:
    """Row 13: its numbers leave the exact range; all must agree at which step."""
    return _order("linear", make_data("sums"), JobState.TRAPPED, fixed_seed(rng.randrange(2)),
                  "audited", 4, steps=64, rate="1000")  # fmt: skip


def absent_data(rng: Random) -> Order:
    """A job whose data nobody has."""
    content = b"\x01\x55\x12\x20" + digest("sim/absent", bytes([rng.randrange(256)]))
    return _order("softmax", b"", JobState.EXPIRED, b"", "audited", 4, content=content)


def sign_all(orders: list[Order], genesis: Genesis) -> list[bytes]:
    """Return the submitter's transactions, signed, in order."""
    payloads: list[Payload] = []
    for order in orders:
        payloads += [order.register, order.submit]
    return [sign(payload, nonce, genesis) for nonce, payload in enumerate(payloads)]


def sign(
    payload: Payload, nonce: int, genesis: Genesis, sender: str = "alice", price: int = 1
) -> bytes:
    """Return one signed transaction."""
    key = make_key(sender)
    body = TransactionBody(
        genesis.chain_id, key.public, nonce, GAS, price, payload.KIND, codec.encode(payload)
    )
    return codec.encode(sign_transaction(body, key))
