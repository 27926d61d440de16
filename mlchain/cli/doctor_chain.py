"""What `mlchain doctor` looks at of a chain: its genesis, our keys in it, the way to others."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

from mlchain.cli.doctor import Finding
from mlchain.errors import MlchainError
from mlchain.ledger.genesis import Genesis, Member, load_genesis

CONNECT_S = 1.0
_KEY_NAMES = ("validator", "worker", "observer")


def examine_chain(file: Path, home: Path) -> Iterator[Finding]:
    """Yield a finding for each check; nothing is changed, no key is opened."""
    from mlchain.vm.registry import check_registry

    try:
        genesis = load_genesis(file)
        check_registry(genesis)
    except MlchainError as error:
        yield Finding("genesis", "bad", error.message, error.hint)
        return
    yield check_signatures(file, genesis)
    own, finding = check_keys(home, genesis)
    yield finding
    yield check_peers(genesis, own)


def check_signatures(file: Path, genesis: Genesis) -> Finding:
    """Look at who signed the genesis; on chains for tests nobody needs to."""
    from mlchain.client.ceremony import find_signatures, verify_signatures

    short = f"{genesis.hash.hex()[:4]}…{genesis.hash.hex()[-4:]}"
    try:
        signed = verify_signatures(genesis, find_signatures(file.parent))
    except MlchainError as error:
        return Finding("genesis", "bad", f"{short}, {error.message}", error.hint)
    text = f"{short}, {len(signed)} of {len(genesis.members)} members signed"
    missing = [member.name for member in genesis.members if member.name not in signed]
    if not missing:
        return Finding("genesis", "good", text)
    is_test = not signed and genesis.chain_id.startswith(("test-", "dev-"))
    return Finding(
        "genesis", "notice" if is_test else "bad", f"{text}; not {', '.join(missing)}",
        f"put their signatures beside {file}",
    )  # fmt: skip


def check_keys(home: Path, genesis: Genesis) -> tuple[list[Member], Finding]:
    """Look at whether the home's keys are those of members, with the right network key."""
    from mlchain.client.keystore import read_key_info

    own = []
    try:
        peer = read_key_info(home / "keys" / "peer.json").public
        for name in _KEY_NAMES:
            file = home / "keys" / f"{name}.json"
            if not file.exists():
                continue
            key = read_key_info(file).public
            member = next((m for m in genesis.members if m.key == key), None)
            if member is None:
                text = f"{file} is the key of no member of this genesis"
                return own, Finding("keys", "bad", text, "another home, or another genesis file")
            if member.peer != peer:
                text = f"{member.name} is known by another network key than keys/peer.json"
                return own, Finding("keys", "bad", text, "put back the peer key of the join file")
            own.append(member)
    except MlchainError as error:
        return own, Finding("keys", "bad", error.message, error.hint or "mlchain init")
    if not own:
        return own, Finding("keys", "notice", "of no member: the node will observe")
    return own, Finding("keys", "good", ", ".join(f"{m.name} ({m.role})" for m in own))


def check_peers(genesis: Genesis, own: list[Member]) -> Finding:
    """Try to connect to where the other members said their nodes are."""
    reached, silent = [], []
    for member in genesis.members:
        if member in own:
            continue
        started = time.perf_counter()
        try:
            socket.create_connection((member.host, member.port), CONNECT_S).close()
        except OSError:
            silent.append(member.name)
        else:
            reached.append(f"{member.name} {(time.perf_counter() - started) * 1000:.0f} ms")
    text = ", ".join([*reached, *(f"{name} does not listen" for name in silent)]) or "none"
    if silent:
        return Finding("peers", "notice", text, "a node not started yet, or a firewall")
    return Finding("peers", "good", text)
