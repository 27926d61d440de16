"""The mempool: lanes in nonce order, best price first, caps held, each signature checked once."""

from __future__ import annotations

import pytest
from mempool_factory import (
    ALICE,
    BOB,
    CAROL,
    DUTY,
    EVERYTHING,
    Accounts,
    make,
    new_pool,
    unsigned,
)

from mlchain.errors import CodecError, InvalidSignature, InvalidTransaction, Rejected
from mlchain.ledger import transaction as transaction_module
from mlchain.ledger.transaction import transaction_id
from mlchain.node import mempool as mempool_module
from mlchain.node.mempool import ENTRY_OVERHEAD_BYTES, Limits, Mempool


def test_a_sender_s_transactions_leave_in_nonce_order_however_they_came():
    pool, _ = new_pool()
    lane = [make(nonce=n, price=n + 1) for n in range(4)]
    for data in reversed(lane):
        assert pool.add(data, 1)
    assert pool.take(*EVERYTHING) == lane


def test_lanes_are_ordered_by_the_gas_price_of_their_fronts():
    pool, _ = new_pool()
    cheap, dear_behind_cheap = make(ALICE, 0, 1), make(ALICE, 1, 99)
    middle, equal_but_later = make(BOB, 0, 5), make(CAROL, 0, 5)
    for data in (cheap, dear_behind_cheap, middle, equal_but_later):
        pool.add(data, 1)
    assert pool.take(*EVERYTHING) == [middle, equal_but_later, cheap, dear_behind_cheap]


def test_a_transaction_behind_a_gap_waits():
    pool, accounts = new_pool()
    accounts.nonces[ALICE.public] = 7
    pool.add(make(nonce=8), 1)
    assert (len(pool), pool.ready, pool.take(*EVERYTHING)) == (1, 0, [])
    pool.add(make(nonce=7), 1)
    assert pool.ready == 2
    assert len(pool.take(*EVERYTHING)) == 2
    assert pool.next_nonce(ALICE.public) == 9


def test_the_same_transaction_is_taken_in_once():
    pool, accounts = new_pool()
    assert pool.add(make(), 1) is True
    assert pool.add(make(), 1) is False
    assert (len(pool), accounts.checked) == (1, 1)


def test_a_used_nonce_is_refused():
    pool, accounts = new_pool()
    accounts.nonces[ALICE.public] = 3
    with pytest.raises(InvalidTransaction, match="nonce 2 is used"):
        pool.add(make(nonce=2), 1)


@pytest.mark.parametrize(("price", "replaces"), [(10, False), (109, False), (110, True)])
def test_a_replacement_pays_a_tenth_more(price, replaces):
    pool, _ = new_pool()
    pool.add(make(price=100, payload=b"old"), 1)
    new = make(price=price, payload=b"new")
    if replaces:
        assert pool.add(new, 1)
        assert pool.take(*EVERYTHING) == [new]
        assert pool.bytes == len(new)
    else:
        with pytest.raises(Rejected, match="waits already") as refusal:
            pool.add(new, 1)
        assert refusal.value.hint.startswith("raise the gas price to 110 ")


def test_a_transaction_that_pays_too_little_is_refused_unless_it_is_a_duty():
    pool, _ = new_pool(min_price=3)
    with pytest.raises(Rejected, match="gas price 2, at least 3"):
        pool.add(make(price=2), 1)
    assert pool.add(make(price=3), 1)
    assert pool.add(make(BOB, price=0, kind=DUTY), 1)


def test_nobody_outbids_a_duty():
    pool, _ = new_pool(count=2)
    flood = [make(ALICE, nonce, 10**6) for nonce in range(2)]
    for data in flood:
        pool.add(data, 1)
    claim = make(BOB, 0, 0, kind=DUTY)
    assert pool.add(claim, 1), "into a full pool"
    assert pool.take(1 << 20, 200, 1) == [claim], "and first into the block"
    pool.add(make(BOB, 1, 0, kind=DUTY), 1)
    with pytest.raises(Rejected, match="full"):
        pool.add(make(CAROL, 0, 10**9), 1)


def test_treated_like_any_other_transaction_a_duty_would_be_outbid():
    accounts = Accounts()
    pool = Mempool(accounts.check, accounts.nonce, Limits(count=2, min_price=0))
    for nonce in range(2):
        pool.add(make(ALICE, nonce, 1), 1)
    with pytest.raises(Rejected, match="full"):
        pool.add(make(BOB, 0, 0, kind=DUTY), 1)


def test_a_member_floods_nobody_with_free_duties():
    pool, _ = new_pool(sender_duties=2)
    for nonce in range(2):
        pool.add(make(ALICE, nonce, 0, kind=DUTY), 1)
    with pytest.raises(Rejected, match="enough duties"):
        pool.add(make(ALICE, 2, 0, kind=DUTY), 1)
    assert pool.add(make(ALICE, 0, 1, kind=DUTY), 1), "control: a replacement adds none"
    assert pool.add(make(ALICE, 2, 1), 1), "control: one that pays is another matter"


