"""Transactions: a signed request of one account to change the state.

The payload's meaning belongs to `vm.families`; here it is a tag and bytes.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from msgspec import Meta

from mlchain import codec, crypto
from mlchain.codec import Name, PublicKey, Record, Signature, Uint

MAX_PAYLOAD_BYTES = 256 << 10
MAX_TRANSACTION_BYTES = MAX_PAYLOAD_BYTES + 1024

_SIGN_DOMAIN = b"mlchain/transaction/1"


class TransactionBody(Record, frozen=True):
    """What the sender signs.

    `nonce` is the number of transactions the sender has had included before; `gas_price` is in
    micro-credits per unit of gas; `kind` is the tag of the payload's record.
    """

    chain_id: Name
    sender: PublicKey
    nonce: Uint
    gas_limit: Uint
    gas_price: Uint
    kind: Uint
    payload: Annotated[bytes, Meta(max_length=MAX_PAYLOAD_BYTES)]


class Transaction(Record, frozen=True):
    """A body and the sender's signature over it."""

    body: TransactionBody
    signature: Signature


class Opened(NamedTuple):
    """An encoded transaction, decoded once, and whether this node found its signature good."""

    identity: bytes
    transaction: Transaction
    is_verified: bool


def sign_transaction(body: TransactionBody, key: crypto.SecretKey) -> Transaction:
    """Return `body` signed by `key`."""
    return Transaction(body, key.sign(_SIGN_DOMAIN + codec.encode(body)))


def decode_transaction(data: bytes) -> Transaction:
    """Decode without checking the signature.

    Raises:
        CodecError: malformed, oversized or not canonical.
    """
    return codec.decode(Transaction, data, MAX_TRANSACTION_BYTES)


def open_transaction(data: bytes) -> Opened:
    """Decode and name a transaction whose signature nobody looked at.

    Raises:
        CodecError: malformed, oversized or not canonical.
    """
    return Opened(transaction_id(data), decode_transaction(data), False)


def verify_transaction(transaction: Transaction) -> None:
    """Return if the sender signed it.

    Raises:
        InvalidSignature: it did not.
    """
    body = transaction.body
    message = _SIGN_DOMAIN + codec.encode(body)
    crypto.verify(body.sender, message, transaction.signature, "transaction")


def transaction_id(data: bytes) -> bytes:
    """Return the id of an encoded transaction."""
    return crypto.digest("mlchain/transaction", data)
