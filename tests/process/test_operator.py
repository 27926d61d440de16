"""The operator's first ten minutes, as docs/operate.md tells them, by four organisations here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from process.process_network import start_node, until

from mlchain.cli.localnet import _ports
from mlchain.errors import MlchainError

PAGE = Path(__file__).parents[2] / "docs" / "operate.md"
NAMES = ("aurora", "birch", "cedar", "delta")


def documented(word: str) -> str:
    """The command of the section that begins with `mlchain WORD`."""
    section = PAGE.read_text().split("## Begin a chain together\n")[1].split("\n## ")[0]
    (line,) = re.findall(rf"^mlchain {word}.*$", section, re.MULTILINE)
    return str(line)


class Organisation:
    """A folder that is its home, and what its operator types."""

    def __init__(self, folder: Path, name: str, ports: tuple[int, int]) -> None:
        self.name, self.home, (self.http, self.port) = name, folder / f"home-{name}", ports
        self.joins = self.home / "joins"
        self.joins.mkdir(parents=True)
        (self.home / "password.txt").write_text(f"password of {name}\n")

    @property
    def node(self) -> Path:
        return self.home / self.name

    def line(self, word: str, more: str = "") -> str:
        """A documented command as this organisation types it."""
        line = documented(word).replace("aurora", self.name)
        return line.replace("10.0.0.1:8644", f"127.0.0.1:{self.port}") + more

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLCHAIN", "XDG"))}
        bin_ = self.home / "bin"
        bin_.mkdir(exist_ok=True)
        script = bin_ / "mlchain"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m mlchain "$@"\n')
        script.chmod(0o755)
        root = str(Path(__file__).parents[2])
        return kept | {
            "HOME": str(self.home), "PYTHONPATH": root, "PATH": f"{bin_}:{os.environ['PATH']}",
            "MLCHAIN_URL": f"http://127.0.0.1:{self.http}",
        }  # fmt: skip

    def types(self, line: str, expected: int = 0, **variables: str) -> str:
        done = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, timeout=300, cwd=self.home,
            env=self.environment | variables, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == expected, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.mark.slow
def test_four_organisations_begin_a_chain_as_the_page_says(tmp_path):
    ports = _ports(4, None)
    everybody = [Organisation(tmp_path, name, own) for name, own in zip(NAMES, ports, strict=True)]
    quick = " --words-file ~/words.txt --cost test --ticket-heights 16384"
    for each in everybody:
        each.types(each.line("init", quick))
    for each in everybody:
        for other in everybody:
            shutil.copy(other.node / f"{other.name}.join.json", each.joins)

    # control: what was tampered with, or is missing, makes no genesis
    first = everybody[0]
    stolen = first.joins / "cedar.join.json"
    honest = stolen.read_text()
    stolen.write_text(honest.replace("127.0.0.1", "127.0.0.6"))
    assert "changed on its way" in first.types(first.line("genesis build"), 7)
    stolen.unlink()
    assert "3 join files, 4 are expected" in first.types(first.line("genesis build"), 2)
    stolen.write_text(honest)

    read = []
    for each in everybody:
        said = each.types(each.line("genesis build", " --set heartbeat_ms=500"))
        digits = said.split("read aloud")[1].split("then")[0]
        read.append(" ".join(digits.split()))
    assert len(set(read)) == 1 and len(read[0].replace(" ", "")) == 64
    heard = read[0]
    other = heard.replace(heard[0], "f" if heard[0] != "f" else "0")
    assert "others read" in first.types(first.line("genesis sign"), 7, HEARD=other)
    for each in everybody:
        each.types(each.line("genesis sign"), HEARD=heard)
    assert "not signed by birch, cedar, delta" in first.types(first.line("genesis show"), 7)
    for each in everybody:
        for one in everybody:
            if one is not each:
                shutil.copy(one.node / f"{one.name}.signature.json", each.node)
    wrong = first.node / "birch.signature.json"
    right = wrong.read_text()
    document = json.loads(right)
    first_byte = int(document["signature"][:2], 16)
    document["signature"] = f"{first_byte ^ 1:02x}" + document["signature"][2:]
    wrong.write_text(json.dumps(document))
    assert "signature of birch is wrong" in first.types(first.line("doctor"), 7)
    wrong.write_text(right)
    for each in everybody:
        each.types(each.line("genesis show"))
    assert "4 of 4 members signed" in first.types(first.line("doctor"))

    nodes = []
    try:
        for each in everybody:
            where = f" --http 127.0.0.1:{each.http} --until-stdin-closes"
            command = ["sh", "-c", "exec " + each.line("node", where)]
            nodes.append(start_node(command, each.home / "node.log", each.environment))
        until(lambda: all(_height(each) >= 3 for each in everybody), "blocks at all four")
        assert "all peers connected" in first.types(first.line("status"))
        assert "peers      birch" in first.types(first.line("doctor"))

        # money moves by a key that no node has: made here, signed there, sent from here
        payer, to = (_address(each) for each in everybody[:2])
        first.types(f"mlchain tx transfer {to} 5000000 --from {payer} --out pay.tx")
        cold = "--key ~/aurora/keys/account.json --password-file ~/password.txt"
        first.types(f"mlchain tx sign pay.tx {cold} --out pay.signed", MLCHAIN_URL="http://none:1")
        assert "transfer 5,000,000" in first.types("mlchain tx send pay.signed")
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.communicate(timeout=60)

    # the auditor has the archive, and the hash that was read aloud
    first.types("mlchain archive --home ~/aurora --out hearts-1.car")
    said = first.types(f"mlchain audit hearts-1.car --genesis '{heard}'")
    assert "4 of 4 members signed" in said and "state roots recomputed from genesis" in said
    assert (first.home / "hearts-1.car").exists() and list(first.home.glob("audit-hearts-1-*.html"))


def _address(each: Organisation) -> str:
    said = each.types(f"mlchain keys show account --keys-dir ~/{each.name}/keys --json")
    return str(json.loads(said)["data"]["address"])


def _height(each: Organisation) -> int:
    from mlchain.client.client import Client

    try:
        with Client(f"http://127.0.0.1:{each.http}", timeout_s=5) as client:
            return int(client.status()["height"])
    except MlchainError:
        return -1


@pytest.mark.parametrize(
    "word", ["init", "genesis build", "genesis sign", "genesis show", "doctor", "node", "status"]
)
def test_each_step_stands_on_the_page_once(word):
    assert documented(word).startswith(f"mlchain {word}")
