"""A transaction is its sender's, for one chain, with one id; a block id commits to everything."""

from __future__ import annotations

import pytest
from ledger_factory import STRANGER, ZERO, new_store, next_block
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.errors import CodecError, InvalidSignature
from mlchain.ledger.block import (
    MAX_BLOCK_BYTES,
    Body,
    Receipt,
    SegmentRef,
    body_root,
    decode_block,
    header_id,
    receipts_root,
)
from mlchain.ledger.transaction import (
    MAX_PAYLOAD_BYTES,
    MAX_TRANSACTION_BYTES,
    TransactionBody,
    decode_transaction,
    sign_transaction,
    transaction_id,
    verify_transaction,
)

BODY = TransactionBody("dev-test", STRANGER.public, 3, 1000, 2, 7, b"payload")


def test_a_signed_transaction_verifies_and_goes_there_and_back():
    transaction = sign_transaction(BODY, STRANGER)
    verify_transaction(transaction)
    data = codec.encode(transaction)
    assert decode_transaction(data) == transaction
    assert transaction_id(data) == transaction_id(codec.encode(sign_transaction(BODY, STRANGER)))


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": "dev-other"},
        {"sender": bytes(32)},
        {"nonce": 4},
        {"gas_limit": 1001},
        {"gas_price": 3},
        {"kind": 8},
        {"payload": b"Payload"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_signature_covers_every_field(change, monkeypatch):
    transaction = sign_transaction(BODY, STRANGER)
    changed = replace(transaction, body=replace(BODY, **change))
    with pytest.raises(InvalidSignature, match="transaction"):
        verify_transaction(changed)
    monkeypatch.setattr(crypto, "is_signed", lambda *_: True)
    verify_transaction(changed)  # control: nothing but the signature stands against it


def test_a_signature_made_for_something_else_is_no_transaction():
    bare = STRANGER.sign(codec.encode(BODY))  # without the domain
    with pytest.raises(InvalidSignature):
        verify_transaction(replace(sign_transaction(BODY, STRANGER), signature=bare))


def test_the_id_is_of_all_bytes_and_differs_from_other_hashes_of_them():
    data = codec.encode(sign_transaction(BODY, STRANGER))
    other = codec.encode(sign_transaction(replace(BODY, nonce=4), STRANGER))
    assert (
        len({transaction_id(data), transaction_id(other), crypto.digest("mlchain/body", data)}) == 3
    )


def test_the_largest_transaction_is_taken_and_one_byte_more_is_not():
    largest = replace(
        BODY,
        chain_id="c" * 64,
        nonce=2**63 - 1,
        gas_limit=2**63 - 1,
        gas_price=2**63 - 1,
        kind=2**63 - 1,
        payload=bytes(MAX_PAYLOAD_BYTES),
    )
    data = codec.encode(sign_transaction(largest, STRANGER))
    assert len(data) <= MAX_TRANSACTION_BYTES
    decode_transaction(data)
    with pytest.raises(CodecError):
        decode_transaction(
            codec.encode(
                sign_transaction(replace(largest, payload=bytes(MAX_PAYLOAD_BYTES + 1)), STRANGER)
            )
        )


# Blocks


def test_every_field_of_a_header_changes_the_id():
    header = next_block(new_store(), {})[0].header
    others = [
        replace(header, **{name: changed(getattr(header, name))})
        for name in header.__struct_fields__
    ]
    assert len(dict.fromkeys(header_id(each) for each in [header, *others])) == len(others) + 1


def changed(value):
    if isinstance(value, int):
        return value + 1
    return value + "x" if isinstance(value, str) else bytes([value[0] ^ 1]) + value[1:]


def test_every_part_of_a_body_changes_its_root():
    commit = next_block(new_store(), {})[1]
    bodies = [
        Body(None, (), (), ()),
        Body(commit, (), (), ()),
        Body(None, (b"e",), (), ()),
        Body(None, (), (SegmentRef(ZERO, 0),), ()),
        Body(None, (), (), (b"e",)),
        Body(None, (), (), (b"e", b"")),
    ]
    assert len(dict.fromkeys(map(body_root, bodies))) == len(bodies)


def test_the_root_of_receipts_knows_their_order_and_number():
    one, two = (Receipt(bytes([n]) * 32, "ok", n, "", ()) for n in (1, 2))
    roots = [
        receipts_root(rows) for rows in ((), (one,), (two,), (one, two), (two, one), (one, one))
    ]
    assert len(dict.fromkeys(roots)) == len(roots)


def test_a_block_goes_there_and_back_and_an_oversized_one_is_refused():
    block = next_block(new_store(), {b"k": b"v"}, (b"t",))[0]
    assert decode_block(codec.encode(block)) == block
    with pytest.raises(CodecError, match="at most"):
        decode_block(bytes(MAX_BLOCK_BYTES + 1))
