"""Options that several commands share."""

from __future__ import annotations

import os
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

_home = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Home of your own running node, which is asked by its admin socket.",
)
_socket = click.option(
    "--admin-socket",
    type=click.Path(path_type=Path),
    help="The socket, if it is not in the home [HOME/admin.sock].",
)


def operated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every command takes that only a node's operator may use."""
    return _home(_socket(function))


def operator_url(home: Path | None, admin_socket: Path | None) -> str:
    """Return where the operator's own node is asked, by options and the node's configuration.

    Raises:
        ConfigError: there is no socket.
    """
    from mlchain.errors import ConfigError
    from mlchain.node.config import load_config

    flags = {"home": home, "admin_socket": admin_socket}
    path = load_config(flags, os.environ, Path.cwd(), Path.home()).admin_socket
    if not path.is_socket():
        raise ConfigError(f"{path}: no node listens there", "name the --home of a running node")
    return f"unix:{path}"


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
