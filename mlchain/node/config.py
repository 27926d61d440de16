"""Configuration of one node: where its files are, where it listens, how it logs.

A value is taken from the first of: the flag, the variable `MLCHAIN_<KEY>`, the table `[node]` of
`./mlchain.toml`, that of `~/.config/mlchain/config.toml`, the built-in default. A path in a file
is relative to that file's folder, one in a flag or variable to the working directory.

The home folder holds everything that is this node and nobody else:

    home/genesis.json   the chain
    home/keys/          validator.json or worker.json, and peer.json
    home/data/          the database of blocks and state
    home/content/       datasets, models and chunk states
    home/wal/           votes and locks that must survive a crash
    home/snapshots/     the state after some blocks, for those who catch up
    home/admin.sock     where the operator's commands find the running node
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlchain.errors import ConfigError
from mlchain.ledger.genesis import DEV_PREFIX
from mlchain.node.executor_address import parse_executor

MAX_CONFIG_BYTES = 64 << 10
TABLE = "node"
"""The node's part of a configuration file; the others belong to commands."""

LOG_FORMATS = ("text", "json")

SYNC_MODES = ("auto", "snapshot", "blocks")

MIN_KEPT = 100
"""Fewer blocks cannot be kept: peers that missed some must find them."""

BACKEND_NAMES = ("numpy", "numba", "torch", "torch:cuda")
"""Those of `ml_runtime.backends` that a node may use; here too, as that one loads numpy."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: an IP address or host name, and a port (0 lets the system choose)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class Config:
    """A node's configuration, complete and checked. All paths are absolute.

    A key file that does not exist means the node does not play that role; the peer key must
    exist. `password_file` holds the password of encrypted key files: a daemon never asks.
    """

    home: Path
    genesis: Path
    p2p_listen: Address
    http_listen: Address
    admin_socket: Path
    """Where the operator of the running node finds it."""
    validator_key: Path
    worker_key: Path
    peer_key: Path
    password_file: Path | None
    log_format: str
    executor: str
    """Where a worker's steps run (`executor_address`); empty for its own process."""
    sync: str
    """How a node that is behind catches up: one of `SYNC_MODES`."""
    trust: tuple[int, bytes] | None
    """Height and id of a block from which snapshots are trusted, instead of from the genesis."""
    snapshot_every: int | None
    """Blocks between two snapshots; 0 for none, None for the chain's epochs."""
    keep_blocks: int
    """Blocks kept, 0 for all."""
    content_quota: int
    """Bytes of content kept beyond what the chain needs and the operator pins, 0 for no bound."""
    backend: str
    """What computes them, and what a validator re-runs, in the node's own processes."""
    recheck: bool
    """Whether a worker runs one chunk of each own commit again, drawn by chance."""

    @property
    def data(self) -> Path:
        """Folder of the database of blocks and state."""
        return self.home / "data"

    @property
    def content(self) -> Path:
        """Folder of the content store."""
        return self.home / "content"

    @property
    def snapshots(self) -> Path:
        """Folder of snapshots of the state."""
        return self.home / "snapshots"

    @property
    def wal(self) -> Path:
        """Folder of the write-ahead log and the signer's last state."""
        return self.home / "wal"

    def check_exposure(self, chain_id: str) -> None:
        """Return unless a chain with published keys would be reachable from other machines.

        Raises:
            ConfigError: it would.
        """
        for key, where in (("p2p_listen", self.p2p_listen), ("http_listen", self.http_listen)):
            check_exposure(chain_id, key, where)


def check_exposure(chain_id: str, key: str, where: Address) -> None:
    """Return unless a chain with published keys would be reachable from other machines at `where`.

    Raises:
        ConfigError: it would; `key` is what says so.
    """
    if chain_id.startswith(DEV_PREFIX) and not where.is_loopback:
        raise ConfigError(
            f"{key}: {where} is open to other machines, but everybody has the keys of "
            f"chain {chain_id}",
            "listen on 127.0.0.1, or make a chain of your own",
        )


