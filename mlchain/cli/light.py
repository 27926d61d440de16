"""`mlchain light`: follow the chain by its certificates, and prove values, trusting no node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from mlchain.cli.command import Group, data_path
from mlchain.cli.options import DEFAULT_URL
from mlchain.cli.output import Output

if TYPE_CHECKING:
    from mlchain.client.light import LightClient

_FILE = click.Path(path_type=Path, dir_okay=False)


def _trust(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Return (height, block id) of `HEIGHT:HASH`."""
    if value is None:
        return None
    height, _, block = value.partition(":")
    try:
        parsed = int(height), bytes.fromhex(block)
    except ValueError:
        parsed = 0, b""
    if parsed[0] <= 0 or len(parsed[1]) != 32:
        raise click.BadParameter(f"{value!r} is not HEIGHT:HASH, 64 hex digits", ctx, param)
    return parsed


def _options(command: Any) -> Any:
    """Add the options that both commands have."""
    for add in (
        click.option(
            "--url", "urls", multiple=True, envvar="MLCHAIN_URL", show_envvar=True,
            help=f"A node to ask; several are compared [{DEFAULT_URL}].",
        ),
        click.option("--genesis", type=_FILE, required=True, help="Your own copy."),
        click.option(
            "--trust", metavar="HEIGHT:HASH", callback=_trust,
            help="Start from this block, whose hash a member told you.",
        ),
        click.option(
            "--state", "state_file", type=_FILE,
            help="Where the last trusted block is kept [~/.local/share/mlchain/light/CHAIN.head].",
        ),
    ):  # fmt: skip
        command = add(command)
    return command


@click.group(
    "light",
    cls=Group,
    examples=(
        "mlchain light sync --genesis genesis.json",
        "mlchain light get account mlc1q9fz --genesis genesis.json",
    ),
)
def command() -> None:
    """Follow the chain by its certificates and prove what it says.

    A light client executes nothing and stores one block. It trusts your genesis file, or the block
    you name with --trust, and no node.
    """


LightHead = TypedDict(
    "LightHead",
    {
        "height": int,
        "block_id": str,
        "time_ms": int,
        "validators": int,
        "from": int,
        "agreed": list[str],
    },
)
"""The block that is trusted now; `agreed` are the nodes that know it."""


class ProvenRecord(TypedDict):
    """A record of the state, proven under a block; its fields are those of the chain."""

    kind: str
    height: int
    block_id: str
    record: dict[str, Any]


@command.command(
    "sync",
    answers={"light": LightHead},
    examples=(
        "mlchain light sync --genesis genesis.json",
        "mlchain light sync --genesis genesis.json --url http://a:8645 --url http://b:8645",
    ),
)
@_options
@click.pass_obj
def sync(out: Output, /, **options: Any) -> None:
    """Follow to the last block. Exits with 7 when nodes have two certified blocks of one height."""
    from mlchain.cli.text import good, time_text

    client, save = _open(out, **options)
    before = client.trusted.height
    _sync(out, client)
    save()
    trusted = client.trusted
    document = {
        "height": trusted.height, "block_id": trusted.id, "time_ms": trusted.time_ms,
        "validators": len(trusted.validators), "from": before, "agreed": client.agreed,
    }  # fmt: skip
    lines = [
        good(f"block #{trusted.height}  {trusted.id.hex()}"),
        f"  {time_text(trusted.time_ms)}, certified from #{before} on,"
        f" {len(trusted.validators)} validators vote next",
        f"  {len(client.agreed)} of {len(client.sources)} nodes know it",
    ]
    out.result("light", document, lines)


@command.command(
    "get",
    answers={"light-get": ProvenRecord},
    examples=(
        "mlchain light get account mlc1q9fz --genesis genesis.json",
        "mlchain light get job 7f3ae1c2 --genesis genesis.json --json",
    ),
)
@click.argument("kind", type=click.Choice(("account", "job", "model")))
@click.argument("identity", metavar="ID")
@_options
@click.pass_obj
def get(out: Output, /, kind: str, identity: str, **options: Any) -> None:
    """Show an account, a job or a model as the state proves it.

    ID is an address or key of an account, or the whole id of a job. Exits with 3 when the state
    proves that there is no such thing.
    """
    from mlchain import codec
    from mlchain.cli.text import good
    from mlchain.client.light import state_key
    from mlchain.errors import NotFound

    client, save = _open(out, **options)
    key, record = state_key(kind, identity)
    value = client.get(key)
    save()
    height = client.trusted.height
    if value is None:
        raise NotFound(f"block {height} proves that there is no {kind} {identity}")
    found = codec.decode(record, value)
    fields = {name: _plain(getattr(found, name)) for name in record.__struct_fields__}
    document = {"kind": kind, "height": height, "block_id": client.trusted.id, "record": fields}
    lines = [good(f"{kind} {identity}, proven under block #{height}")]
    lines += [f"  {name:<16}{value}" for name, value in fields.items()]
    out.result("light-get", document, lines)


def _plain(value: Any) -> Any:
    from msgspec import to_builtins

    return to_builtins(value.hex() if isinstance(value, bytes) else value)


def _sync(out: Output, client: LightClient) -> None:
    from mlchain import codec
    from mlchain.client.light import Conflicting
    from mlchain.client.userfile import write_file

    try:
        client.sync()
    except Conflicting as error:
        file = Path(f"conflict-{error.conflict.first.header.height}.evidence")
        write_file(file, codec.encode(error.conflict), error.message)
        out.note(f"both blocks, with their certificates, are in {file}")
        raise


def _open(
    out: Output, urls: tuple[str, ...], genesis: Path, trust: Any, state_file: Path | None
) -> tuple[LightClient, Any]:
    """Return a light client where it stopped last, and what saves where it is."""
    from mlchain.client.client import Client
    from mlchain.client.light import LightClient, load_trusted, save_trusted, trust_genesis
    from mlchain.ledger.genesis import load_genesis

    chain = load_genesis(genesis)
    file = state_file or data_path() / "light" / f"{chain.hash.hex()[:16]}.head"
    sources = [Client(url) for url in urls or (DEFAULT_URL,)]
    start = load_trusted(file, chain) if trust is None else None
    client = LightClient(chain, sources, start or trust_genesis(chain), out.note)
    if trust is not None:
        client.start_from(*trust)
    return client, lambda: save_trusted(file, chain, client.trusted)
