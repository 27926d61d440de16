"""`mlchain gov` against a node that answers from a table: what it prints keeps its schema."""

from __future__ import annotations

import json

import pytest
from factories import make_chain
from fake_node import STATUS, transaction

from mlchain.client.keystore import dev_key
from mlchain.node.governance_view import describe_governance
from mlchain.node.plain import to_json

PROPOSAL = {
    "number": 3, "author": "validator-1", "approvals": ["validator-1"], "own": False,
    "height": 9, "last_epoch": 4, "digest": "ab" * 32,
    "change": {"kind": "SetParam", "name": "heartbeat_ms", "value": 5000},
}  # fmt: skip


@pytest.fixture
def chain(node):
    """A development chain with one open proposal and one that was decided."""
    whole = make_chain(4, 2)
    view = to_json(describe_governance(whole.chain.state(), 0))
    view["open"] = [PROPOSAL | {"approved": 1}]
    done = {"outcome": "approved", "reason": "", "decided_height": 12}
    view["decided"] = [PROPOSAL | {"number": 2} | done]
    node.routes["GET /v1/status"] = {**STATUS, "chain_id": "dev-1"}
    node.routes["GET /v1/governance"] = view
    alice = dev_key("alice").public.hex()
    node.routes[f"GET /v1/accounts/{alice}"] = {"balance": 1, "nonce": 0}
    node.routes["POST /v1/txs"] = {"id": "ab" * 32}
    node.routes["GET /v1/txs/" + "ab" * 32] = transaction(events=["approved"])
    return node


def test_lists_and_proposals_keep_their_schema(run_json, chain):
    assert run_json("gov", "list", "--url", chain.url)[0] == 0
    for number in ("2", "3"):
        code, document = run_json("gov", "show", number, "--url", chain.url)
        assert (code, document["data"]["change"]["value"]) == (0, 5000)


def test_what_was_sent_keeps_its_schema(run_json, chain):
    for line in (("approve", "3"), ("propose", "param", "heartbeat_ms", "5000"), ("leave",)):
        code, document = run_json("gov", *line, "--key", "alice", "--url", chain.url)
        assert (code, document["schema"]) == (0, "mlchain.sent/1"), document


def test_a_proof_of_being_ready_keeps_its_schema(run, run_json, chain, home):
    files = []
    for name in ("echo", "peer"):
        run("keys", "new", name, "--unprotected")
        files.append(json.loads(run("keys", "show", name, "--json").stdout)["data"]["file"])
    code, document = run_json(
        "gov", "ready", "echo", "--key", files[0], "--peer-key", files[1],
        "--listen", "127.0.0.1:1", "--out", "echo.ready", "--url", chain.url,
    )  # fmt: skip
    assert (code, document["data"]["file"]) == (0, "echo.ready")
