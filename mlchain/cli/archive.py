"""`mlchain archive`: a whole chain in one file, for auditors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from mlchain.cli.command import Command
from mlchain.cli.output import Output

if TYPE_CHECKING:
    from mlchain.client.archive import Archive
    from mlchain.client.ceremony import GenesisSignature
    from mlchain.client.client import Client
    from mlchain.client.rerun import Progress
    from mlchain.ledger.content import ContentStore
    from mlchain.ledger.genesis import Genesis
    from mlchain.ledger.store import Store


class ArchiveView(TypedDict):
    """An archive that was written."""

    file: str
    genesis: str
    blocks: int
    files: int
    signed: int
    bytes: int


@click.command(
    "archive",
    cls=Command,
    answers={"archive": ArchiveView},
    examples=(
        "mlchain archive --home ~/aurora --out hearts-1.car",
        "mlchain archive --url http://aurora:8645 --out hearts-1.car",
    ),
)
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Home of your own node, running or not, that keeps all blocks.",
)  # fmt: skip
@click.option("--url", help="A running node that keeps all blocks, instead of --home.")
@click.option(
    "--out", "target", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="The CAR file to write.",
)  # fmt: skip
@click.pass_obj
def command(out: Output, home: Path | None, url: str | None, target: Path) -> None:
    """Write all blocks of a node, and the data and models of its jobs, as a CAR file.

    From a node that runs they come over its API, to the block that is the last when it begins, each
    checked and executed here. With --home the signatures of the genesis that lie there go along.
    mlchain audit re-executes the whole file.
    """
    from mlchain.client.ceremony import find_signatures
    from mlchain.client.client import Client
    from mlchain.errors import ConfigError
    from mlchain.ledger.genesis import load_genesis, parse_genesis

    if (home is None) == (url is None):
        raise ConfigError("give --home or --url, one of them")
    if home is None:
        assert url is not None, "one is given"
        with Client(url) as client:
            genesis = parse_genesis(client.genesis().encode())
            archive = _copy(out, client, genesis, (), target)
        signatures: tuple[GenesisSignature, ...] = ()
    else:
        if not (home / "genesis.json").exists():
            raise ConfigError(f"{home / 'genesis.json'}: not there", "name the --home of a node")
        genesis = load_genesis(home / "genesis.json")
        signatures = tuple(find_signatures(home))
        socket = home / "admin.sock"
        with Client(f"unix:{socket}") as client:
            if socket.is_socket() and _answers(client):
                archive = _copy(out, client, genesis, signatures, target)
            else:
                archive = _read(out, home, genesis, signatures, target)
    document: ArchiveView = {
        "file": str(target), "genesis": genesis.hash.hex(), "blocks": archive.last,
        "files": len(archive.files), "signed": len(signatures), "bytes": target.stat().st_size,
    }  # fmt: skip
    lines = [
        f"{target}  chain {genesis.chain_id}, blocks 1 to {archive.last}",
        f"  {len(archive.files)} files of data and models, {document['bytes']:,} bytes",
        f"  mlchain audit {target} --genesis {genesis.hash.hex()}",
    ]
    out.result("archive", document, lines)


def _answers(client: Client) -> bool:
    from mlchain.errors import Unreachable

    try:
        client.status()
    except Unreachable:
        return False
    return True


def _read(
    out: Output,
    home: Path,
    genesis: Genesis,
    signatures: tuple[GenesisSignature, ...],
    target: Path,
) -> Archive:
    """Write the archive of a node that does not run, from its databases."""
    from mlchain.errors import ConfigError
    from mlchain.ledger.content import ContentStore
    from mlchain.ledger.kv import LevelKeyValue
    from mlchain.ledger.store import Store
    from mlchain.vm.initial import write_genesis

    for name in ("data", "content"):
        if not (home / name).exists():
            raise ConfigError(f"{home / name}: not there", "name the --home of a node that has run")
    data, content = LevelKeyValue(home / "data"), LevelKeyValue(home / "content")
    try:
        store = Store.create_or_open(data, genesis, lambda state: write_genesis(state, genesis))
        return _write(out, store, ContentStore(content), signatures, target)
    finally:
        data.close()
        content.close()


def _copy(
    out: Output,
    client: Client,
    genesis: Genesis,
    signatures: tuple[GenesisSignature, ...],
    target: Path,
) -> Archive:
    """Write the archive of a node that runs, over its API."""
    import tempfile

    from mlchain.client.chain_copy import copy_chain, copy_content
    from mlchain.ledger.content import ContentStore
    from mlchain.ledger.kv import LevelKeyValue

    with tempfile.TemporaryDirectory(prefix="mlchain-archive-") as name:
        folder = Path(name)
        data, content = LevelKeyValue(folder / "data"), LevelKeyValue(folder / "content")
        try:
            store = copy_chain(client, genesis, data, _progress(out, "executed"))
            files = ContentStore(content)
            copy_content(client, store, files, folder, _progress(out, "files   "))
            return _write(out, store, files, signatures, target)
        finally:
            data.close()
            content.close()


def _write(
    out: Output,
    store: Store,
    content: ContentStore,
    signatures: tuple[GenesisSignature, ...],
    target: Path,
) -> Archive:
    from mlchain.client.archive import write_archive
    from mlchain.client.userfile import draft

    with draft(target, "name another file with --out") as file:
        return write_archive(file, store, content, signatures, _progress(out, "blocks  "))


def _progress(out: Output, verb: str) -> Progress:
    from mlchain.cli.text import bar

    return lambda done, total: out.live(f"  {verb}  {bar(done, total)}")
