"""Free transactions of members leave room for those who pay, and for each other."""

from __future__ import annotations

from mempool_factory import ALICE, BOB, CAROL, DUTY, make, new_pool

HALF, ALL = 500, 1000
"""Gas of half a block, and of a block."""


def test_free_duties_with_huge_gas_limits_do_not_starve_who_pays():
    pool, _ = new_pool()
    paying = make(BOB, price=10, gas=HALF)
    pool.add(paying, 1)
    for nonce in range(10):
        pool.add(make(ALICE, nonce, price=0, gas=HALF // 2, kind=DUTY), 1)
    taken = pool.take(1 << 30, ALL, 100)
    assert paying in taken and len(taken) == 3


def test_no_duty_outbids_another_it_goes_after_those_that_came_before():
    pool, _ = new_pool()
    claim = make(CAROL, price=0, gas=HALF, kind=DUTY)
    pool.add(claim, 1)
    pool.add(make(ALICE, price=99, gas=HALF, kind=DUTY), 1)
    assert pool.take(1 << 30, ALL, 100) == [claim]
