"""What a transaction says of itself, as a JSON value."""

from __future__ import annotations

from mlchain import crypto
from mlchain.ledger.transaction import decode_transaction
from mlchain.node.plain import Json
from mlchain.vm.families import KINDS


def describe_transaction(data: bytes) -> Json:
    """Return kind, sender and nonce of an encoded transaction."""
    body = decode_transaction(data).body
    kind = KINDS.get(body.kind)
    name = kind.__name__ if kind else str(body.kind)
    return {"kind": name, "sender": crypto.address(body.sender), "nonce": body.nonce}