def test_a_free_transaction_is_replaced_only_by_one_that_pays():
    pool, _ = new_pool(min_price=0)
    pool.add(make(price=0), 1)
    with pytest.raises(Rejected):
        pool.add(make(price=0, payload=b"other"), 1)
    assert pool.add(make(price=1), 1)


def test_a_full_pool_prefers_what_pays_more():
    pool, _ = new_pool(count=2)
    cheap, cheaper = make(ALICE, 0, 5), make(BOB, 0, 4)
    pool.add(cheap, 1)
    pool.add(cheaper, 1)
    with pytest.raises(Rejected, match="full"):
        pool.add(make(CAROL, 0, 4), 1)
    dear = make(CAROL, 0, 6)
    assert pool.add(dear, 1)
    assert pool.take(*EVERYTHING) == [dear, cheap]


def test_the_last_of_a_lane_leaves_first_and_never_one_that_others_need():
    pool, _ = new_pool(count=3)
    lane = [make(ALICE, nonce, price) for nonce, price in enumerate((1, 50, 50))]
    for data in lane:
        pool.add(data, 1)
    assert pool.add(make(BOB, 0, 2), 1)
    assert pool.add(make(BOB, 1, 2), 1)
    assert [data for data in pool if data in lane] == lane[:1]
    assert (len(pool), pool.ready) == (3, 3)


def test_a_dear_transaction_behind_a_cheap_one_displaces_no_more_than_the_cheap_one_would():
    pool, _ = new_pool(count=2)
    pool.add(make(ALICE, 0, 1), 1)
    pool.add(make(BOB, 0, 5), 1)
    with pytest.raises(Rejected, match="full") as refusal:
        pool.add(make(ALICE, 1, 10**6), 1)
    assert refusal.value.hint == "an earlier nonce of yours offers 1: replace it by one at 2"
    assert pool.add(make(CAROL, 0, 10**6), 1), "control: alone it does"


def test_what_waits_behind_a_gap_leaves_before_all_that_could_run():
    pool, _ = new_pool(count=2)
    pool.add(make(ALICE, 3, 10**6), 1)
    pool.add(make(BOB, 0, 1), 1)
    assert pool.add(make(CAROL, 0, 1), 1)
    assert pool.ready == len(pool) == 2


@pytest.mark.parametrize("offered", [4, 5])
def test_a_refusal_names_the_price_that_gets_in(offered):
    pool, _ = new_pool(count=1)
    pool.add(make(ALICE, 0, 4), 1)
    if offered == 4:
        with pytest.raises(Rejected, match="full") as refusal:
            pool.add(make(BOB, 0, offered), 1)
        assert refusal.value.hint == "raise the gas price to 5, or wait"
    else:
        assert pool.add(make(BOB, 0, offered), 1)


def test_a_replaced_transaction_is_remembered_with_what_took_its_place():
    pool, _ = new_pool(replaced=1)
    old, new, newest = (make(price=price) for price in (100, 110, 121))
    for data in (old, new):
        pool.add(data, 1)
    assert pool.replacement(transaction_id(old)) == transaction_id(new)
    assert pool.replacement(transaction_id(new)) is None
    pool.add(newest, 1)
    assert pool.replacement(transaction_id(old)) is None, "the oldest is forgotten"
    assert pool.replacement(transaction_id(new)) == transaction_id(newest)


def test_senders_take_turns_where_prices_are_equal():
    pool, _ = new_pool()
    flood = [make(ALICE, nonce) for nonce in range(50)]
    for data in flood:
        pool.add(data, 1)
    late, dear = make(BOB, 0), make(CAROL, 0, 11)
    pool.add(late, 1)
    pool.add(dear, 1)
    assert pool.take(1 << 30, 1 << 40, 3) == [dear, flood[0], late]


def test_an_account_has_no_more_waiting_than_it_can_pay():
    pool, accounts = new_pool()
    accounts.balances[ALICE.public] = 2_500
    for nonce in range(2):
        pool.add(make(ALICE, nonce, price=10, gas=100), 1)
    with pytest.raises(InvalidTransaction, match="balance 2500 cannot pay 3000"):
        pool.add(make(ALICE, 2, price=10, gas=100), 1)
    assert pool.add(make(ALICE, 1, price=15, gas=100), 1), "a replacement counts for what it adds"
    accounts.balances[ALICE.public] = 1_400
    pool.commit({ALICE.public: 1}, 2)
    assert len(pool) == 0, "nor after a block"


def test_a_forged_transaction_displaces_nothing():
    pool, _ = new_pool(count=1)
    pool.add(make(ALICE, 0, 1), 1)
    with pytest.raises(InvalidSignature):
        pool.add(unsigned(BOB, 0, 10**6), 1)
    assert len(pool) == 1
    assert pool.add(make(BOB, 0, 2), 1), "control: a signed one displaces it"


