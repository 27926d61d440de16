"""`mlchain gov` against a node that answers from a table: what it prints keeps its schema."""

from __future__ import annotations

import json

import pytest
from factories import make_chain, make_key
from fake_node import STATUS, transaction

from mlchain.client.keystore import dev_key
from mlchain.client.ready import make_ready, save_ready
from mlchain.ledger.transaction import decode_transaction
from mlchain.node.governance_view import describe_governance
from mlchain.node.plain import to_json
from mlchain.vm.families import decode_payload
from mlchain.vm.families.changes import AddMember, RemoveMember, ReplaceKeys, SetParam, Upgrade
from mlchain.vm.families.governance import Approve, ChangeKeys, Leave, Propose
from mlchain.vm.families.operators import ConfirmWorker, NameOperator

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


@pytest.fixture
def send(run_json, chain):
    """Run a command that sends; return what the transaction asks of the chain."""

    def run(*line: str):
        code, document = run_json("gov", *line, "--key", "alice", "--url", chain.url)
        assert (code, document["schema"]) == (0, "mlchain.sent/1"), document
        (body,) = [body for route, body in chain.requests if route == "POST /v1/txs"]
        transaction = decode_transaction(body)
        assert transaction.body.sender == dev_key("alice").public
        return decode_payload(transaction.body.kind, transaction.body.payload)

    return run


@pytest.fixture
def proof(tmp_path):
    """The file of one that is ready to be validator-0, and what it says."""
    ready = make_ready(
        "dev-1", "validator-0", "validator", make_key("new"), make_key("peer").public, "h", 1, 0,
        64, 99,
    )  # fmt: skip
    save_ready(tmp_path / "new.ready", ready)
    return str(tmp_path / "new.ready"), ready


def test_an_approval_names_the_change_that_was_shown(send):
    assert send("approve", "3") == Approve(3, bytes.fromhex("ab" * 32))


def test_a_parameter_is_proposed(send):
    change = SetParam("heartbeat_ms", 5000)
    assert send("propose", "param", "heartbeat_ms", "5000") == Propose(change)


def test_a_newcomer_is_proposed_with_its_own_proof(send, proof):
    file, ready = proof
    change = AddMember(ready.member, ready.until, ready.signature)
    assert send("propose", "add", file) == Propose(change)


def test_a_member_is_proposed_to_go_by_its_name(send):
    assert send("propose", "remove", "worker-1") == Propose(
        RemoveMember(make_key("worker-1").public)
    )


def test_a_lost_key_is_proposed_to_be_replaced(send, proof):
    file, ready = proof
    old = make_key("validator-0").public
    change = ReplaceKeys(old, ready.member, ready.until, ready.signature)
    assert send("propose", "replace", "validator-0", file) == Propose(change)


def test_own_keys_are_changed_without_approvals(send, proof):
    file, ready = proof
    old = make_key("validator-0").public
    change = ReplaceKeys(old, ready.member, ready.until, ready.signature)
    assert send("rotate", "validator-0", file) == ChangeKeys(change)


def test_an_upgrade_is_proposed(send):
    change = Upgrade(2, bytes.fromhex("cd" * 32), 1200)
    assert send("propose", "upgrade", "2", "cd" * 32, "1200") == Propose(change)


def test_a_member_leaves(send):
    assert send("leave") == Leave()


def test_a_worker_names_its_operator(send):
    assert send("operator", "validator-0") == NameOperator(make_key("validator-0").public)


def test_a_validator_confirms_its_worker(send):
    assert send("confirm", "worker-1") == ConfirmWorker(make_key("worker-1").public, True)


@pytest.mark.parametrize("line", [("operator", "--end"), ("confirm", "worker-1", "--end")])
def test_either_ends_it(send, line):
    ended = send(*line)
    assert ended in (NameOperator(b""), ConfirmWorker(make_key("worker-1").public, False))


def test_the_list_says_whose_worker_it_is_and_who_proposes_how_often(run, chain):
    view = chain.routes["GET /v1/governance"]
    for member in view["members"]:
        if member["name"] == "worker-0":
            member.update(operator="validator-0", is_confirmed=True)
        if member["name"] == "worker-1":
            member.update(operator="validator-1", is_confirmed=False)
    shown = run("gov", "list", "--url", chain.url).stdout
    assert "works for validator-0\n" in shown and "works for validator-1, who has yet" in shown
    assert "turns 1" in shown


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (("show", "9"), 3),
        (("operator", "--key", "alice"), 2),
        (("operator", "validator-0", "--end", "--key", "alice"), 2),
        (("confirm", "nobody", "--key", "alice"), 3),
        (("approve", "9", "--key", "alice"), 3),
        (("propose", "remove", "nobody", "--key", "alice"), 3),
        (("propose", "upgrade", "2", "xy", "1200", "--key", "alice"), 2),
        (("propose", "add", "pyproject.toml", "--key", "alice"), 2),
    ],
)
def test_what_is_not_there_or_no_digest_is_refused(run_json, chain, home, line, code):
    (home / "pyproject.toml").write_text("[tool]")
    found, document = run_json("gov", *line, "--url", chain.url)
    assert (found, document["ok"]) == (code, False)
    assert not any(route == "POST /v1/txs" for route, _ in chain.requests)


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
