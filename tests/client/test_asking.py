"""Asking a model: what the client does with what a node answers."""

from __future__ import annotations

import pytest
from fake_node import serve, transaction

from mlchain.client.client import Client
from mlchain.client.predictions import wait_for_answer
from mlchain.errors import Rejected, Timeout

REQUEST = "ab" * 32
ROUTE = f"GET /v1/predictions/{REQUEST}"


@pytest.fixture
def node():
    with serve() as made:
        yield made


@pytest.mark.parametrize("found", [{"state": "open"}, None], ids=["open", "in no block"])
def test_a_node_that_answers_at_once_is_not_asked_without_a_pause(node, found):
    """A node lets 32 clients wait, and answers others at once."""
    node.routes[ROUTE] = found
    node.routes[f"GET /v1/txs/{REQUEST}"] = transaction(state="pending", height=None, code=None)
    with (
        Client(node.url, poll_s=0.1) as client,
        pytest.raises(Timeout, match=r"is open|is waiting"),
    ):
        wait_for_answer(client, REQUEST, 0.35)
    asked = [route for route, _ in node.requests if route.startswith(ROUTE)]
    assert 2 <= len(asked) <= 6, "at 0, 0.1, 0.2, 0.3, 0.35; a slow machine asks less often"


def test_an_answer_that_is_there_is_taken_at_once(node, monkeypatch):
    node.routes[ROUTE] = {"state": "answered", "outcome": "answered"}
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("slept"))
    with Client(node.url) as client:
        assert wait_for_answer(client, REQUEST)["state"] == "answered"
        node.routes[ROUTE] = {"state": "failed"}
        with pytest.raises(Rejected):
            wait_for_answer(client, REQUEST)
