"""`mlchain node`: run one node in the foreground until it is told to stop."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlchain.cli.command import Command
from mlchain.errors import ConfigError

if TYPE_CHECKING:
    from mlchain.ledger.genesis import Genesis
    from mlchain.node.config import Config
    from mlchain.node.membership import Keys

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
    "--http", "http_listen", metavar="HOST:PORT", help="Address of the API [127.0.0.1:8645]."
)
@click.option(
    "--admin-socket", type=_FILE, help="Where the operator's commands find it [HOME/admin.sock]."
)
@click.option("--listen", "p2p_listen", metavar="HOST:PORT", help="Other nodes [127.0.0.1:8644].")
@click.option("--validator-key", type=_FILE, help="Key that votes [HOME/keys/validator.json].")
@click.option("--worker-key", type=_FILE, help="Key that trains [HOME/keys/worker.json].")
@click.option("--peer-key", type=_FILE, help="Key of the connections [HOME/keys/peer.json].")
@click.option("--password-file", type=_FILE, help="Holds the password of encrypted key files.")
@click.option(
    "--executor",
    metavar="WHERE",
    help="Split a worker's steps: processes:N, or dask://HOST:PORT [in one process].",
)
@click.option(
    "--backend",
    metavar="NAME",
    help="What computes: numpy, numba, torch or torch:cuda; the bits are the same [numpy].",
)
@click.option(
    "--sync",
    metavar="HOW",
    help="Catch up by snapshot, blocks, or auto: a new node looks for a snapshot [auto].",
)
@click.option(
    "--trust",
    metavar="HEIGHT:HASH",
    help="Trust this block, whose hash a member told you, to judge snapshots [genesis].",
)
@click.option(
    "--snapshot-every",
    metavar="BLOCKS",
    help="Take a snapshot of the state every so many blocks, 0 for never [an epoch].",
)
@click.option(
    "--keep-blocks",
    metavar="BLOCKS|all",
    help="Remove older blocks while running; at least 100 are kept [all].",
)
@click.option(
    "--content-quota",
    metavar="SIZE",
    help="Remove content that nobody needs or pinned beyond this, as 20GB [no bound].",
)
@click.option(
    "--recheck",
    type=click.Choice(("on", "off")),
    help="A worker runs a chunk of each own commit again, and admits what is wrong [off].",
)
@click.option("--log-format", type=click.Choice(("text", "json")), help="One line or one document.")
@click.option(
    "--adversary",
    metavar="KIND",
    help="TEST ONLY: misbehave, as skip:0.02. Refused unless the chain is test-… or dev-….",
)
@click.option(
    "--repair",
    is_flag=True,
    help="First say what is damaged in the database, save what is whole, and fetch the rest.",
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
def command(
    adversary: str | None, repair: bool, until_stdin_closes: bool, **flags: str | Path | None
) -> None:
    """Run a validator, worker or observer until it is told to stop (ctrl-c, SIGTERM).

    Its role follows from the keys it finds, and from the chain: with the key of a validator it
    votes, with that of a worker it trains, else it observes, until the chain says otherwise. Keys
    in next-validator.json, next-worker.json and next-peer.json beside the others take over when the
    chain says so.
    It never asks for a password: a key it cannot open ends it at once.
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
    keys = load_keys(config, genesis)
    if until_stdin_closes:
        _end_with_stdin()

    from mlchain.node.main import run_node
    from mlchain.web.api import HttpApi

    http = config.http_listen
    with HttpApi(http.host, http.port, admin_socket=config.admin_socket) as api:
        run_node(config, keys, api, adversary or "", repair)


def load_keys(config: Config, genesis: Genesis) -> Keys:
    """Return the node's keys; a missing file means it does not play that role.

    On a development chain without any key file the published keys are used.

    Raises:
        ConfigError: there is no peer key.
        Locked: a key needs a password and no file gives it: a daemon never asks.
    """
    from mlchain.client.keystore import dev_key, load_key, read_password
    from mlchain.node.membership import Keys

    files = (config.peer_key, config.validator_key, config.worker_key)
    if genesis.is_dev and not any(file.exists() for file in files):
        return Keys(dev_key("validator-peer"), dev_key("validator"), dev_key("worker"))
    if not config.peer_key.exists():
        raise ConfigError(
            f"{config.peer_key}: no such key; every node needs one for its connections",
            f"mlchain keys new peer --keys-dir {config.peer_key.parent} --unprotected",
        )
    password = read_password(config.password_file) if config.password_file else None
    waiting = tuple(next_key(file) for file in (*files[1:], files[0]))
    peer, *others = (
        load_key(file, password) if file.exists() else None for file in (*files, *waiting)
    )
    assert peer is not None, "its file exists"
    return Keys(peer, *others)


def next_key(file: Path) -> Path:
    """Return where the key waits that is to take the place of the one in `file`."""
    return file.with_name(f"next-{file.name}")


def _end_with_stdin() -> None:
    """Ask ourselves to stop when whoever started us closes the pipe, or dies."""

    def wait() -> None:
        while os.read(0, 4096):  # not sys.stdin: its lock would be held when the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stdin", daemon=True).start()
