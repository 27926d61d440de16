"""`mlchain audit`: re-check a receipt without trusting the node that gave it."""

import click

from mlchain.cli.command import Command


@click.command("audit", cls=Command, examples=("mlchain audit 7f3a.receipt",))
def command() -> None:
    """Re-check a receipt offline."""
