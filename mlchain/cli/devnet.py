"""The files of `mlchain dev`: a genesis with published accounts, and the keys of its nodes.

DIR/genesis.json        the chain, made at the first start
DIR/<node>/             keys, database, log of votes and chunk states of one node
DIR/nodes.log           what the nodes say
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from mlchain.cli.localgenesis import ACCOUNTS, LOCAL_PARAMS, write_network
from mlchain.cli.localnet import NodePlan
from mlchain.client.keystore import dev_key, load_key
from mlchain.errors import ConfigError
from mlchain.ledger.genesis import DEV_PREFIX, Genesis, load_genesis
from mlchain.ledger.kv import LevelKeyValue
from mlchain.node.membership import Keys
from mlchain.node.together import LOG

VALIDATORS, WORKERS = 4, 2
"""Two workers: when one is caught, the other goes on with its work."""
CHEATS = {"worker": "skip:0.1", "validator": "lie"}
PARAMS = replace(LOCAL_PARAMS, ticket_heights=1 << 16, block_interval_ms=200)
"""Hash chains short enough that all validators of one process make theirs in a moment, and blocks
rare enough that they leave it time."""
MARK = "genesis.json"

Say = Callable[[str], None]


class DevNet:
    """The chain in `folder`. Opening it starts nothing."""

    def __init__(self, folder: Path, genesis: Genesis, cheats: Sequence[str]) -> None:
        """See `open_or_create`.

        Raises:
            ConfigError: a cheat that is no node.
        """
        self.folder, self.genesis = folder, genesis
        members = {member.name: member for member in genesis.members}
        for name in cheats:
            if name not in members:
                raise ConfigError(f"--cheat {name}: no such node", "nodes: " + ", ".join(members))
        self.cheats = {name: CHEATS[members[name].role] for name in cheats}

    @classmethod
    def open_or_create(
        cls, folder: Path, validators: int | None, reset: bool, cheats: Sequence[str], say: Say
    ) -> DevNet:
        """Return the chain that is kept in `folder`, made now if there is none.

        Raises:
            ConfigError: another number of validators, a cheat that is no node, or a folder that
                holds something else.
        """
        file = folder / MARK
        if reset and folder.exists():
            _check_ours(folder)
            _check_idle(folder)
            shutil.rmtree(folder)
        if not file.exists():
            if folder.exists():
                _check_ours(folder)
            count = validators or VALIDATORS
            say(f"making keys and genesis for {count} validators and {WORKERS} workers")
            names = [("validator", i) for i in range(1, count + 1)]
            names += [("worker", i) for i in range(1, WORKERS + 1)]
            plans = [NodePlan(f"{role}-{i}", role, 0, 0) for role, i in names]
            accounts = {name: dev_key(name) for name in ACCOUNTS}
            with _draft(folder) as fresh:  # who is stopped here leaves no half
                write_network(fresh, DEV_PREFIX + secrets.token_hex(3), plans, accounts, PARAMS)
                fresh.rename(folder)
        genesis = load_genesis(file)
        there = len(genesis.validators())
        if validators not in (None, there):
            raise ConfigError(
                f"the chain in {folder} has {there} validators, not {validators}",
                "--reset makes a new one, --dir keeps both",
            )
        return cls(folder, genesis, cheats)

    @property
    def genesis_file(self) -> Path:
        """What `mlchain audit` checks receipts against."""
        return self.folder / MARK

    def accounts(self) -> dict[str, bytes]:
        """Return the public keys of the funded accounts by name."""
        return {name: dev_key(name).public for name in ACCOUNTS}

    def keys(self) -> dict[str, Keys]:
        """Read the keys of all nodes.

        Raises:
            MlchainError: a file is damaged.
        """
        found = {}
        for member in self.genesis.members:
            folder = self.folder / member.name / "keys"
            key, peer = (load_key(folder / f"{n}.json") for n in (member.role, "peer"))
            is_validator = member.role == "validator"
            found[member.name] = Keys(
                peer, key if is_validator else None, None if is_validator else key
            )
        return found


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Give a new folder beside `folder`, of a name that nobody has; removed unless it was moved."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _check_ours(folder: Path) -> None:
    """Return if there is nothing in `folder` but a development chain.

    Raises:
        ConfigError: there is: it is not ours to remove.
    """
    ours = set()
    if (folder / MARK).exists():
        genesis = load_genesis(folder / MARK)
        if not genesis.is_dev:
            raise ConfigError(f"{folder} holds no development chain", "name another with --dir")
        ours = {MARK, LOG, *(member.name for member in genesis.members)}
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if strangers:
        raise ConfigError(
            f"{folder} holds something else: {strangers[0]}", "name another folder with --dir"
        )


def _check_idle(folder: Path) -> None:
    """Return if no process runs the chain in `folder`.

    Raises:
        ConfigError: one does.
    """
    for lock in folder.glob("*/data/LOCK"):
        LevelKeyValue(lock.parent).close()
        return
