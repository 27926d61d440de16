"""The client against a node that answers from a table."""

import pytest
from fake_node import JOB_ID, STATUS, FakeNode, job, problem, serve

from mlchain import codec
from mlchain.client.client import Client
from mlchain.crypto import SecretKey
from mlchain.errors import (
    CodecError,
    NotFound,
    Rejected,
    Timeout,
    Unreachable,
    VerificationFailed,
)
from mlchain.ledger import unixfs
from mlchain.ledger.transaction import decode_transaction, verify_transaction
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.gas import intrinsic_gas

ALICE = SecretKey(b"a" * 32)


@pytest.fixture
def node():
    with serve() as fake:
        fake.routes["GET /v1/status"] = STATUS
        yield fake


@pytest.fixture
def client(node: FakeNode):
    with Client(node.url, poll_s=0.001) as made:
        yield made


def test_an_answer_is_the_documents_value(client):
    assert client.status()["height"] == 12


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFound), (400, Rejected), (422, Rejected), (429, Unreachable), (503, Unreachable)],
)
def test_a_problem_becomes_the_error_of_its_status_with_the_nodes_words(node, client, status, kind):
    node.routes["GET /v1/jobs/7f"] = problem(status, "x", "two jobs begin so", "give more digits")
    with pytest.raises(kind) as caught:
        client.job("7f")
    assert (caught.value.message, caught.value.hint) == ("two jobs begin so", "give more digits")


def test_an_error_page_of_a_proxy_is_an_error_too(node, client):
    node.routes["GET /v1/status"] = (502, b"<html>bad gateway</html>")
    with pytest.raises(Unreachable, match="HTTP 502"):
        client.status()


def test_nobody_at_the_address_is_unreachable():
    with serve() as gone:
        url = gone.url
    with Client(url) as client, pytest.raises(Unreachable, match="no node answers at"):
        client.status()


@pytest.mark.parametrize("url", ["", "127.0.0.1:1", "ftp://x", "http://["])
def test_something_that_is_not_an_http_address_is_unreachable(url):
    with pytest.raises(Unreachable), Client(url) as client:
        client.status()


def test_an_answer_that_is_not_json_is_refused(node, client):
    node.routes["GET /v1/status"] = b"hello"
    with pytest.raises(CodecError, match="else than a JSON"):
        client.status()


def test_an_answer_beyond_the_bound_is_refused(node, client, monkeypatch):
    monkeypatch.setattr("mlchain.client.http.MAX_ANSWER_BYTES", 1000)
    node.routes["GET /v1/jobs/7f/model"] = bytes(1001)
    with pytest.raises(CodecError, match="more than 1000 bytes"):
        client.model("7f")


def test_content_is_compared_with_its_id(node, client):
    cid = unixfs.cid_text(unixfs.cid_of(b"rows"))
    node.routes[f"GET /v1/data/{cid}"] = [b"rows", b"other rows"]
    assert client.data(cid) == b"rows"
    with pytest.raises(VerificationFailed, match="other bytes"):
        client.data(cid)


def test_the_id_of_uploaded_data_is_our_own_and_the_node_must_agree(node, client):
    cid = unixfs.cid_text(unixfs.cid_of(b"rows"))
    node.routes["POST /v1/data"] = [{"cid": cid}, {"cid": "bafkother"}]
    assert client.put_data(b"rows") == cid
    assert node.requests[-1] == ("POST /v1/data", b"rows")
    with pytest.raises(VerificationFailed):
        client.put_data(b"rows")


def test_a_request_is_signed_here_with_the_accounts_next_nonce(node, client):
    node.routes[f"GET /v1/accounts/{ALICE.public.hex()}"] = {"balance": 5, "nonce": 7}
    node.routes["POST /v1/txs"] = {"id": "ab" * 32}
    assert client.send(Transfer(b"b" * 32, 10), ALICE, gas=500) == "ab" * 32
    data = node.requests[-1][1]
    transaction = decode_transaction(data)
    verify_transaction(transaction)
    body = transaction.body
    assert (body.chain_id, body.nonce, body.kind) == ("test-1", 7, Transfer.KIND)
    assert codec.decode(Transfer, body.payload) == Transfer(b"b" * 32, 10)
    assert body.gas_limit >= intrinsic_gas(len(data)) + 500


def test_waiting_ends_when_a_block_has_the_transaction_and_says_for_what_it_waits(node, client):
    node.routes["GET /v1/txs/ab"] = [
        {"state": "pending"},
        {"state": "pending"},
        {"state": "included", "height": 13, "code": "ok"},
    ]
    said: list[str] = []
    assert client.wait("ab", notify=said.append)["height"] == 13
    assert said[0].startswith("waiting for transaction ab")
    assert "height 12, not connected: worker-1" in said[0]


def test_a_transaction_that_failed_in_its_block_is_rejected_with_the_reason(node, client):
    node.routes["GET /v1/txs/ab"] = {
        "state": "included",
        "height": 13,
        "code": "invalid-transaction",
        "message": "fee 1 is below 2",
    }
    with pytest.raises(Rejected, match="fee 1 is below 2"):
        client.wait("ab")


def test_waiting_for_a_transaction_ends_by_itself(node, client):
    node.routes["GET /v1/txs/ab"] = {"state": "unknown"}
    with pytest.raises(Timeout, match=r"waited 0.02 s for transaction ab .*worker-1"):
        client.wait("ab", timeout_s=0.02)


def test_following_yields_each_state_once_until_the_job_is_final(node, client):
    node.routes[f"GET /v1/jobs/{JOB_ID}"] = [
        job("submitted"),
        job("submitted"),
        job("running"),
        job("running"),
        job("settled"),
    ]
    assert [j["state"] for j in client.follow(JOB_ID)] == ["submitted", "running", "settled"]


@pytest.mark.parametrize("state", ["settled", "trapped", "expired"])
def test_every_final_state_ends_following(node, client, state):
    node.routes["GET /v1/jobs/7f"] = job(state)
    assert len(list(client.follow("7f"))) == 1


def test_following_a_job_that_stands_still_ends_and_names_what_it_waits_for(node, client):
    node.routes["GET /v1/jobs/7f"] = job("running")
    with pytest.raises(Timeout, match="worker-1 to train segment 1 of 2") as caught:
        list(client.follow("7f", patience_s=0.02))
    assert "goes on" in caught.value.hint


def test_lists_come_bare_or_beside_a_cursor(node, client):
    node.routes["GET /v1/jobs"] = [{"jobs": [job("running")], "next": None}]
    node.routes["GET /v1/validators"] = lambda _: (200, b'[{"name": "validator-1"}]')
    assert client.jobs("running", 5)[0]["id"] == JOB_ID
    assert node.requests[-1][0] == "GET /v1/jobs?limit=5&state=running"
    assert client.validators()[0]["name"] == "validator-1"
