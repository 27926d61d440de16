"""A node that is given something bad says one clear line, ends with the right status, and no bug.

A validator's home with some blocks is made once; each test spoils a copy of it and starts a node.
"""

import json
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace
from process_network import Network, sender_key, start_node, until
from traffic import Sender

from mlchain.client.keystore import create_key
from mlchain.consensus.journal import noted_entry
from mlchain.ledger.commit import NIL, Vote, VoteKind, sign_bytes
from mlchain.ledger.genesis import dump_genesis
from mlchain.node.wal import WriteAheadLog

USAGE, DAMAGED, LOCKED = 2, 7, 8
BLOCKS = 12
NAME = "validator-1"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A network of one validator that was killed after some blocks, with content and votes."""
    network = Network(tmp_path_factory.mktemp("net"), 1, 1)
    try:
        network.start(NAME)
        network.wait_ready(NAME)
        network.client(NAME).put_data(bytes(range(256)) * 4096)
        url = network.plans[NAME].url
        sender = Sender(0, network.genesis.chain_id, lambda: [url])
        until(lambda: sender.step(True) or network.height(NAME) > BLOCKS, "blocks")
        network.kill(NAME)
        key = network.keys(NAME).validator
        log = WriteAheadLog(network.home(NAME) / "wal")
        for round_ in range(5):
            message = sign_bytes(network.genesis.chain_id, VoteKind.PREVOTE, 1, round_, NIL)
            vote = Vote(VoteKind.PREVOTE, 1, round_, NIL, key.public, b"", key.sign(message))
            log.append(noted_entry(1, vote), True)
        log.close()
        yield network
    finally:
        network.stop()


class Home:
    """A copy of the template's home to spoil, and the node that is started on it."""

    def __init__(self, template: Network, folder: Path) -> None:
        self.template, self.folder, self.path = template, folder, folder / NAME
        sockets = shutil.ignore_patterns("*.sock")  # a killed node leaves its own
        shutil.copytree(template.home(NAME), self.path, ignore=sockets)
        self.genesis = folder / "genesis.json"
        self.genesis.write_text(dump_genesis(template.genesis))
        self.log = self.path / "node.log"
        self.log.unlink()

    def write_genesis(self, **changes) -> None:
        self.genesis.write_text(dump_genesis(replace(self.template.genesis, **changes)))

    def start(self, *more: str) -> subprocess.Popen:
        net = self.template.net
        command = net.command(self.template.plans[NAME], True)
        command = [part.replace(str(self.template.folder), str(self.folder)) for part in command]
        return start_node([*command, *more], self.log)

    def refuses(self, status: int, *words: str, more: tuple[str, ...] = ()) -> None:
        """Start the node; it must end by itself, with this status and these words."""
        process = self.start(*more)
        try:
            process.wait(timeout=120)
        finally:
            process.kill()
            process.communicate()
        text = self.log.read_text()
        assert process.returncode == status, text
        assert all(word in text for word in words), text
        assert "Traceback" not in text and "a bug in mlchain" not in text

    def runs(self) -> int:
        """Start the node; it must answer. Return its height."""
        process = self.start()
        try:
            self.template.processes[NAME] = process
            with self.template.net.log_file(self.template.plans[NAME]).open("a"):
                self.template.wait_ready(NAME)
            height = self.template.height(NAME)
            assert "Traceback" not in self.log.read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, "ended in order"
            return height
        finally:
            process.kill()
            process.communicate()
            del self.template.processes[NAME]


@pytest.fixture
def home(template, tmp_path):
    return Home(template, tmp_path)


