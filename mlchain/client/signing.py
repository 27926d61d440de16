"""Which key signs: a published one on development chains, otherwise a key file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mlchain.client.keystore import (
    DEV_KEY_NAMES,
    dev_key,
    list_keys,
    load_key,
    read_key_info,
    read_password,
)
from mlchain.crypto import SecretKey
from mlchain.errors import ConfigError, Locked, NotFound
from mlchain.ledger.genesis import DEV_PREFIX

Ask = Callable[[str], str]
"""Asks a person for the password that its argument describes, or raises `Locked`."""


def nobody_to_ask(prompt: str) -> str:
    """Refuse to ask: this program has no terminal.

    Raises:
        Locked: always.
    """
    raise Locked(f"{prompt}: nobody to ask", "name a password file")


def keys_folder() -> Path:
    """Return the folder that keys are looked for in unless another is named."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "mlchain" / "keys"


def load_signer(
    chain_id: str,
    name: str | None,
    folder: Path,
    password_file: Path | None,
    ask: Ask = nobody_to_ask,
) -> tuple[str, SecretKey]:
    """Return the name and the key that shall sign for `chain_id`.

    `name` is that of a key in `folder`, of a published test key (development chains only), or the
    path of a key file. Without a name the only key there is gets used: on development chains the
    published `alice`, elsewhere the one in `folder`.

    Raises:
        NotFound: no such key.
        ConfigError: several keys and no name.
        Locked: it needs a password, and neither a file nor a person gives one.
    """
    is_dev = chain_id.startswith(DEV_PREFIX)
    if is_dev and (name is None or name in DEV_KEY_NAMES):
        return name or "alice", dev_key(name or "alice")
    path = key_path(name, folder) if name is not None else _only_key(folder)
    return path.stem, open_key(path, password_file, ask)


def key_path(name: str, folder: Path) -> Path:
    """Return the key file that `name` means: a path if it looks like one, else one in `folder`."""
    if "/" in name or name.endswith(".json"):
        return Path(name)
    return folder / f"{name}.json"


def open_key(path: Path, password_file: Path | None, ask: Ask = nobody_to_ask) -> SecretKey:
    """Read a key file; ask for the password if it needs one and no file gives it.

    Raises:
        Locked: no password to be had.
    """
    if password_file is not None:
        return load_key(path, read_password(password_file))
    if read_key_info(path).is_protected:
        return load_key(path, ask(f"password of {path.stem}"))
    return load_key(path)


def _only_key(folder: Path) -> Path:
    keys = list_keys(folder) if folder.is_dir() else []
    if not keys:
        raise NotFound(f"no key in {folder}", "mlchain keys new NAME, or give --key FILE")
    if len(keys) > 1:
        raise ConfigError(
            f"{len(keys)} keys in {folder}", "give --key: " + ", ".join(k.name for k in keys)
        )
    return keys[0].path