def parse_address(text: str, where: str) -> Address:
    """Return HOST:PORT as an address; `where` says where it stands, for the error.

    Raises:
        ConfigError: not of that form.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigError(f"{where}: {text!r} is not host:port", "as in 127.0.0.1:8644")
    return Address(host, int(port))


def load_config(
    flags: Mapping[str, str | Path | None],
    environ: Mapping[str, str],
    working_folder: Path,
    user_folder: Path,
) -> Config:
    """Gather the configuration of a node.

    Args:
        flags: values from the command line by key; None counts as not given.
        environ: the process environment.
        working_folder: where `mlchain.toml` is looked for.
        user_folder: the user's home.

    Raises:
        ConfigError: an unreadable file, an unknown key or a bad value; says in which file and key.
    """
    sources = [
        _Source("--", working_folder, {k: str(v) for k, v in flags.items() if v is not None}),
        _Source("MLCHAIN_", working_folder, _from_environ(environ)),
        _read(working_folder / "mlchain.toml"),
        _read(_base(environ, user_folder, "XDG_CONFIG_HOME", ".config") / "config.toml"),
    ]
    home = _pick(sources, "home", _path)
    if home is None:
        home = _base(environ, user_folder, "XDG_DATA_HOME", ".local/share") / "node"

    def path(key: str, default: str) -> Path:
        return _pick(sources, key, _path) or home / default

    return Config(
        home=home,
        genesis=path("genesis", "genesis.json"),
        p2p_listen=_pick(sources, "p2p_listen", _address) or Address("127.0.0.1", 8644),
        http_listen=_pick(sources, "http_listen", _address) or Address("127.0.0.1", 8645),
        admin_socket=path("admin_socket", "admin.sock"),
        validator_key=path("validator_key", "keys/validator.json"),
        worker_key=path("worker_key", "keys/worker.json"),
        peer_key=path("peer_key", "keys/peer.json"),
        password_file=_pick(sources, "password_file", _path),
        log_format=_pick(sources, "log_format", _log_format) or "text",
        executor=_pick(sources, "executor", _executor) or "",
        sync=_pick(sources, "sync", _sync) or SYNC_MODES[0],
        trust=_pick(sources, "trust", _trust),
        snapshot_every=_pick(sources, "snapshot_every", _count),
        keep_blocks=_pick(sources, "keep_blocks", _keep) or 0,
        content_quota=_pick(sources, "content_quota", _bytes) or 0,
        backend=_pick(sources, "backend", _backend) or BACKEND_NAMES[0],
        recheck=_pick(sources, "recheck", _switch) or False,
    )


_SIZE = re.compile(r"([0-9]{1,15}) ?([KMGT]?)B?", re.ASCII)

KEYS = tuple(Config.__dataclass_fields__)
"""Every key of the table `[node]`; also flags, with `-` for `_`, and variables, in capitals."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Values from one place. `label` with a key says where a value stands, for errors."""

    label: str
    folder: Path
    values: Mapping[str, Any]

    def where(self, key: str) -> str:
        if self.label == "--":
            return "--" + key.replace("_", "-")
        return self.label + (key.upper() if self.label == "MLCHAIN_" else key)


def _pick(sources: list[_Source], key: str, parse: Callable[[str, Path, str], T]) -> T | None:
    for source in sources:
        if key in source.values:
            value = source.values[key]
            where = source.where(key)
            if not isinstance(value, str) or not value:
                raise ConfigError(f"{where}: expected text, not {value!r}")
            return parse(value, source.folder, where)
    return None


def _from_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the node's variables; an empty one counts as not set, as is usual in a shell."""
    named = {key: environ.get("MLCHAIN_" + key.upper(), "") for key in KEYS}
    return {key: value for key, value in named.items() if value}


def _read(file: Path) -> _Source:
    """Return the table `[node]` of a file, empty if there is no such file."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_CONFIG_BYTES + 1)
        if len(text) > MAX_CONFIG_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_CONFIG_BYTES} bytes")
        table = tomllib.loads(text.decode()).get(TABLE, {})
    except FileNotFoundError:
        table = {}
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: {TABLE}: expected a table")
    values = {key: value for key, value in table.items() if not isinstance(value, dict)}
    for key in values:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            hint = f"did you mean {near[0]}?" if near else "keys: " + ", ".join(KEYS)
            raise ConfigError(f"{file}: {TABLE}.{key}: no such key", hint)
    return _Source(f"{file}: {TABLE}.", file.parent, values)


def _base(environ: Mapping[str, str], user_folder: Path, variable: str, usual: str) -> Path:
    return Path(environ.get(variable) or user_folder / usual) / "mlchain"


def _path(text: str, folder: Path, where: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{where}: {error}") from error
    return (folder / path).absolute()


def _address(text: str, folder: Path, where: str) -> Address:
    return parse_address(text, where)


def _log_format(text: str, folder: Path, where: str) -> str:
    if text not in LOG_FORMATS:
        raise ConfigError(f"{where}: {text!r} is none of " + ", ".join(LOG_FORMATS))
    return text


def _sync(text: str, folder: Path, where: str) -> str:
    if text not in SYNC_MODES:
        raise ConfigError(f"{where}: {text!r} is none of " + ", ".join(SYNC_MODES))
    return text


def _trust(text: str, folder: Path, where: str) -> tuple[int, bytes]:
    height, _, block_id = text.partition(":")
    try:
        found = int(height), bytes.fromhex(block_id)
    except ValueError:
        found = 0, b""
    if found[0] <= 0 or len(found[1]) != 32:
        raise ConfigError(f"{where}: {text!r} is not HEIGHT:HASH", "the hash is 64 hex digits")
    return found


def _count(text: str, folder: Path, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ConfigError(f"{where}: {text!r} is not a number of blocks")
    return int(text)


def _bytes(text: str, folder: Path, where: str) -> int:
    found = _SIZE.fullmatch(text)
    if not found:
        raise ConfigError(f"{where}: {text!r} is not a number of bytes", "as in 500MB or 20GB")
    size: int = int(found[1]) * 1000 ** " KMGT".index(found[2] or " ")
    return size


def _keep(text: str, folder: Path, where: str) -> int:
    if text == "all":
        return 0
    count = _count(text, folder, where)
    if count < MIN_KEPT:
        raise ConfigError(f"{where}: at least {MIN_KEPT} blocks are kept", "or all")
    return count


def _switch(text: str, folder: Path, where: str) -> bool:
    if text not in ("on", "off"):
        raise ConfigError(f"{where}: {text!r} is neither on nor off", "on or off")
    return text == "on"


def _backend(text: str, folder: Path, where: str) -> str:
    if text not in BACKEND_NAMES:
        raise ConfigError(f"{where}: {text!r} is none of " + ", ".join(BACKEND_NAMES))
    return text


def _executor(text: str, folder: Path, where: str) -> str:
    try:
        parse_executor(text)
    except ConfigError as error:
        reason = error.message.removeprefix("executor: ")
        raise ConfigError(f"{where}: {reason}", error.hint) from error
    return text
