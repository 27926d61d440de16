"""Local networks, with a stand-in for the node: real processes, ports, logs and pids."""

import json
import os
import sys
import time

import pytest

from mlchain.cli import process
from mlchain.cli.localnet import LocalNet
from mlchain.client.keystore import load_key
from mlchain.consensus.work.tickets import BEACON, TICKETS, make_chain
from mlchain.errors import ConfigError, Timeout, Unreachable
from mlchain.ledger.genesis import load_genesis
from mlchain.vm.registry import check_registry

STAND_IN = """
import http.server, json, os, sys, threading
port, is_tied = int(sys.argv[1]), sys.argv[2] == "tied"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data = json.dumps({"height": 1, "peers": [{"name": "p", "connected": True}]}).encode()
        self.send_response(200); self.send_header("content-length", str(len(data)))
        self.end_headers(); self.wfile.write(data)
    def log_message(self, *_): pass
if is_tied:
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
DEAF = "import time; print('I hear nothing', flush=True); time.sleep(60)"
DYING = "print('no such key'); raise SystemExit(2)"


@pytest.fixture
def behaviour(monkeypatch):
    """Let nodes be stand-ins; the dictionary names scripts for those that shall differ."""
    scripts: dict[str, str] = {}

    def command(net, node, is_tied):
        script = scripts.get(node.name, STAND_IN)
        return [sys.executable, "-c", script, str(node.http_port), "tied" if is_tied else "free"]

    monkeypatch.setattr(LocalNet, "command", command)
    monkeypatch.setattr(process, "STOP_S", 2.0)
    return scripts


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
            assert member.ticket_tip == make_chain(key, TICKETS, genesis.chain_id, length).tip
            assert member.beacon_tip == make_chain(key, BEACON, genesis.chain_id, length).tip
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
        net.wait_ready(2, said.append)
    assert said[-1] == "waiting for 1 of 3 nodes to answer: validator-2"


def test_waiting_names_links_that_are_missing(net, behaviour):
    behaviour["worker-1"] = STAND_IN.replace("True}]", "False}]")
    net.start()
    with pytest.raises(Timeout, match="for worker-1 to reach p"):
        net.wait_ready(2, silent)


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


def test_the_nodes_own_command_line_names_everything(tmp_path):
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
    """Run `mlchain testnet` on a folder and ports of its own; stop what is left at the end."""
    folder = str(home / "net")
    base = LocalNet.create(home / "probe", 1, 0, None, {}).nodes[0].http_port
    base = min(base, 60_000)

    def invoke(name, *arguments):
        if name in ("up", "run"):
            arguments = ("-n", "1", "-w", "1", "--base-port", str(base), *arguments)
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


@pytest.mark.parametrize("cheat", ["worker-1", "=skip", "worker-7=skip:1"])
def test_a_cheat_that_cannot_be_is_refused(testnet, cheat):
    assert testnet("up", "--cheat", cheat).exit_code == 2


def test_run_stays_in_the_foreground_and_leaves_nothing(testnet, home, monkeypatch):
    waited: list[float] = []

    def interrupt(self, timeout):
        waited.append(timeout)
        raise KeyboardInterrupt

    monkeypatch.setattr("threading.Event.wait", _only_main(interrupt))
    result = testnet("run")
    assert result.exit_code == 0, result.stderr
    assert "ctrl-c stops the network" in result.stderr and waited
    assert testnet("status").exit_code == 4


def _only_main(replacement):
    """Other threads (and what Python itself waits for) keep the real method."""
    import threading

    real = threading.Event.wait

    def wait(self, timeout=None):
        return replacement(self, timeout) if timeout == 1.0 else real(self, timeout)

    return wait
