"""The command line. This file knows the names of the commands; their code loads when called.

`mlchain --help` must stay quick, so nothing here (nor in command, output, failure) imports numpy,
scikit-learn, libp2p or the HTTP libraries; a test holds us to it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from mlchain import __version__
from mlchain.cli.command import Group
from mlchain.cli.failure import describe
from mlchain.cli.output import Output, use_colour

COMMANDS = {
    "dev": ("dev", "Run a whole chain in one process, to try things: start here."),
    "submit-job": ("submit", "Sign a training job, send it, and watch it being verified."),
    "job": ("job", "Show jobs and fetch their results."),
    "model": ("model", "Look into model files, import and export models."),
    "data": ("data", "Files by content id: add, fetch, check, exchange with IPFS."),
    "predict": ("predict", "Ask a registered model, and have validators certify the answer."),
    "audit": ("audit", "Re-check a job's receipt, or a whole chain, offline."),
    "archive": ("archive", "Write a whole chain into one file, for auditors."),
    "light": ("light", "Follow the chain by its certificates and prove what it says."),
    "status": ("status", "Show what a node knows: head, peers, validators, mempool."),
    "gov": ("gov", "Propose and approve changes of members, parameters and rules."),
    "tx": ("tx", "Make, sign and send transactions on different machines."),
    "keys": ("keys", "Create and look after signing keys."),
    "init": ("init", "Make a member's keys and its join file for a new chain."),
    "genesis": ("genesis", "Begin a chain with others: build, compare and sign its genesis."),
    "node": ("node", "Run a validator, worker or observer node."),
    "admin": ("admin", "Tell your own running node what to do."),
    "testnet": ("testnet", "Run a local network of real node processes."),
    "demo": ("demo", "Train one job on a temporary local network and prove the result."),
    "sim": ("sim", "Simulate a cluster in bad weather, from a seed."),
    "schema": ("schema", "Show the JSON Schema of what a command prints with --json."),
    "doctor": ("doctor", "Check that this machine can run a node."),
}
"""Name: (module of this package, one line for the list). The module defines `command`."""


class Root(Group):
    """The `mlchain` command: loads sub-commands on demand and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, the most used first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, summary = COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(f"mlchain.cli.{module}").command
        command.short_help = summary
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def main(  # type: ignore[override]  # click's overloads differ by standalone_mode only
        self, args: Sequence[str] | None = None, **extra: Any
    ) -> Any:
        """Run one command and exit with its status; see `failure` for the table."""
        arguments = list(sys.argv[1:] if args is None else args)
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments
        output = Output("--json" in options or os.environ.get("MLCHAIN_JSON") == "1")
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # an ASCII terminal shows ? for ✓
        extra |= {"standalone_mode": False, "prog_name": "mlchain"}
        try:
            status = super().main(arguments, obj=output, color=use_colour(), **extra)
        except (Exception, KeyboardInterrupt) as error:
            failure = describe(error, arguments)
            if output.verbose and failure.code not in ("usage", "interrupted"):
                import traceback

                click.echo("".join(traceback.format_exception(error)), err=True)
            output.error(failure)
            status = failure.exit_code
        sys.exit(status if isinstance(status, int) else 0)


@click.group(
    "mlchain",
    cls=Root,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "MLCHAIN",
        "max_content_width": 100,
    },
    examples=("mlchain testnet up", "mlchain submit-job examples/iris.toml --follow"),
)
@click.version_option(__version__, "-V", "--version", prog_name="mlchain")
def main() -> None:
    """A ledger whose validators check machine learning."""
