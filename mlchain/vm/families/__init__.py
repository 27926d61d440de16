"""All transaction kinds, found by reading this folder in name order: one file is one family.

A kind is a `Payload` with an integer `KIND`; nothing else lists it. The digest of the whole table
stands in the genesis file, so a stray file here cannot fork a chain.
"""

from __future__ import annotations

import importlib
import pkgutil

from mlchain import codec, crypto
from mlchain.errors import InvalidTransaction
from mlchain.ledger.transaction import MAX_PAYLOAD_BYTES
from mlchain.vm.context import Payload


def _discover() -> dict[int, type[Payload]]:
    kinds: dict[int, type[Payload]] = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Payload) and kind is not Payload:
                assert kinds.setdefault(kind.KIND, kind) is kind, f"tag {kind.KIND} is taken twice"
    return dict(sorted(kinds.items()))


KINDS = _discover()


def decode_payload(kind: int, data: bytes) -> Payload:
    """Decode the payload of a transaction.

    Raises:
        InvalidTransaction: no such kind.
        CodecError: malformed bytes.
    """
    if kind not in KINDS:
        raise InvalidTransaction(f"unknown transaction kind {kind}")
    return codec.decode(KINDS[kind], data, MAX_PAYLOAD_BYTES)


def table_digest() -> bytes:
    """Return the digest of all tags, names, roles and fields."""
    rows = tuple(
        (tag, kind.__name__, kind.ROLE, kind.__struct_fields__, kind.__module__)
        for tag, kind in KINDS.items()
    )
    return crypto.digest("mlchain/kinds", codec.encode(rows))
