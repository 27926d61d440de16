"""`mlchain node`: run one node in the foreground until it is told to stop."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import click

from mlchain.cli.command import Command
from mlchain.errors import ConfigError

TEST_PREFIXES = ("test-", "dev-")
"""Chains on which a node may be told to misbehave."""

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    "node",
    cls=Command,
    has_config=False,
    examples=(
        "mlchain node --genesis genesis.json --home ~/aurora",
        "mlchain node --genesis genesis.json --home ~/aurora --http 127.0.0.1:8645",
    ),
)
@click.option("--genesis", type=_FILE, help="The chain's genesis file; by default in the home.")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of keys, blocks, content and votes. For a development chain without "
    "--home: ~/.local/share/mlchain/CHAIN.",
)
@click.option(
    "--http", "http_listen", metavar="HOST:PORT", help="API and explorer [127.0.0.1:8645]."
)
@click.option("--listen", "p2p_listen", metavar="HOST:PORT", help="Other nodes [127.0.0.1:8644].")
@click.option("--validator-key", type=_FILE, help="Key that votes [HOME/keys/validator.json].")
@click.option("--worker-key", type=_FILE, help="Key that trains [HOME/keys/worker.json].")
@click.option("--peer-key", type=_FILE, help="Key of the connections [HOME/keys/peer.json].")
@click.option("--password-file", type=_FILE, help="Holds the password of encrypted key files.")
@click.option("--log-format", type=click.Choice(("text", "json")), help="One line or one document.")
@click.option(
    "--adversary",
    metavar="KIND",
    help="TEST ONLY: misbehave, as forge:0.02. Refused unless the chain is test-… or dev-….",
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
def command(adversary: str | None, until_stdin_closes: bool, **flags: str | Path | None) -> None:
    """Run a validator, worker or observer until it is told to stop (ctrl-c, SIGTERM).

    Its role follows from the keys it finds: with a validator's key it votes, with a worker's key
    it trains, with neither it observes. It never asks for a password: a key it cannot open ends it
    at once.
    """
    from mlchain.ledger.genesis import load_genesis
    from mlchain.node.config import load_config

    genesis_flag = flags["genesis"]
    genesis = load_genesis(Path(genesis_flag)) if genesis_flag is not None else None
    if genesis is not None and genesis.is_dev and flags["home"] is None:
        from mlchain.cli.command import data_path

        flags["home"] = data_path() / genesis.chain_id
    config = load_config(flags, os.environ, Path.cwd(), Path.home())
    genesis = genesis or load_genesis(config.genesis)
    config.check_exposure(genesis.chain_id)
    if adversary and not genesis.chain_id.startswith(TEST_PREFIXES):
        raise ConfigError(
            f"--adversary is for tests; chain {genesis.chain_id} is not one",
            "chains whose id starts with test- or dev-",
        )
    if until_stdin_closes:
        _end_with_stdin()

    from mlchain.node.main import run_node

    run_node(config, adversary=adversary or "")


def _end_with_stdin() -> None:
    """Ask ourselves to stop when whoever started us closes the pipe, or dies."""

    def wait() -> None:
        while os.read(0, 4096):  # not sys.stdin: its lock would be held when the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stdin", daemon=True).start()
