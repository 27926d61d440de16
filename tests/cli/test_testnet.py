"""Local networks, with a stand-in for the node: real processes, ports, logs and pids."""

import json
import os
import sys
import time
from time import sleep

import pytest
from stand_in import STAND_IN

from mlchain.cli.localnet import LocalNet
from mlchain.cli.testnet import WATCH_S
from mlchain.client.keystore import load_key
from mlchain.consensus.work.tickets import PURPOSES, make_chain
from mlchain.errors import ConfigError, Timeout, Unreachable
from mlchain.ledger.genesis import load_genesis
from mlchain.vm.registry import check_registry

DEAF = "import time; print('I hear nothing', flush=True); time.sleep(60)"
DYING = "print('no such key'); raise SystemExit(2)"


@pytest.fixture
def net(tmp_path, behaviour):
    made = LocalNet.create(tmp_path / "net", 2, 1, None, {"worker-1": "skip:0.02"})
    yield made
    made.stop()


def silent(_: str) -> None:
    pass


def test_a_network_has_a_genesis_all_its_keys_fit(net):
    genesis = load_genesis(net.genesis)
    check_registry(genesis)
    assert genesis.chain_id.startswith("test-")
    assert [(m.name, m.role) for m in genesis.members] == [
        ("validator-1", "validator"),
        ("validator-2", "validator"),
        ("worker-1", "worker"),
    ]
    for member, node in zip(genesis.members, net.nodes, strict=True):
        keys = net.folder / node.name / "keys"
        key = load_key(keys / f"{node.role}.json")
        assert (key.public, load_key(keys / "peer.json").public) == (member.key, member.peer)
        assert (member.host, member.port) == ("127.0.0.1", node.peer_port)
        if node.role == "validator":
            length = genesis.params.ticket_heights
            tips = [make_chain(key, each, genesis.chain_id, length).tip for each in PURPOSES]
            assert [member.ticket_tip, member.beacon_tip, member.custody_tip] == tips
    funded = {allocation.account: allocation.amount for allocation in genesis.allocations}
    assert funded[load_key(net.folder / "keys" / "alice.json").public] > 0
    assert all(funded[member.key] > 0 for member in genesis.members), "members pay gas"


def test_it_starts_once_answers_and_stops(net):
    assert len(net.start()) == 3
    net.wait_ready(20, silent)
    assert net.start() == [], "what runs is left alone"
    again = LocalNet.open(net.folder)
    assert again is not None and again.nodes == net.nodes
    assert [(node.name, pid is not None) for node, pid, status in again.status() if status] == [
        ("validator-1", True),
        ("validator-2", True),
        ("worker-1", True),
    ]
    assert again.stop() == ["validator-1", "validator-2", "worker-1"]
    assert again.stop() == []
    assert all(net.pid(node) is None for node in net.nodes)


def test_waiting_names_the_nodes_that_do_not_answer_and_ends(net, behaviour):
    behaviour["validator-2"] = DEAF
    net.start()
    said: list[str] = []
    with pytest.raises(Timeout, match="1 of 3 nodes to answer: validator-2"):
        net.wait_ready(5, said.append)
    assert said[-1] == "waiting for 1 of 3 nodes to answer: validator-2"


def test_waiting_names_links_that_are_missing(net, behaviour):
    behaviour["worker-1"] = STAND_IN.replace("True}]", "False}]")
    net.start()
    with pytest.raises(Timeout, match="for worker-1 to reach p"):
        net.wait_ready(5, silent)


def test_a_node_that_ends_by_itself_is_shown_with_the_end_of_its_log(net, behaviour):
    behaviour["validator-1"] = DYING
    net.start()
    with pytest.raises(Unreachable, match=r"validator-1 ended by itself:\n  no such key"):
        net.wait_ready(20, silent)


def test_tied_nodes_end_with_the_process_that_started_them(tmp_path, behaviour):
    net = LocalNet.create(tmp_path / "net", 1, 1, None, {})
    starter = os.fork()
    if starter == 0:
        net.start(is_tied=True)
        os._exit(0)
    os.waitpid(starter, 0)
    deadline = time.monotonic() + 10
    while any(net.pid(node) is not None for node in net.nodes):
        assert time.monotonic() < deadline, "they live on"
        time.sleep(0.02)
    assert all(net.log_file(node).exists() for node in net.nodes), "they did start"


