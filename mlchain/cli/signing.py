"""Keys on the command line: `client.signing`, with a person at a terminal to ask."""

from __future__ import annotations

from pathlib import Path

from mlchain.client import signing
from mlchain.client.signing import key_path
from mlchain.crypto import SecretKey
from mlchain.errors import Locked

__all__ = ["ask_password", "key_path", "load_signer", "new_secret", "open_key"]


def load_signer(
    chain_id: str, name: str | None, folder: Path, password_file: Path | None
) -> tuple[str, SecretKey]:
    """Return the name and the key that shall sign for `chain_id`; see `client.signing`."""
    return signing.load_signer(chain_id, name, folder, password_file, ask_password)


def open_key(path: Path, password_file: Path | None) -> SecretKey:
    """Read a key file; ask for the password if it needs one and a person can answer.

    Raises:
        Locked: no password to be had.
    """
    return signing.open_key(path, password_file, ask_password)


def new_secret() -> SecretKey:
    """Return a fresh secret key from the system's randomness."""
    import secrets

    return SecretKey(secrets.token_bytes(32))


def has_person() -> bool:
    """Tell whether somebody sits at a terminal who can answer."""
    import sys

    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_password(prompt: str, is_new: bool = False) -> str:
    """Ask a person, twice for a new password.

    Raises:
        Locked: nobody is at a terminal.
    """
    import click

    if not has_person():
        raise Locked(f"{prompt}: nobody to ask, this is no terminal", "give --password-file")
    answer = click.prompt(prompt, hide_input=True, confirmation_prompt=is_new, err=True)
    return str(answer)
