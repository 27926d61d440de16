"""Row 11: a lazy validator lends its custody key, so that another makes the digests for it."""

from __future__ import annotations

import pytest
from attacks.custody_lab import attest, custody_keys, is_wrong, real_digest
from vm import reporting
from vm.world import PARAMS, World

from mlchain.consensus.work.custody import KEY_DELAY, digest_key
from mlchain.consensus.work.tickets import CUSTODY
from mlchain.ledger.block import Receipt
from mlchain.vm.families import reports

LENDER, BORROWER = "validator-0", "validator-1"


@pytest.fixture
def world() -> World:
    """A segment is committed, and its key is secret still."""
    world = World()
    world.commit(world.running())
    return world


def report(world: World, sender: str, height: int) -> Receipt:
    return reporting.report(world, sender, LENDER, CUSTODY, height, lent(world, height))


def lent(world: World, height: int) -> bytes:
    return world.chain(LENDER, CUSTODY).at(height)


def test_digests_made_with_a_lent_key_pass_every_audit():
    """That is why the key must not be lent: nothing in the digests tells who ran the chunk."""

    def borrowed(validator, height, chunks):
        key = digest_key(custody_keys(validator)[height])
        return tuple(real_digest(chunk, key) for chunk in chunks)

    attested = attest(0, 5, borrowed, 6)
    assert not any(is_wrong(attested, chunk) for chunk in attested.chunks)


@pytest.mark.parametrize("sender", [BORROWER, "worker-0", "alice"])
def test_whoever_was_lent_it_earns_more_by_showing_it(world, sender):
    height, before = world.height, world.balance(sender)
    assert report(world, sender, height).code == "ok"
    assert world.balance(sender) == before + PARAMS.slash_lazy // 2
    (fault,) = world.faults()
    assert (world.names[fault.offender], fault.kind) == (LENDER, "early-reveal")
    assert fault.slashed == PARAMS.slash_lazy and LENDER not in world.validators


def test_once_the_key_is_due_there_is_nothing_to_earn(world):
    height = world.height
    world.blocks(PARAMS.attest_window + KEY_DELAY)
    assert "was secret" in report(world, BORROWER, height).message
    assert world.faults() == [] and LENDER in world.validators


def test_control_without_the_rule_lending_costs_nothing(world, monkeypatch):
    monkeypatch.setattr(reports, "latest_due", lambda purpose, height, params: height)
    assert "was secret" in report(world, BORROWER, world.height).message
    assert world.faults() == []
