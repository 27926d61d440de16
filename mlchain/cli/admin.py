"""`mlchain admin`: what the operator tells a running node, by the socket in its home."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import click

from mlchain.cli import options
from mlchain.cli.command import Group
from mlchain.cli.output import Output

LEVELS = ("debug", "info", "warning", "error")


class Told(TypedDict):
    """What a node was told to do, and does."""

    done: str


@click.group(
    "admin",
    cls=Group,
    examples=(
        "mlchain admin log-level debug --home ~/aurora",
        "mlchain admin stop --home ~/aurora",
    ),
)
def command() -> None:
    """Tell your own running node what to do.

    It is asked by the Unix socket in its home, which only the user who runs it can open.
    """


@command.command(
    "log-level",
    answers={"admin": Told},
    examples=("mlchain admin log-level debug --home ~/aurora",),
)
@click.argument("level", type=click.Choice(LEVELS))
@options.operated
@click.pass_obj
def log_level(out: Output, level: str, home: Path | None, admin_socket: Path | None) -> None:
    """Log from LEVEL on, until the node is started again."""
    from mlchain.cli.text import good
    from mlchain.client.client import Client

    with Client(options.operator_url(home, admin_socket)) as client:
        client.set_log_level(level)
    out.result("admin", {"done": f"log-level {level}"}, [good(f"it logs from {level} on")])


@command.command("stop", answers={"admin": Told}, examples=("mlchain admin stop --home ~/aurora",))
@options.operated
@click.pass_obj
def stop(out: Output, home: Path | None, admin_socket: Path | None) -> None:
    """End the node, as SIGTERM does. A service manager may start it again."""
    from mlchain.cli.text import good
    from mlchain.client.client import Client

    with Client(options.operator_url(home, admin_socket)) as client:
        client.stop_node()
    out.result("admin", {"done": "stop"}, [good("it ends")])