def flip(path: Path, at: float, count: int = 64) -> None:
    """Turn bytes over in the middle of a file."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + count] = bytes(byte ^ 0xFF for byte in data[start : start + count])
    path.write_bytes(data)


def test_an_untouched_home_runs_and_ends_in_order(home):
    assert home.runs() >= BLOCKS


def test_the_database_of_another_chain_is_refused(home):
    home.write_genesis(time_ms=home.template.genesis.time_ms + 1)
    home.refuses(USAGE, "the database holds another chain")


def test_a_chain_with_other_tables_is_refused(home):
    shutil.rmtree(home.path / "data")  # else it is the database that is of another chain
    home.write_genesis(registry=bytes(32))
    home.refuses(USAGE, "registry")
    home.write_genesis()
    assert home.runs() >= 0, "nothing of the refused chain is left in the way"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"chain_id"', '"chain"'),
        lambda text: json.dumps({**json.loads(text), "members": 7}),
        lambda text: "[" * 200_000,
        lambda text: text + " " * (20 << 20),
    ],
    ids=["half", "another type", "another key", "a wrong type", "nested deeply", "huge"],
)
def test_a_malformed_genesis_is_refused(home, spoil):
    home.genesis.write_text(spoil(home.genesis.read_text()))
    home.refuses(USAGE, "genesis.json")


@pytest.mark.parametrize("part", ["data", "content"])
def test_a_database_without_its_manifest_is_refused(home, part):
    for path in (home.path / part).glob("MANIFEST-*"):
        path.unlink()
    home.refuses(DAMAGED, str(home.path / part))


@pytest.mark.parametrize("part", ["data", "content"])
def test_a_damaged_manifest_is_refused(home, part):
    (path,) = (home.path / part).glob("MANIFEST-*")
    flip(path, 0.0, 8)
    home.refuses(DAMAGED, str(home.path / part))


@pytest.mark.parametrize("at", [0.1, 0.5])
def test_flipped_bytes_in_the_chain_are_found(home, at):
    files = [*(home.path / "data").glob("*.ldb"), *(home.path / "data").glob("*.log")]
    flip(max(files, key=lambda path: path.stat().st_size), at)
    home.refuses(DAMAGED, str(home.path / "data"))


def test_a_log_that_was_torn_off_at_its_end_is_no_damage(home):
    log = home.path / "wal" / "log"
    log.write_bytes(log.read_bytes()[:-7])
    assert home.runs() >= BLOCKS


def test_a_log_damaged_in_its_middle_is_refused(home):
    flip(home.path / "wal" / "log", 0.4, 3)
    home.refuses(DAMAGED, "wal/log, byte")


def test_a_log_that_another_program_wrote_is_refused(home):
    log = WriteAheadLog(home.path / "wal")
    log.append(b"\x07 other words", True)
    log.close()
    home.refuses(DAMAGED, "write-ahead log")


@pytest.mark.parametrize("garbage", [b"garbage", bytes(5000)], ids=["short", "long"])
def test_a_damaged_last_signature_is_refused(home, garbage):
    (home.path / "wal" / "last-sign").write_bytes(garbage)
    home.refuses(DAMAGED, "signature")


def test_a_lost_last_signature_is_refused_until_the_operator_says_it_is_safe(home):
    path = home.path / "wal" / "last-sign"
    path.unlink()
    home.refuses(DAMAGED, "last-sign: missing", "make an empty file")
    path.touch()
    assert home.runs() >= BLOCKS


@pytest.mark.parametrize("flag", ["--http", "--listen"])
def test_a_port_in_use_is_named(home, flag):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home.refuses(USAGE, str(port), more=(flag, f"127.0.0.1:{port}"))


def test_a_node_without_its_peer_key_is_refused(home):
    (home.path / "keys" / "peer.json").unlink()
    home.refuses(USAGE, "peer.json: no such key")


def test_a_peer_key_that_is_not_the_members_is_refused(home):
    create_key(home.path / "keys" / "peer.json", sender_key(77), None, force=True)
    home.refuses(USAGE, "the chain knows validator-1 by", "mlchain gov rotate")


def test_a_validators_key_that_no_member_has_follows_until_it_is_one(home):
    create_key(home.path / "keys" / "validator.json", sender_key(77), None, force=True)
    process = home.start()
    try:
        until(lambda: home.log.exists() and "started" in home.log.read_text(), "the node")
        text = home.log.read_text()
        assert "not-a-member-yet" in text and sender_key(77).public.hex()[:16] in text
    finally:
        process.kill()
        process.communicate()


def test_a_damaged_key_file_is_refused(home):
    (home.path / "keys" / "validator.json").write_text('{"schema": "mlchain.key/1"')
    home.refuses(USAGE, "validator.json")


def test_a_second_process_on_the_same_home_is_refused(home):
    first = home.start()
    try:
        until(lambda: home.log.exists() and "started" in home.log.read_text(), "the first")
        home.log.rename(home.path / "first.log")
        home.refuses(USAGE, "in use")
        assert first.poll() is None, "the first one goes on"
    finally:
        first.kill()
        first.communicate()