def test_a_transaction_behind_a_gap_displaces_nothing_however_much_it_offers():
    pool, _ = new_pool(count=1)
    pool.add(make(ALICE, 0, 1), 1)
    with pytest.raises(Rejected, match="full"):
        pool.add(make(BOB, 1, 10**6), 1)
    assert pool.add(make(BOB, 0, 2), 1), "control: without the gap it does"


def test_transactions_behind_gaps_have_their_own_cap():
    pool, _ = new_pool(waiting=2)
    for key in (ALICE, BOB):
        pool.add(make(key, 5), 1)
    with pytest.raises(Rejected, match="behind a gap"):
        pool.add(make(CAROL, 5), 1)
    assert pool.add(make(CAROL, 0), 1)


def test_no_sender_fills_more_than_its_share():
    size = len(make(payload=bytes(100)))
    pool, _ = new_pool(sender_count=2, sender_bytes=2 * size)
    with pytest.raises(Rejected, match="too far ahead"):
        pool.add(make(nonce=2), 1)
    pool.add(make(nonce=0, payload=bytes(200)), 1)
    with pytest.raises(Rejected, match="its share"):
        pool.add(make(nonce=1, payload=bytes(100)), 1)
    assert pool.add(make(BOB, 0, payload=bytes(100)), 1), "control: another sender has room"


def test_a_block_holds_no_more_than_asked_for():
    pool, _ = new_pool()
    dear_but_large = make(ALICE, 0, 9, payload=bytes(500))
    small = make(BOB, 0, 1)
    for data in (dear_but_large, make(ALICE, 1, 9), small, make(BOB, 1, 1, gas=1000)):
        pool.add(data, 1)
    room = len(small) + ENTRY_OVERHEAD_BYTES
    assert pool.take(room, 1 << 40, 99) == [small]
    assert pool.take(room - 1, 1 << 40, 99) == []
    assert pool.take(1 << 20, 200, 1) == [dear_but_large]
    assert len(pool.take(1 << 20, 300, 99)) == 3, "gas for three of them"


def test_a_block_is_followed_by_dropping_what_it_used_up():
    pool, accounts = new_pool()
    lane = [make(nonce=n) for n in range(4)]
    for data in lane:
        pool.add(data, 1)
    accounts.nonces[ALICE.public] = 2
    pool.commit(dict(accounts.nonces), 2)
    assert pool.take(*EVERYTHING) == lane[2:]
    assert pool.bytes == sum(map(len, lane[2:]))


def test_only_senders_that_a_block_touched_are_checked_again():
    pool, accounts = new_pool()
    for key in (ALICE, BOB):
        for nonce in range(3):
            pool.add(make(key, nonce), 1)
    accounts.checked = 0
    accounts.refused = {ALICE.public, BOB.public}
    pool.commit({ALICE.public: 1}, 2)
    assert accounts.checked == 1
    assert {t.body.sender for t in map(transaction_module.decode_transaction, pool)} == {BOB.public}


def test_transactions_expire_after_so_many_heights():
    pool, _ = new_pool(lifetime=10)
    old, young = make(ALICE, 0), make(BOB, 0)
    pool.add(old, 1)
    pool.add(make(ALICE, 1), 5)
    pool.add(young, 5)
    pool.commit({}, 10)
    assert len(pool) == 3
    pool.commit({}, 11)
    assert list(pool) == [young], "the follower of the old one went with it"


def test_a_signature_is_checked_once(monkeypatch):
    calls = []
    real = transaction_module.verify_transaction

    def counting(transaction):
        calls.append(transaction)
        real(transaction)

    monkeypatch.setattr(mempool_module, "verify_transaction", counting)
    pool, _ = new_pool(verified=2)
    first = make(ALICE, 0)
    pool.verify(pool.open(first))
    pool.add(first, 1)
    pool.verify(pool.open(first))
    assert len(calls) == 1
    pool.add(make(BOB, 0), 1)
    pool.add(make(CAROL, 0), 1)
    pool.verify(pool.open(first))
    assert len(calls) == 3, "what waits here was checked"
    pool.commit({ALICE.public: 1}, 2)
    pool.verify(pool.open(first))
    assert len(calls) == 4, "the cache is bounded: the oldest id was forgotten"


def test_knowing_a_transaction_does_not_vouch_for_its_body_under_another_signature():
    pool, _ = new_pool()
    pool.verify(pool.open(make(ALICE, 0)))
    with pytest.raises(InvalidSignature):
        pool.verify(pool.open(unsigned(ALICE, 0)))


def test_bytes_that_are_no_transaction_are_refused():
    pool, _ = new_pool()
    for data in (b"", b"\xc1", make() + b"\0", bytes(1 << 20)):
        with pytest.raises(CodecError):
            pool.add(data, 1)
