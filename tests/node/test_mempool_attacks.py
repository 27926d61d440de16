"""What floods and tricks do to the mempool, each beside the same with its defence off."""

from __future__ import annotations

import pytest
from mempool_factory import BOB, EVERYTHING, make, new_pool

from mlchain import crypto
from mlchain.errors import InvalidTransaction, Rejected
from mlchain.ledger.transaction import transaction_id
from mlchain.node import mempool as mempool_module
from mlchain.node.lane import Lane

MALLORY = crypto.SecretKey(bytes([66]) * 32)
CROWD = [crypto.SecretKey(crypto.digest("crowd", bytes([i]))) for i in range(60)]


def offer(pool, *transactions: bytes) -> int:
    """Return how many of them the pool took in."""
    taken = 0
    for data in transactions:
        try:
            taken += pool.add(data, 1)
        except (Rejected, InvalidTransaction):
            continue
    return taken


def value_by_own_price(monkeypatch) -> None:
    """Switch off that a transaction is worth no more than those before it."""
    monkeypatch.setattr(Lane, "worth", lambda self, nonce: self.entries[nonce].rank)
    monkeypatch.setattr(Lane, "offer", lambda self, entry: entry.rank)


def test_one_sender_floods_and_all_others_get_in():
    pool, _ = new_pool(count=100, sender_count=20)
    assert offer(pool, *(make(MALLORY, nonce, 10) for nonce in range(200))) == 20
    assert offer(pool, *(make(key, 0, 10) for key in CROWD)) == len(CROWD)


def test_control_without_a_quota_one_sender_keeps_all_others_out():
    pool, _ = new_pool(count=100, sender_count=1000)
    assert offer(pool, *(make(MALLORY, nonce, 10) for nonce in range(200))) == 100
    assert offer(pool, *(make(key, 0, 10) for key in CROWD)) == 0


def test_many_accounts_flood_and_who_pays_more_gets_in_and_comes_first():
    pool, _ = new_pool(count=100, sender_count=20)
    offer(pool, *(make(key, nonce, 10) for key in CROWD for nonce in range(4)))
    assert len(pool) == 100
    assert offer(pool, make(BOB, 0, 10)) == 0
    honest = make(BOB, 0, 11)
    assert offer(pool, honest) == 1
    assert pool.take(*EVERYTHING)[0] == honest
    assert len(pool) == 100 and pool.bytes <= pool.limits.bytes


@pytest.mark.parametrize("is_defended", [True, False])
def test_gaps_at_any_price_keep_nobody_out_who_can_run(monkeypatch, is_defended):
    if not is_defended:
        value_by_own_price(monkeypatch)
    pool, _ = new_pool(count=50, waiting=50)
    assert offer(pool, *(make(key, 5, 10**6) for key in CROWD)) == 50
    assert offer(pool, make(BOB, 0, 1)) == is_defended


@pytest.mark.parametrize("is_defended", [True, False])
def test_a_dear_transaction_behind_one_that_never_runs_displaces_nobody(monkeypatch, is_defended):
    if not is_defended:
        value_by_own_price(monkeypatch)
    pool, _ = new_pool(count=61, sender_count=100)
    honest = [make(key, 0, 5) for key in CROWD]
    offer(pool, *honest, make(MALLORY, 0, 1))
    offer(pool, *(make(MALLORY, nonce, 10**6) for nonce in range(1, 60)))
    kept = sum(transaction_id(data) in pool for data in honest)
    assert (kept == len(honest)) is is_defended


@pytest.mark.parametrize(("balance", "places"), [(100 * 10, 1), (10**18, 20)])
def test_an_account_that_can_pay_for_one_takes_one_place(balance, places):
    pool, accounts = new_pool(sender_count=20)
    accounts.balances[MALLORY.public] = balance
    assert offer(pool, *(make(MALLORY, nonce, 10, gas=100) for nonce in range(20))) == places


@pytest.mark.parametrize("percent", [10, 0])
def test_every_replacement_raises_what_its_sender_pays_so_gossip_is_not_free(monkeypatch, percent):
    monkeypatch.setattr(mempool_module, "REPLACEMENT_PERCENT", percent)
    pool, accounts = new_pool()
    accounts.balances[MALLORY.public] = 100 * 1_000
    price, taken = 1, 0
    for churn in range(300):
        data = make(MALLORY, 0, price, gas=100, payload=churn.to_bytes(2, "big"))
        if offer(pool, data):
            taken += 1
        price = max(price + 1, -(-price * 110 // 100)) if percent else 1
        if price > 1_000:
            break
    assert taken == (300 if percent == 0 else churn + 1)
    assert (taken < 60) is (percent == 10), "log of the balance, not as many as one likes"


def test_dust_is_refused_before_its_signature_is_looked_at(monkeypatch):
    monkeypatch.setattr(mempool_module, "verify_transaction", lambda transaction: pytest.fail())
    pool, _ = new_pool(min_price=2)
    with pytest.raises(Rejected) as refusal:
        pool.add(make(MALLORY, 0, 1), 1)
    assert refusal.value.hint == "raise the gas price to 2"
