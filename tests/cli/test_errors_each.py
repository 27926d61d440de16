"""Every class of docs/errors.md is provoked: it has its message, hint, code and status."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from doc_tables import error_kinds
from factories import make_chain
from fake_node import STATUS, problem, serve, transaction
from msgspec.structs import replace

from mlchain import codec, errors
from mlchain.cli.failure import describe
from mlchain.client.client import Client
from mlchain.client.keystore import MIN_COST, create_key, load_key
from mlchain.client.receipt import read_receipt
from mlchain.consensus.evidence import verify_evidence
from mlchain.consensus.safety import Signer, SignRequest
from mlchain.crypto import SecretKey
from mlchain.ledger.commit import VoteKind, verify_commit
from mlchain.ledger.content import ContentStore
from mlchain.ledger.genesis import parse_genesis
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.transaction import TransactionBody, sign_transaction, verify_transaction
from mlchain.ml_runtime.grid import quantise
from mlchain.ml_runtime.plan import decode_plan
from mlchain.vm.context import BlockContext, Context
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.predictions import RequestPrediction
from mlchain.vm.protocol import Protocol
from mlchain.vm.registry import check_protocol

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
KEY, MODEL = SecretKey(b"k" * 32), bytes.fromhex("01551220") + bytes(32)
IDENTITY = "ab" * 32


def context() -> Context:
    chain = make_chain(4).chain
    block = BlockContext(
        chain.state(), "test", chain.params, 1, 1, bytes(32), chain.store.validators_after(0)
    )
    return Context(block, KEY.public, bytes(32), 10**6)


def question(**change: object) -> RequestPrediction:
    return replace(RequestPrediction(MODEL, b"", b"", 1, False, "replicated", 1, 0), **change)


def not_signed() -> None:
    body = TransactionBody("test", KEY.public, 0, 10, 1, Transfer.KIND, b"x")
    verify_transaction(replace(sign_transaction(body, KEY), signature=bytes(64)))


def signed_twice() -> None:
    signer = Signer(KEY, "test", None, lambda data: None)
    for block in (b"X" * 32, b"Y" * 32):
        signer.sign(SignRequest(VoteKind.PREVOTE, 4, 0, block, -1, b""))


def a_damaged_disk() -> None:
    kv = MemoryKeyValue()
    cid = ContentStore(kv).put(b"what was stored")
    kv.write({b"b" + cid: b"what is there"})
    ContentStore(kv).get_block(cid)


def of_a_chain(routes: dict[str, object], ask: Callable[[Client], object]) -> Callable[[], object]:
    def provoke() -> object:
        with serve() as node:
            node.routes |= {"GET /v1/status": STATUS, **routes}
            with Client(node.url, poll_s=0.05) as client:
                return ask(client)

    return provoke


def dead() -> None:
    with Client("http://127.0.0.1:9") as client:
        client.status()


def commit_of_another_height() -> None:
    commit = SimpleNamespace(height=3, block_id=bytes(32))
    verify_commit(commit, "test", SimpleNamespace(), 4, bytes(32))


def garbage() -> None:
    Path("x.receipt").write_bytes(b"garbage")
    read_receipt(Path("x.receipt"))


def sealed() -> None:
    create_key(Path("k.json"), KEY, "secret", cost=MIN_COST)
    load_key(Path("k.json"))


def a_removed_block() -> None:
    chain = make_chain(4)
    chain.grow(4)
    chain.store.prune(3, 10)
    chain.store.block(1)


PROVOKED: dict[type[errors.MlchainError], tuple[Callable[[], object], str, str]] = {
    errors.CodecError: (lambda: codec.decode(Transfer, b"\xc1"), "", ""),
    errors.InvalidSignature: (not_signed, "signature", ""),
    errors.InvalidTransaction: (
        lambda: question(is_evaluation=True, tier="drawn:2").execute(context()),
        "all compute it", "tier replicated",
    ),
    errors.OutOfGas: (
        lambda: context().charge(10**6 + 1), "1000001 gas, 1000000 left", "gas limit",
    ),
    errors.UnknownModel: (
        lambda: question().execute(context()), "not registered", "mlchain model list"
    ),
    errors.InvalidRows: (
        lambda: question(inline=b"[[1,2]]")._name_rows(None, SimpleNamespace(features=3)), "3", "",
    ),
    errors.InvalidBlock: (commit_of_another_height, "for height 3, wanted 4", ""),
    errors.InvalidEvidence: (lambda: verify_evidence(b"x", "test", None), "", ""),
    errors.RejectedProgram: (lambda: decode_plan(b"x"), "not the canonical encoding", ""),
    errors.Trap: (
        lambda: quantise(np.array([1e300]), 8, 1e300, np.empty(1)), "2^500", "",
    ),
    errors.DoubleSign: (signed_twice, "asked for a prevote at height 4 round 0", ""),
    errors.GenesisError: (lambda: parse_genesis(b"{}"), "genesis.chain_id: missing", ""),
    errors.UpgradeNeeded: (
        lambda: check_protocol(Protocol(99, bytes(32), 5)), "version 99", "install",
    ),
    errors.ConfigError: (lambda: create_key(Path("k"), KEY, ""), "password", ""),
    errors.StoreCorrupted: (a_damaged_disk, "damaged on disk", "check the disk"),
    errors.NotFound: (
        of_a_chain({}, lambda client: client.job("ff")), "nothing at GET /v1/jobs/ff", "",
    ),
    errors.Pruned: (a_removed_block, "pruned below height 3", "archive node"),
    errors.Unreachable: (dead, "no node answers", "mlchain"),
    errors.Rejected: (
        of_a_chain(
            {"POST /v1/txs": problem(409, "rejected", "the mempool is full", "wait")},
            lambda client: client.post_transaction(b"x"),
        ),
        "the mempool is full", "wait",
    ),
    errors.Timeout: (
        of_a_chain(
            {f"GET /v1/txs/{IDENTITY}": transaction(state="pending", height=None, code=None)},
            lambda client: client.wait(IDENTITY, 0.1),
        ),
        "waited 0.1 s", "",
    ),
    errors.VerificationFailed: (garbage, "x.receipt is not a receipt", ""),
    errors.Locked: (sealed, "password", "--password-file"),
}  # fmt: skip


def documented() -> dict[str, tuple[int, str]]:
    """Exit status and code of each class, as the page says."""
    tables = dict(re.findall(r"<!-- table: ([a-z-]+) -->\n(.*?)<!-- end -->", PAGE, re.DOTALL))
    rows = [line.strip("| ").split(" | ") for line in tables["exit-codes"].splitlines()[2:]]
    return {
        kind.strip("`"): (int(exit_code), code.strip("`"))
        for exit_code, code, kinds in rows
        for kind in kinds.split(", ")
        if kind.startswith("`")
    }


def test_no_class_is_left_out():
    kinds = [kind for kind, _ in error_kinds()]
    assert kinds == [*PROVOKED] and {kind.__name__ for kind in kinds} == documented().keys()


@pytest.mark.parametrize("kind", PROVOKED, ids=lambda kind: kind.__name__)
def test_each_class_has_its_message_hint_code_and_status(kind):
    provoke, message, hint = PROVOKED[kind]
    with pytest.raises(kind) as caught:
        provoke()
    assert type(caught.value) is kind
    failure = describe(caught.value, [])
    assert (failure.exit_code, failure.code) == documented()[kind.__name__]
    assert failure.message and message in failure.message and hint in failure.hint
