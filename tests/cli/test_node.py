"""mlchain node: what it refuses before anything runs, and the keys it takes."""

from types import SimpleNamespace

import pytest

from mlchain.cli.localnet import LocalNet
from mlchain.cli.node import load_keys
from mlchain.client.keystore import MIN_COST, create_key, dev_key
from mlchain.crypto import SecretKey
from mlchain.ledger.genesis import dump_genesis, load_genesis
from mlchain.node.config import load_config


@pytest.fixture
def net(home, short_chains):
    return LocalNet.create(home / "net", 1, 1, 9000, {})


@pytest.fixture
def genesis_of(net, home):
    """Write the network's genesis under another chain id and return the file's name."""
    from msgspec.structs import replace

    def write(chain_id: str) -> str:
        path = home / f"{chain_id}.json"
        path.write_text(dump_genesis(replace(load_genesis(net.genesis), chain_id=chain_id)))
        return str(path)

    return write


def test_a_missing_genesis_is_named(run):
    result = run("node", "--genesis", "none.json")
    assert (result.exit_code, "none.json: No such file" in result.stderr) == (2, True)


def test_a_chain_with_published_keys_stays_on_this_machine(run, genesis_of):
    for flag in ("--http", "--listen"):
        result = run("node", "--genesis", genesis_of("dev-1"), flag, "0.0.0.0:9000")
        assert result.exit_code == 2
        assert "open to other machines" in result.stderr


def test_misbehaviour_is_for_test_chains_only(run, genesis_of):
    result = run("node", "--genesis", genesis_of("bank-1"), "--adversary", "skip:0.02")
    assert result.exit_code == 2
    assert "--adversary is for tests; chain bank-1 is not one" in result.stderr


def test_a_node_without_a_key_for_its_connections_says_how_to_make_one(run, genesis_of):
    result = run("node", "--genesis", genesis_of("bank-1"), "--home", "aurora")
    assert result.exit_code == 2
    assert "mlchain keys new peer --keys-dir" in result.stderr


def test_a_locked_key_ends_a_node_at_once_instead_of_asking(run, net, genesis_of, home):
    keys = home / "aurora" / "keys"
    create_key(keys / "peer.json", SecretKey(b"p" * 32), None)
    create_key(keys / "validator.json", SecretKey(b"v" * 32), "password", cost=MIN_COST)
    result = run("node", "--genesis", genesis_of("bank-1"), "--home", "aurora")
    assert (result.exit_code, "needs a password" in result.stderr) == (8, True)


def test_a_node_has_the_roles_of_the_keys_it_finds(net):
    genesis = load_genesis(net.genesis)
    for member, node in zip(genesis.members, net.nodes, strict=True):
        config = load_config({"home": net.folder / node.name}, {}, net.folder, net.folder)
        keys = load_keys(config, genesis)
        assert keys.peer.public == member.peer
        own = keys.validator if node.role == "validator" else keys.worker
        assert own is not None and own.public == member.key
        assert (keys.validator is None) == (node.role == "worker")


def test_published_keys_are_taken_on_development_chains_without_keys_of_their_own(net, home):
    config = load_config({"home": home / "empty"}, {}, home, home)
    keys = load_keys(config, SimpleNamespace(is_dev=True))
    assert keys.validator.public == dev_key("validator").public
    assert keys.worker.public == dev_key("worker").public
    own = load_config({"home": net.folder / "worker-1"}, {}, home, home)
    assert load_keys(own, SimpleNamespace(is_dev=True)).validator is None


def test_options_reach_the_node(run, net, monkeypatch):
    seen = {}

    def run_node(config, keys, api, misbehaviour="", is_repair=False):
        seen.update(config=config, keys=keys, misbehaviour=misbehaviour, address=api._address)

    monkeypatch.setattr("mlchain.node.main.run_node", run_node)
    node = net.nodes[1]
    arguments = net.command(node, is_tied=False)[3:]
    assert run(*arguments, "--adversary", "skip:0.5").exit_code == 0
    assert seen["address"] == ("127.0.0.1", node.http_port)
    assert seen["config"].p2p_listen.port == node.peer_port
    assert seen["config"].home == net.folder / "worker-1"
    assert seen["misbehaviour"] == "skip:0.5"
    assert seen["keys"].worker is not None


def test_a_development_chain_has_a_home_of_its_own(run, genesis_of, monkeypatch, home):
    seen = []
    monkeypatch.setattr("mlchain.node.main.run_node", lambda config, *_: seen.append(config.home))
    assert run("node", "--genesis", genesis_of("dev-7")).exit_code == 0
    assert seen == [home / "data" / "mlchain" / "dev-7"]
