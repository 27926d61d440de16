"""`mlchain init`: an organisation's keys, which stay here, and the join file for the others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypedDict

import click

from mlchain.cli import options, words
from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.errors import ConfigError

TICKET_HEIGHTS = 1 << 20


class MadeKey(TypedDict):
    """A key that was made."""

    name: str
    address: str
    file: str


class InitView(TypedDict):
    """A member to be: its join file, which others need, and its keys, which they do not."""

    name: str
    role: str
    chain_id: str
    join: str
    keys: list[MadeKey]


@click.command(
    "init",
    cls=Command,
    answers={"init": InitView},
    examples=(
        "mlchain init aurora --chain hearts-1 --listen 10.0.0.1:8644 --home ~/aurora",
        "mlchain init aurora-worker --role worker --chain hearts-1 --listen 10.0.0.2:8644"
        " --home ~/aurora-worker --restore --index 1",
    ),
)
@click.argument("name")
@click.option("--chain", required=True, help="Id of the chain that is to begin, as hearts-1.")
@click.option("--listen", metavar="HOST:PORT", required=True, help="Where others reach the node.")
@click.option(
    "--role", type=click.Choice(("validator", "worker", "observer")), default="validator",
    show_default=True,
)  # fmt: skip
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="Folder of the node; keys/ and the join file are made in it.",
)  # fmt: skip
@options.password_file
@words.words_file
@click.option("--restore", is_flag=True, help="The 24 words exist already: read them.")
@words.index
@words.cost
@click.option(
    "--ticket-heights", type=click.IntRange(min=1), default=TICKET_HEIGHTS, show_default=True,
    help="Blocks in which work can be attested; all members need the same.",
)  # fmt: skip
@click.pass_obj
def command(
    out: Output, name: str, chain: str, listen: str, role: str, home: Path,
    password_file: Path | None, words_file: Path | None, restore: bool, index: int, cost: str,
    ticket_heights: int,
) -> None:  # fmt: skip
    """Make the keys of a member of a new chain, and its join file.

    All keys follow from 24 words. They are shown once at a terminal, or written to --words-file.
    Three stay in HOME/keys: the member's, which a node opens when it starts (hot), that of its
    connections, and account.json, which holds the organisation's money and belongs elsewhere
    (cold). Give NAME.join.json to the other organisations; it holds no secret.
    """
    from mlchain.cli.signing import ask_password
    from mlchain.client.ceremony import JOIN_SUFFIX, check_terms, make_join, write_record
    from mlchain.client.keystore import create_key, read_password
    from mlchain.client.words import derive_key, new_words
    from mlchain.vm.registry import registry_digest

    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= 65_535:
        raise click.UsageError(f"--listen: {listen!r} is not HOST:PORT")
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise click.UsageError("a member's name has letters, digits and - only")
    host = host.strip("[]")
    check_terms(chain, ticket_heights, name, host, int(port))
    keys, join_file = home / "keys", home / f"{name}{JOIN_SUFFIX}"
    for path in (join_file, *(keys / f"{key}.json" for key in (role, "peer", "account"))):
        if path.exists():
            raise ConfigError(f"{path}: there already", "name another --home")
    password = read_password(password_file) if password_file else ask_password(
        f"new password of {name}", is_new=True
    )  # fmt: skip
    if restore:
        phrase = words.obtain_words(words_file)
    else:
        phrase = new_words()
        words.hand_over_words(phrase, words_file)
    roles = {role: role, "peer": "peer", "account": "user"}
    made = {file: derive_key(phrase, of, index) for file, of in roles.items()}
    out.note("making keys" + (" and hash chains" if role == "validator" else ""))
    signed = make_join(
        chain, ticket_heights, registry_digest(), int(time.time() * 1000), name, role, made[role],
        made["peer"], made["account"].public, host, int(port),
    )  # fmt: skip
    infos = [
        create_key(keys / f"{file}.json", key, password, cost=words.cost_of(cost))
        for file, key in made.items()
    ]
    write_record(join_file, signed)
    lines = [f"{name}  {role} of {chain} at {listen}"]
    lines += [f"  {info.name:<10} {info.address}" for info in infos]
    lines += [
        f"  join file  {join_file}",
        "  cold       move keys/account.json off this machine: it holds your money",
    ]
    rows: list[MadeKey] = [
        {"name": info.name, "address": info.address, "file": str(info.path)} for info in infos
    ]
    document: InitView = {
        "name": name, "role": role, "chain_id": chain, "join": str(join_file), "keys": rows,
    }  # fmt: skip
    out.result("init", document, lines)
