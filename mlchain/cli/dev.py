"""`mlchain dev`: a whole chain in one process, for the first ten minutes and for trying things."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from mlchain.cli.command import Command, data_path
from mlchain.cli.output import Output
from mlchain.web.answers import Amount

if TYPE_CHECKING:
    from mlchain.cli.devnet import DevNet
    from mlchain.ledger.block import Header
    from mlchain.node.node import Node

DEFAULT_HTTP = "127.0.0.1:8645"


class TestAccount(TypedDict):
    """A funded account whose key everybody knows."""

    name: str
    address: str
    balance: Amount


class DevChain(TypedDict):
    """A chain in one process, and where it answers."""

    chain_id: str
    genesis: str
    genesis_file: str
    folder: str
    url: str
    validators: int
    workers: int
    cheats: dict[str, str]
    accounts: list[TestAccount]


@click.command(
    "dev",
    cls=Command,
    answers={"dev": DevChain},
    examples=("mlchain dev", "mlchain dev --reset --validators 7", "mlchain dev --cheat worker-1"),
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: data_path() / "dev",
    show_default="~/.local/share/mlchain/dev",
    help="Where the chain is kept.",
)
@click.option("--reset", is_flag=True, help="Delete the chain that is there and begin anew.")
@click.option(
    "-n", "--validators", type=click.IntRange(1, 16), help="How many validate [4, or those there]."
)
@click.option(
    "--http",
    "http_listen",
    metavar="HOST:PORT",
    default=DEFAULT_HTTP,
    show_default=True,
    help="Address of the API, on this machine only.",
)
@click.option(
    "--cheat",
    "cheats",
    multiple=True,
    metavar="NAME",
    help="Let a node cheat: a worker forges 1 slice in 10, a validator accuses wrongly and votes "
    "twice. Watch it caught.",
)
@click.pass_obj
def command(
    out: Output,
    folder: Path,
    reset: bool,
    validators: int | None,
    http_listen: str,
    cheats: tuple[str, ...],
) -> None:
    """Run a whole chain in this process until ctrl-c: validators, two workers, the API.

    The nodes are real, each with its own files, and training and re-running happen in processes of
    their own; only the network between them is in memory. The accounts' keys are published: the
    chain is for this machine, and listens nowhere else.

    A line is shown for each block that does something, and at a terminal one for the last that did
    not. Where a segment of a job becomes final, the strip says which of its slices were re-run:
    █ all, ▄ some, · none that the character stands for.
    """
    from mlchain.cli.blockline import block_lines
    from mlchain.cli.devnet import DevNet
    from mlchain.node.config import Address, check_exposure, parse_address
    from mlchain.node.together import run_together
    from mlchain.web.api import HttpApi

    address = parse_address(http_listen, "--http")
    check_exposure("dev-", "--http", address)
    net = DevNet.open_or_create(folder, validators, reset, cheats, out.note)
    last_ms = 0

    def on_ready(node: Node, port: int) -> None:
        nonlocal last_ms
        last_ms = node.chain.store.head.time_ms
        _tell(out, net, f"http://{Address(address.host, port)}", node)

    def on_block(node: Node, header: Header) -> None:
        nonlocal last_ms
        head, *news = block_lines(node.query, header.height, header.time_ms - last_ms)
        last_ms = header.time_ms
        if not news:
            out.live(head)
        for line in news:
            out.note(line)

    with HttpApi(address.host, address.port) as api:
        run_together(net.genesis, net.keys(), net.folder, api, on_ready, on_block, net.cheats)
    out.note("stopped, state is kept")


def _tell(out: Output, net: DevNet, url: str, node: Node) -> None:
    from mlchain.cli.text import credits, dim, notice, short

    rows = [node.query.account(key.hex()) for key in net.accounts().values()]
    accounts = [
        {"name": name, "address": row["address"], "balance": row["balance"]}
        for name, row in zip(net.accounts(), rows, strict=True)
    ]
    data = {
        "chain_id": net.genesis.chain_id,
        "genesis": net.genesis.hash,
        "genesis_file": str(net.genesis_file),
        "folder": str(net.folder),
        "url": url,
        "validators": len(net.genesis.validators()),
        "workers": sum(member.role == "worker" for member in net.genesis.members),
        "cheats": net.cheats,
        "accounts": accounts,
    }
    where = "" if url.endswith(DEFAULT_HTTP) else f" --url {url}"
    lines = [
        f"chain {data['chain_id']}  genesis {short(net.genesis.hash.hex())}  "
        f"{data['validators']} validators and {data['workers']} workers in one process",
        "",
        *(
            f"  {row['name']:<8}{row['address']}  {credits(row['balance'])}"
            + ("   public test keys:" if row is accounts[0] else "   never use them elsewhere")
            for row in accounts
        ),
        "",
        f"  API     {url}/docs",
        f"  data    {net.folder}",
        f"  genesis {net.genesis_file}",
        f"  a job   mlchain submit-job examples/iris.toml --follow{where}",
        "",
        *_cheat_lines(net.cheats, notice),
        dim("  ctrl-c stops, state is kept; mlchain dev --reset begins anew"),
    ]
    out.result("dev", data, lines)


def _cheat_lines(cheats: Mapping[str, str], notice: Callable[[str], str]) -> list[str]:
    lines = [notice(f"{name} will misbehave: {kind}") for name, kind in cheats.items()]
    if any(name.startswith("worker") for name in cheats):
        lines.append("  chance deals the segments: send another job if it got none of the first")
    return lines
