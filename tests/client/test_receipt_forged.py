"""A receipt is believed for its proofs alone: whatever is changed in it, one named check objects.

Most rows are made by a *lying quorum*: the validators sign whatever was changed, so only the named
check can object. Each row also says which check objects when that one is taken out ("" for none):
the control that the check is not there for nothing.
"""

from __future__ import annotations

import pytest
from factories import make_chain
from msgspec.structs import replace
from receipt_forger import (
    LIES,
    add_a_file,
    change_a_record,
    change_the_header,
    drop_a_segment,
    drop_signatures,
    drop_the_model,
    failed,
    resign,
    spoil_a_file,
    spoil_a_signature,
    swap_segments,
)

from mlchain import codec
from mlchain.client import checks
from mlchain.client import receipt as receipts
from mlchain.errors import CodecError
from mlchain.ledger.validators import Validator
from mlchain.vm.receipt import (
    MAX_RECEIPT_BYTES,
    Receipt,
    SetChange,
)


@pytest.mark.parametrize(("lie", "check", "next_check"), LIES, ids=[x[0].__name__ for x in LIES])
def test_a_lying_quorum_is_seen_through(honest, monkeypatch, lie, check, next_check):
    chain, receipt = honest
    forged = resign(chain, receipt, lie)
    assert failed(forged, chain) == check
    without(monkeypatch, check)
    assert failed(forged, chain, **({"slices": 0} if check == "re-run" else {})) == next_check


def test_resigned_honest_books_pass(honest):
    """The control of all lies: signing again is not what fails."""
    chain, receipt = honest
    assert failed(resign(chain, receipt, lambda books: None), chain) == ""


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    left = tuple(row for row in checks.CHECKS if row[0] != name)
    monkeypatch.setattr(receipts, "CHECKS", left)


# ---- somebody on the way ----------------------------------------------------------------------


TAMPERING = [
    (lambda r: replace(r, genesis=bytes(32)), "genesis", ""),
    (drop_signatures, "certificate", ""),
    (spoil_a_signature, "certificate", ""),
    (change_the_header, "certificate", ""),
    (change_a_record, "state", ""),
    (swap_segments, "state", "job"),
    (drop_a_segment, "job", "data"),
    (drop_the_model, "job", ""),
    (add_a_file, "data", ""),
    (spoil_a_file, "data", None),
]


@pytest.mark.parametrize(("tamper", "check", "next_check"), TAMPERING)
def test_whoever_passes_a_receipt_on_cannot_change_it(
    honest, monkeypatch, tamper, check, next_check
):
    chain, receipt = honest
    forged = tamper(receipt)
    assert failed(forged, chain) == check
    if next_check is not None:
        without(monkeypatch, check)
        assert failed(forged, chain) == next_check


def test_no_byte_of_a_receipt_may_change(honest):
    chain, receipt = honest
    data = codec.encode(receipt)
    for place in range(0, len(data), 151):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        try:
            forged = codec.decode(Receipt, bytes(flipped), MAX_RECEIPT_BYTES)
        except CodecError:
            continue
        assert failed(forged, chain) != "", f"byte {place}"


def test_a_receipt_of_another_chain_fails_at_its_genesis(honest):
    _, receipt = honest
    other = make_chain(4, 2, chain_id="test-2")
    assert failed(receipt, other) == "genesis"
    assert failed(replace(receipt, genesis=other.genesis.hash), other) == "certificate"


@pytest.mark.parametrize("kind", ["left out", "cooked", "unsigned", "repeated"])
def test_a_change_of_validators_cannot_be_invented_or_hidden(changed, kind):
    chain, receipt = changed
    change = receipt.changes[0]
    stranger = Validator(b"s" * 32, 1)
    cooked = tuple(sorted((*change.validators[:2], stranger), key=lambda v: v.key))
    changes: tuple[SetChange, ...] = {
        "left out": (),
        "cooked": (replace(change, validators=cooked),),
        "unsigned": (
            replace(change, commit=replace(change.commit, signatures=change.commit.signatures[:2])),
        ),
        "repeated": (change, change),
    }[kind]
    expected = "certificate" if kind == "left out" else "validators"
    assert failed(replace(receipt, changes=changes), chain) == expected
