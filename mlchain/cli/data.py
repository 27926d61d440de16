"""`mlchain data`: files by content id, the same id that IPFS gives them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import click

from mlchain.cli import options
from mlchain.cli.command import Group
from mlchain.cli.output import Output
from mlchain.cli.partitions import draw_lines, draw_table, partition, parts_option
from mlchain.web.data_answers import (
    Collected,
    ContentFiles,
    ContentInfo,
    DatasetHolders,
    DrawView,
)

if TYPE_CHECKING:
    from mlchain.client.files import Named, Notify

_FILE = click.Path(path_type=Path, dir_okay=False)
PROFILES = ("kubo-cli", "unixfs-v1-2025")

_profile = click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default=PROFILES[0],
    show_default=True,
    help="How the file is cut, which its id depends on.",
)


class NamedContent(TypedDict):
    """A file by its content id, and the command that gives it the same id elsewhere."""

    cid: str
    size: int
    profile: str
    ipfs: str
    file: NotRequired[str]
    text: NotRequired[str]
    hex: NotRequired[str]


class Unpinned(TypedDict):
    """A file that may make way."""

    cid: str


class Partitioned(NamedContent):
    """A table, and the draw that dealt the rows of its dataset to parts."""

    draw: DrawView


class ShownContent(ContentInfo):
    """What a node knows of a content id; of a dataset who holds it, and the draws of its parts."""

    dataset: DatasetHolders
    draws: list[DrawView]


NAMED = {"data": NamedContent}


@click.group(
    "data",
    cls=Group,
    examples=("mlchain data id rows.csv", "mlchain data add rows.csv", "mlchain data cat bafkrei…"),
)
def command() -> None:
    """Add files to a node, fetch and check them, by content id.

    An id is the one `ipfs add --cid-version 1 --raw-leaves` gives: it is computed from the bytes,
    so whatever comes back under it is what was added.
    """


@command.command(
    "id",
    answers=NAMED,
    examples=("mlchain data id rows.csv", "mlchain data id x --profile unixfs-v1-2025"),
)
@click.argument("file", type=_FILE)
@_profile
@click.pass_obj
def id_(out: Output, file: Path, profile: str) -> None:
    """Print the content id of FILE. No node is asked."""
    from mlchain.client.files import name_file

    named = name_file(file, profile, _progress(out, "naming"))
    out.result("data", _document(named, file=str(file)), [named.cid, _ipfs(named, file)])


command.add_command(partition)


@command.command(
    "add",
    answers={**NAMED, "partitioned": Partitioned},
    examples=(
        "mlchain data add rows.csv",
        "mlchain data add rows.csv --json",
        "mlchain data add boston_housing_data.csv --partitions 3 --key alice",
    ),
)
@click.argument("file", type=_FILE)
@_profile
@parts_option
@click.option("--target", default="", help="With --partitions: the column to predict.")
@click.option(
    "--test-fraction",
    "fraction",
    type=click.FloatRange(0.01, 0.9),
    default=0.2,
    show_default=True,
    help="With --partitions: share of the rows that test, in no part's draw.",
)
@click.option("--classes", is_flag=True, help="With --partitions: the target is a class.")
@options.signed
@options.wait_option(120)
@click.pass_obj
def add(
    out: Output,
    file: Path,
    profile: str,
    parts: int | None,
    target: str,
    fraction: float,
    classes: bool,
    url: str,
    key_name: str | None,
    keys_dir: Path,
    password_file: Path | None,
    timeout_s: float,
) -> None:
    """Store FILE at a node and print its content id.

    With --partitions FILE is a table. Its dataset is made by the rules of job files, and its rows
    are dealt to parts by a seed that the chain draws and nobody can choose.
    """
    from mlchain.cli.signing import load_signer
    from mlchain.client.client import Client
    from mlchain.client.files import send_file

    with Client(url) as client:
        named = send_file(client, file, profile, _progress(out, "sending"))
        document, lines = _document(named, file=str(file)), [named.cid, _ipfs(named, file)]
        if parts is None:
            out.result("data", document, lines)
            return
        chain_id = str(client.status()["chain_id"])
        _, key = load_signer(chain_id, key_name, keys_dir, password_file)
        table = (file, target, str(fraction), classes)
        draw = draw_table(client, table, parts, key, out, timeout_s)
    out.result("partitioned", document | {"draw": draw}, [*lines, *draw_lines(draw)])


@command.command("get", answers=NAMED, examples=("mlchain data get bafkrei… -o rows.csv",))
@click.argument("cid", metavar="ID")
@click.option("-o", "--output", "target", type=_FILE, help="By default a file named as the id.")
@options.url
@click.pass_obj
def get(out: Output, cid: str, target: Path | None, url: str) -> None:
    """Fetch a file from a node and compare it with its id. A wrong one is not kept."""
    from mlchain.cli.text import good
    from mlchain.client.client import Client
    from mlchain.client.files import fetch_file

    target = target or Path(cid)
    with Client(url) as client:
        named = fetch_file(client, cid, target, _progress(out, "fetching"))
    line = good(f"{target}  {named.size} bytes, equal to their id")
    out.result("data", _document(named, file=str(target)), [line])


@command.command("cat", answers=NAMED, examples=("mlchain data cat bafkrei…",))
@click.argument("cid", metavar="ID")
@options.url
@click.pass_obj
def cat(out: Output, cid: str, url: str) -> None:
    """Write a file to stdout, once all of it has come and equals its id.

    With --json its text, or its bytes in hex, stand in the document.
    """
    from mlchain.client.client import Client
    from mlchain.client.files import PIECE_BYTES, fetch_file

    with tempfile.TemporaryDirectory(prefix="mlchain-cat-") as folder, Client(url) as client:
        path = Path(folder) / "content"
        named = fetch_file(client, cid, path, _progress(out, "fetching"))
        out.end_live()
        if out.as_json:
            out.result("data", {**_document(named), **_text(path.read_bytes())}, [])
            return
        with path.open("rb") as file:
            try:
                while piece := file.read(PIECE_BYTES):
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            except BrokenPipeError:  # head has seen enough
                sys.stderr.close()


@command.command(
    "show", answers={"data-shown": ShownContent}, examples=("mlchain data show bafkrei…",)
)
@click.argument("cid", metavar="ID")
@options.url
@click.pass_obj
def show(out: Output, cid: str, url: str) -> None:
    """Show what a node has of a content id, which validators hold it, and draws of its parts."""
    from mlchain.client.client import Client

    with Client(url) as client:
        info = {**client.data_info(cid), "dataset": client.holders(cid)}
        info["draws"] = client.draws(cid)
    lines = [
        str(info["cid"]),
        f"  {info['size']} bytes, profile {info['profile']}",
        "  every block is here" if info["whole"] else "  not every block is here yet",
        _held(info["dataset"]),
        *(line for draw in info["draws"] for line in draw_lines(draw)),
    ]
    out.result("data-shown", info, lines)


@command.command("list", answers={"data-files": ContentFiles}, examples=("mlchain data list",))
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@click.option("--before", type=click.IntRange(0), help="Go on after the last of these.")
@options.operated
@click.pass_obj
def list_(
    out: Output, limit: int, before: int | None, home: Path | None, admin_socket: Path | None
) -> None:
    """List the files that your own node keeps, the newest first."""
    from mlchain.cli.text import table
    from mlchain.client.client import Client

    with Client(options.operator_url(home, admin_socket)) as client:
        found = client.data_files(limit, before)
    rows = [
        (row["cid"], "" if row["size"] is None else str(row["size"]), "pinned" * row["pinned"])
        for row in found["files"]
    ]
    bound = f" of {found['quota']}" if found["quota"] else ""
    lines = table(("content id", "bytes", ""), rows) if rows else []
    if found["before"] is not None:
        lines.append(f"more: mlchain data list --before {found['before']}")
    out.result("data-files", found, [*lines, f"{found['used']}{bound} bytes in all"])


@command.command("pin", answers={"data-info": ContentInfo}, examples=("mlchain data pin bafkrei…",))
@click.argument("cid", metavar="ID")
@options.operated
@click.pass_obj
def pin(out: Output, cid: str, home: Path | None, admin_socket: Path | None) -> None:
    """Have your own node keep a file, fetched from its peers if it is not there."""
    from mlchain.cli.text import good
    from mlchain.client.client import Client

    with Client(options.operator_url(home, admin_socket), timeout_s=600) as client:
        info = client.pin_data(cid)
    out.result("data-info", info, [good(f"{cid}  {info['size']} bytes, pinned")])


@command.command(
    "unpin", answers={"data-unpinned": Unpinned}, examples=("mlchain data unpin bafkrei…",)
)
@click.argument("cid", metavar="ID")
@options.operated
@click.pass_obj
def unpin(out: Output, cid: str, home: Path | None, admin_socket: Path | None) -> None:
    """Let a file make way again when your node needs room."""
    from mlchain.cli.text import good
    from mlchain.client.client import Client

    with Client(options.operator_url(home, admin_socket)) as client:
        client.pin_data(cid, is_wanted=False)
    out.result("data-unpinned", {"cid": cid}, [good(f"{cid} may make way")])


@command.command("gc", answers={"data-gc": Collected}, examples=("mlchain data gc",))
@options.operated
@click.pass_obj
def gc(out: Output, home: Path | None, admin_socket: Path | None) -> None:
    """Have your own node remove content beyond its quota; without one, all that nobody needs.

    What open jobs and models rest on stays, and what you pinned.
    """
    from mlchain.cli.text import good
    from mlchain.client.client import Client

    with Client(options.operator_url(home, admin_socket), timeout_s=600) as client:
        done = client.collect_data()
    out.result("data-gc", done, [good(f"{done['freed']} bytes removed, {done['used']} left")])


@command.command(
    "verify",
    answers=NAMED,
    examples=("mlchain data verify bafkrei… rows.csv", "mlchain data verify bafkrei…"),
)
@click.argument("cid", metavar="ID")
@click.argument("file", type=_FILE, required=False)
@options.url
@click.pass_obj
def verify(out: Output, cid: str, file: Path | None, url: str) -> None:
    """Compare FILE, or what a node serves, with a content id. Exits with 7 when they differ."""
    from mlchain.cli.text import good
    from mlchain.client.client import Client
    from mlchain.client.files import check_path, fetch_file

    if file is not None:
        named = check_path(file, cid)
    else:
        with tempfile.TemporaryDirectory(prefix="mlchain-data-") as folder, Client(url) as client:
            named = fetch_file(client, cid, Path(folder) / "x", _progress(out, "fetching"))
    line = good(f"{named.size} bytes, profile {named.profile}: every byte is what {cid} names")
    out.result("data", _document(named, file=str(file or url)), [line])


@command.command("export", answers=NAMED, examples=("mlchain data export rows.csv -o rows.car",))
@click.argument("source", metavar="FILE-OR-ID")
@click.option("-o", "--output", "target", type=_FILE, required=True, help="The CAR file.")
@_profile
@options.url
@click.pass_obj
def export(out: Output, source: str, target: Path, profile: str, url: str) -> None:
    """Write a file, or what a node has under an id, as a CAR file for IPFS tools.

    An id keeps its own profile. `ipfs dag import FILE.car` reads the result.
    """
    from mlchain.cli.text import good
    from mlchain.client.client import Client
    from mlchain.client.files import fetch_file, write_car
    from mlchain.client.sources import is_content_id

    if is_content_id(source) and not Path(source).exists():
        with tempfile.TemporaryDirectory(prefix="mlchain-car-") as folder, Client(url) as client:
            path = Path(folder) / "content"
            fetched = fetch_file(client, source, path, _progress(out, "fetching"))
            named = write_car(path, target, fetched.profile)
    else:
        named = write_car(Path(source), target, profile)
    line = good(f"{target}  {named.cid}, {named.size} bytes")
    out.result("data", _document(named, file=str(target)), [line, f"  ipfs dag import {target}"])


@command.command("import", answers=NAMED, examples=("mlchain data import rows.car -o rows.csv",))
@click.argument("file", type=_FILE)
@click.option("-o", "--output", "target", type=_FILE, help="Where the file goes.")
@options.url
@click.pass_obj
def import_(out: Output, file: Path, target: Path | None, url: str) -> None:
    """Read a CAR file, block by block verified, into a file with -o, else into a node."""
    from mlchain.cli.text import good
    from mlchain.client.client import Client
    from mlchain.client.files import read_car, send_file

    if target is not None:
        named = read_car(file, target)
    else:
        with tempfile.TemporaryDirectory(prefix="mlchain-car-") as folder, Client(url) as client:
            path = Path(folder) / "content"
            named = read_car(file, path)
            send_file(client, path, named.profile, _progress(out, "sending"))
    line = good(f"{target or url}  {named.cid}, {named.size} bytes")
    out.result("data", _document(named, file=str(target or url)), [line])


def _document(named: Named, **more: Any) -> dict[str, Any]:
    fields = {"cid": named.cid, "size": named.size, "profile": named.profile, "ipfs": named.ipfs}
    return fields | more


def _held(dataset: dict[str, Any]) -> str:
    if not dataset["registered"]:
        return "  not registered as a dataset"
    holders = dataset["holders"]
    names = ": " + ", ".join(holders) if holders else ""
    word = "available" if dataset["available"] else "not available to jobs yet"
    return f"  {word}, held by {len(holders)} of {dataset['validators']} validators{names}"


def _ipfs(named: Named, file: Path) -> str:
    from mlchain.cli.text import dim

    return dim(f"  {named.ipfs} {file}")


def _text(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"hex": data.hex()}


def _progress(out: Output, verb: str) -> Notify:
    def show(done: int, total: int) -> None:
        of = f" of {total / 1e6:.1f}" if total else ""
        out.live(f"  {verb} {done / 1e6:.1f}{of} MB")

    return show
