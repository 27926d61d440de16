"""Registered models and answers: what is printed of what a node says.

That nodes say so is tested in tests/web and tests/node; here the commands are.
"""

from __future__ import annotations

from typing import Any

import pytest
from fake_node import STATUS, problem, transaction
from test_predict import make

from mlchain.client.keystore import dev_key
from mlchain.ledger.unixfs import cid_of, cid_text

CONTENT = cid_text(cid_of(b"a model"))
IDENTITY = "ab" * 32
ROW = {
    "name": "sums", "version": 2, "versions": 2, "owner": "mlc1owner", "owner_key": "0d" * 32,
    "parent": CONTENT, "data": None, "licence": "MIT", "height": 40, "content": CONTENT,
    "size": 900, "features": 2, "outputs": 2, "answer": "label", "gas": 500, "job": None,
    "held_by": ["mlc1a", "mlc1b", "mlc1c"], "usable": True,
    "evaluations": [{"name": "accuracy", "correct": 9, "total": 10, "value": "0.9",
                     "dataset": CONTENT, "height": 41}],
}  # fmt: skip
ANSWERED = {
    "id": IDENTITY, "state": "answered", "requester": "mlc1owner", "requester_key": "0d" * 32,
    "model": CONTENT, "data": CONTENT, "rows": 1, "evaluation": False, "tier": "replicated",
    "tip": 5, "gas": 500, "asked": 41, "height": 42, "outcome": "answered", "content": CONTENT,
    "answers": ["setosa"], "score": None, "agreed": ["mlc1a", "mlc1b", "mlc1c"],
    "disagreed": [], "bound": 3,
}  # fmt: skip


@pytest.fixture
def chain(node):
    """A node that takes what is sent, as alice's."""
    node.routes |= {
        "GET /v1/status": {**STATUS, "chain_id": "dev-1"},
        f"GET /v1/accounts/{dev_key('alice').public.hex()}": {"balance": 10**12, "nonce": 5},
        "POST /v1/txs": {"id": IDENTITY},
        f"GET /v1/txs/{IDENTITY}": transaction(id=IDENTITY),
        "GET /v1/registry/sums": ROW,
        f"GET /v1/predictions/{IDENTITY}": ANSWERED,
    }
    return node


def test_models_are_listed_and_shown(run, run_json, chain):
    chain.routes["GET /v1/registry"] = {"models": [ROW]}
    code, document = run_json("model", "list", "--url", chain.url)
    assert (code, document["data"]) == (0, {"models": [ROW]})
    assert "sums@2" in (shown := run("model", "list", "--url", chain.url).stdout)
    assert "accuracy 0.9 over 10 rows" in shown
    code, document = run_json("model", "show", "sums", "--url", chain.url)
    assert (code, document["data"]) == (0, ROW)
    chain.routes["GET /v1/registry/sumz"] = problem(404, "not_found", "no model sumz", "model list")
    code, document = run_json("model", "show", "sumz", "--url", chain.url)
    assert (code, document["error"]["message"]) == (3, "no model sumz")


def test_a_model_is_registered_once_a_quorum_holds_it(run_json, home, chain):
    make(home / "m.model")
    content = cid_text(cid_of((home / "m.model").read_bytes()))
    chain.routes["POST /v1/data"] = {"cid": content}
    chain.routes[f"GET /v1/registry/{content}"] = [{**ROW, "usable": False, "held_by": []}, ROW]
    command = ("model", "register", "m.model", "--name", "sums", "--url", chain.url)
    code, document = run_json(*command)
    assert (code, document["data"]) == (0, {**ROW, "transaction": IDENTITY})
    chain.routes[f"GET /v1/registry/{content}"] = {**ROW, "usable": False, "held_by": ["mlc1a"]}
    code, document = run_json(*command, "--timeout", "0.1")
    assert code == 6 and "held by 1 validators only" in document["error"]["message"]


def test_an_answer_is_shown_with_who_agreed(run, run_json, home, chain):
    chain.routes[f"GET /v1/predictions/{IDENTITY}/receipt"] = b"the proof"
    command = ("predict", "--model", "sums", "--row", "1,2", "--url", chain.url)
    code, document = run_json(*command, "--receipt", "p.receipt")
    data: dict[str, Any] = document["data"]
    assert code == 0 and data.pop("seconds") >= 0
    assert data == {**ANSWERED, "all_answers": ["setosa"], "receipt_file": "p.receipt"}
    assert (home / "p.receipt").read_bytes() == b"the proof"
    assert "setosa" in run(*command).stdout
    chain.routes[f"GET /v1/predictions/{IDENTITY}"] = {**ANSWERED, "state": "failed"}
    code, document = run_json(*command)
    assert (code, document["error"]["code"]) == (5, "rejected")