def test_the_nodes_own_command_line_names_everything(tmp_path, short_chains):
    net = LocalNet.create(tmp_path / "net", 1, 1, 9000, {"worker-1": "skip:0.02"})
    command = net.command(net.nodes[1], is_tied=True)
    assert command[:4] == [sys.executable, "-m", "mlchain", "node"]
    options = dict(zip(command[4:-1:2], command[5:-1:2], strict=True))
    home = net.folder / "worker-1"
    assert options == {
        "--genesis": str(net.genesis),
        "--home": str(home),
        "--http": "127.0.0.1:9001",
        "--listen": "127.0.0.1:9101",
        "--validator-key": str(home / "keys" / "validator.json"),
        "--worker-key": str(home / "keys" / "worker.json"),
        "--peer-key": str(home / "keys" / "peer.json"),
        "--adversary": "skip:0.02",
    }
    assert command[-1] == "--until-stdin-closes"


@pytest.mark.parametrize(("cheats", "count"), [({"worker-9": "skip:1"}, 1), ({}, 40)])
def test_impossible_networks_are_refused(tmp_path, cheats, count):
    with pytest.raises(ConfigError):
        LocalNet.create(tmp_path / "net", count, 1, None, cheats)
    assert not (tmp_path / "net" / "net.json").exists()


def test_a_damaged_description_is_refused(tmp_path):
    (tmp_path / "net.json").write_text('[{"name": "x"}]')
    with pytest.raises(ConfigError, match=r"net\.json"):
        LocalNet.open(tmp_path)


# ---- the commands ---------------------------------------------------------------------------


@pytest.fixture
def testnet(run, home, behaviour):
    """Run `mlchain testnet` on a folder of its own and free ports; stop what is left at the end."""
    folder = str(home / "net")

    def invoke(name, *arguments):
        if name in ("up", "run"):
            arguments = ("-n", "1", "-w", "1", "--base-port", "0", *arguments)
        return run("testnet", name, "--dir", folder, *arguments)

    yield invoke
    invoke("stop")


def test_up_status_stop_each_may_be_repeated(testnet):
    assert testnet("status").exit_code == 3, "nothing is there yet"
    first = testnet("up")
    assert first.exit_code == 0, first.stderr
    assert "started validator-1, worker-1" in first.stderr
    assert "submit-job examples/iris.toml --key" in first.stdout
    second = testnet("up")
    assert (second.exit_code, "already running" in second.stderr) == (0, True)
    status = testnet("status", "--json")
    nodes = json.loads(status.stdout)["data"]["nodes"]
    assert [(n["name"], n["state"], n["height"]) for n in nodes] == [
        ("validator-1", "running", 1),
        ("worker-1", "running", 1),
    ]
    assert testnet("stop").stdout == "stopped validator-1, worker-1\n"
    assert testnet("stop").stdout == "nothing was running\n"
    assert testnet("status").exit_code == 4


def test_state_is_kept_until_a_reset(testnet, home):
    assert testnet("up").exit_code == 0
    chain_id = load_genesis(home / "net" / "genesis.json").chain_id
    testnet("stop")
    assert testnet("up").exit_code == 0
    assert load_genesis(home / "net" / "genesis.json").chain_id == chain_id
    assert testnet("up", "--reset").exit_code == 0
    assert load_genesis(home / "net" / "genesis.json").chain_id != chain_id
    assert testnet("stop", "--reset").exit_code == 0
    assert not (home / "net").exists()


def test_another_shape_than_the_one_there_is_refused(testnet):
    assert testnet("up").exit_code == 0
    result = testnet("up", "--cheat", "worker-1=skip:1")
    assert result.exit_code == 2
    assert "holds another network: 1 validators, 1 workers" in result.stderr
    assert "--reset" in result.stderr


def test_up_that_fails_stops_what_it_started(testnet, behaviour):
    behaviour["worker-1"] = DYING
    result = testnet("up")
    assert (result.exit_code, "worker-1 ended by itself" in result.stderr) == (4, True)
    assert testnet("stop").stdout == "nothing was running\n"


@pytest.mark.parametrize("cheat", ["worker-1", "=skip", "worker-7=skip:1"])
def test_a_cheat_that_cannot_be_is_refused(testnet, cheat):
    assert testnet("up", "--cheat", cheat).exit_code == 2


def test_run_stays_in_the_foreground_and_leaves_nothing(testnet, monkeypatch):
    def interrupt(seconds):
        if seconds == WATCH_S:
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr("time.sleep", interrupt)
    result = testnet("run")
    assert result.exit_code == 0, result.stderr
    assert "ctrl-c stops the network" in result.stderr
    assert testnet("status").exit_code == 4
