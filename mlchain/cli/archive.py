"""`mlchain archive`: a whole chain in one file, for auditors."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import click

from mlchain.cli.command import Command
from mlchain.cli.output import Output


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
    examples=("mlchain archive --home ~/aurora --out hearts-1.car",),
)
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True,
    help="Home of a node that keeps all blocks and does not run.",
)  # fmt: skip
@click.option(
    "--out", "target", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="The CAR file to write.",
)  # fmt: skip
@click.pass_obj
def command(out: Output, home: Path, target: Path) -> None:
    """Write the blocks of a stopped node, and the data and models of its jobs, as a CAR file.

    Signatures of the genesis that lie beside it go along. The node must not run: one process at a
    time has its database. mlchain audit re-executes the whole file.
    """
    from mlchain.cli.text import bar
    from mlchain.client.archive import write_archive
    from mlchain.client.ceremony import find_signatures
    from mlchain.client.userfile import draft
    from mlchain.errors import ConfigError
    from mlchain.ledger.content import ContentStore
    from mlchain.ledger.genesis import load_genesis
    from mlchain.ledger.kv import LevelKeyValue
    from mlchain.ledger.store import Store
    from mlchain.vm.initial import write_genesis

    for name in ("genesis.json", "data", "content"):
        if not (home / name).exists():
            raise ConfigError(f"{home / name}: not there", "name the --home of a node that has run")
    genesis = load_genesis(home / "genesis.json")
    signatures = tuple(find_signatures(home))
    data, content = LevelKeyValue(home / "data"), LevelKeyValue(home / "content")
    try:
        store = Store.create_or_open(data, genesis, lambda state: write_genesis(state, genesis))
        with draft(target, "name another file with --out") as file:
            archive = write_archive(
                file, store, ContentStore(content), signatures,
                lambda done, total: out.live(f"  blocks  {bar(done, total)}"),
            )  # fmt: skip
    finally:
        data.close()
        content.close()
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
