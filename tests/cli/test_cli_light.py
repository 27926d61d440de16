"""`mlchain light`: what it prints, where it keeps what it trusts, and what it refuses."""

import pytest
from factories import make_chain
from fake_node import serve

from mlchain import codec
from mlchain.consensus.light import Conflict, LightQuestion, make_answer, make_path
from mlchain.ledger.genesis import dump_genesis
from mlchain.vm.families.accounts import ACCOUNTS, Transfer


@pytest.fixture(scope="module")
def chain():
    chain = make_chain(4, 1)
    chain.grow(4)
    return chain


@pytest.fixture
def genesis(chain, home):
    (home / "genesis.json").write_text(dump_genesis(chain.genesis))
    return ("--genesis", "genesis.json")


def answer_from(node, chain):
    key = ACCOUNTS.key(chain.alice.public)
    node.routes["GET /v1/light"] = codec.encode(make_path(chain.store, LightQuestion(2**62, 0)))
    node.routes[f"GET /v1/state/{key.hex()}"] = codec.encode(make_answer(chain.store, key))


def test_it_follows_proves_and_remembers(chain, genesis, node, run, run_json, home):
    answer_from(node, chain)
    code, document = run_json("light", "sync", *genesis, "--url", node.url)
    assert code == 0 and document["data"]["height"] == 4 and document["data"]["from"] == 0
    assert document["data"]["agreed"] == [node.url]
    result = run("light", "sync", *genesis, "--url", node.url)
    assert "certified from #4 on" in result.stdout and "1 of 1 nodes know it" in result.stdout
    account = chain.alice.public.hex()
    code, document = run_json("light", "get", "account", account, *genesis, "--url", node.url)
    assert code == 0 and document["data"]["record"]["nonce"] == 0
    (kept,) = (home / "data" / "mlchain" / "light").iterdir()
    kept.write_bytes(b"x")
    assert run("light", "sync", *genesis, "--url", node.url).exit_code == 2


def test_a_lie_ends_with_7_and_no_node_with_4(chain, genesis, node, run):
    answer_from(node, chain)
    node.routes["GET /v1/light"] = codec.encode(make_path(chain.store, LightQuestion(2**62, 3)))
    start = ("--trust", f"4:{'00' * 32}")
    assert run("light", "sync", *genesis, "--url", node.url, *start).exit_code == 7
    assert run("light", "sync", *genesis, "--url", "http://127.0.0.1:9").exit_code == 4
    for trust in ("4", "x:00", f"0:{'00' * 32}", "4:zz"):
        assert run("light", "sync", *genesis, "--url", node.url, "--trust", trust).exit_code == 2
    hash_ = chain.store.commit(3).block_id.hex()
    found = run("light", "sync", *genesis, "--url", node.url, "--trust", f"3:{hash_}")
    assert found.exit_code == 0, found.stderr


def test_two_histories_end_with_7_and_a_file_that_shows_them(chain, genesis, node, run, home):
    answer_from(node, chain)
    other = make_chain(4, 1)
    other.send(Transfer(bytes(range(32)), 7))
    other.grow(4)
    with serve() as second:
        answer_from(second, other)
        result = run("light", "sync", *genesis, "--url", node.url, "--url", second.url)
    assert result.exit_code == 7 and "signed both" in result.stderr
    conflict = codec.decode(Conflict, (home / "conflict-4.evidence").read_bytes())
    assert conflict.first.header != conflict.second.header
