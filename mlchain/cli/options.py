"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mlchain.cli.command import data_path

DEFAULT_URL = "http://127.0.0.1:8645"

url = click.option(
    "--url",
    default=DEFAULT_URL,
    envvar="MLCHAIN_URL",
    show_default=True,
    show_envvar=True,
    help="The node to ask.",
)

keys_dir = click.option(
    "--keys-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: data_path() / "keys",
    show_default="~/.local/share/mlchain/keys",
    help="Folder of the key files.",
)

password_file = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File whose first line is the password; secrets never stand in arguments.",
)

key = click.option("--key", "key_name", help="Key that signs and pays: a name, or a key file.")


def signed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every command takes that sends a transaction: a node, and the key that signs."""
    for option in (password_file, keys_dir, key, url):
        function = option(function)
    return function


def wait_option(seconds: float) -> Callable[[Any], Any]:
    """Return `--timeout`, with `seconds` as its default."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0.1),
        default=seconds,
        show_default=True,
        help="Seconds to wait before giving up; what was waited for goes on.",
    )
