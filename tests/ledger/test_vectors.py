"""Frozen bytes and digests: whoever writes a second implementation must get these.

A change here is a change of the protocol: every node of a chain has to make it at once. When it is
meant, `python tests/ledger/test_vectors.py` writes the file anew, and the diff says what changed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ledger_factory import (
    CHAIN,
    FOUR,
    STRANGER,
    ZERO,
    certificate,
    genesis,
    validator_set,
    vote,
    write_genesis_state,
)

from mlchain import codec
from mlchain.ledger.block import (
    Body,
    Header,
    Receipt,
    SegmentRef,
    body_root,
    header_id,
    receipts_root,
)
from mlchain.ledger.commit import sign_bytes
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.merkle import SparseTree, list_proof, list_root
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import TransactionBody, sign_transaction, transaction_id

FILE = Path(__file__).parent.parent / "vectors" / "ledger" / "digests.json"


def compute() -> dict[str, dict[str, str]]:
    """Return {what: {part: hex or text}}; keys are made from seeds of one repeated byte."""
    transaction = codec.encode(
        sign_transaction(
            TransactionBody(CHAIN, STRANGER.public, 3, 1000, 2, 7, b"payload"), STRANGER
        )
    )
    block_id = bytes(range(32))
    commit = certificate(4, block_id)
    body = Body(commit, (b"evidence",), (SegmentRef(block_id, 2),), (transaction,))
    receipts = (
        Receipt(transaction_id(transaction), "ok", 21, "", ("moved",)),
        Receipt(ZERO, "OutOfGas", 300, "needs 400", ()),
    )
    header = Header(
        protocol_version=1,
        chain_id=CHAIN,
        height=5,
        time_ms=1_700_000_000_500,
        parent=block_id,
        proposer=FOUR[0].public,
        validators_hash=validator_set().hash,
        next_validators_hash=validator_set(FOUR, (1, 2, 3, 4)).hash,
        body_root=body_root(body),
        state_root=bytes(32),
        receipts_root=receipts_root(receipts),
        gas_used=321,
    )
    mapping = {b"account/%d" % n: b"%d" % (n * n) for n in range(10)}
    tree = SparseTree().update(mapping)
    items = [b"zero", b"one", b"two", b"three", b"four"]
    store = Store.create_or_open(MemoryKeyValue(), genesis(), write_genesis_state)
    return {
        "transaction": {"encoded": transaction.hex(), "id": transaction_id(transaction).hex()},
        "vote": {
            "sign_bytes": vote(extension=b"attested").sign_bytes(CHAIN).hex(),
            "signature": vote(extension=b"attested").signature.hex(),
            "nil_prevote_sign_bytes": sign_bytes(CHAIN, 1, 5, 2, b"").hex(),
            "proposal_sign_bytes": sign_bytes(CHAIN, 0, 5, 2, block_id, 1).hex(),
        },
        "commit": {"encoded": codec.encode(commit).hex()},
        "validators": {"hash": validator_set(FOUR, (1, 2, 3, 4)).hash.hex()},
        "block": {
            "header": codec.encode(header).hex(),
            "header_id": header_id(header).hex(),
            "body_root": body_root(body).hex(),
            "receipts_root": receipts_root(receipts).hex(),
        },
        "genesis": {
            "encoded": codec.encode(genesis()).hex(),
            "hash": genesis().hash.hex(),
            "block_0_id": store.head_id.hex(),
        },
        "state": {
            "keys": "account/0 .. account/9",
            "values": "squares in decimal",
            "root": tree.root.hex(),
            "proof_of_account_3": codec.encode(tree.prove(b"account/3")).hex(),
            "proof_of_absence_of_account_x": codec.encode(tree.prove(b"account/x")).hex(),
        },
        "list": {
            "items": " ".join(item.decode() for item in items),
            "root": list_root(items).hex(),
            "empty_root": list_root([]).hex(),
            "proof_of_2": " ".join(part.hex() for part in list_proof(items, 2)),
        },
    }


@pytest.mark.parametrize("what", compute())
def test_the_vector_is_as_frozen(what):
    frozen = json.loads(FILE.read_text())
    assert compute()[what] == frozen[what], "see the head of this file"


def test_no_vector_is_left_over():
    assert list(json.loads(FILE.read_text())) == list(compute())


if __name__ == "__main__":
    FILE.write_text(json.dumps(compute(), indent=2) + "\n")
