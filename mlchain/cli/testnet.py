"""`mlchain testnet`: a local network of real node processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import click

from mlchain.cli import process
from mlchain.cli.command import Group, data_path
from mlchain.cli.output import Output
from mlchain.errors import ConfigError

DEFAULT_BASE_PORT = 8645
READY_S = 120.0
"""Seconds a network has to come up; several processes share few cores."""
WATCH_S = 1.0


class NodeRow(TypedDict):
    """A node of the network; `state` is running, silent or stopped."""

    name: str
    role: str
    state: str
    pid: int | None
    height: int | None
    links: int
    peers: int
    url: str
    adversary: str
    log: str


class NetworkView(TypedDict):
    """A local network and its nodes."""

    folder: str
    genesis: str
    url: str
    nodes: list[NodeRow]


class StoppedNodes(TypedDict):
    """Which nodes were stopped, and whether their files were removed."""

    stopped: list[str]
    removed: bool


NETWORK = {"testnet": NetworkView}
_COUNT = click.IntRange(1, 16)
_folder = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: data_path() / "testnet",
    show_default="~/.local/share/mlchain/testnet",
    help="Folder of the network.",
)


def _shape(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what network to make."""
    for option in (
        click.option("--reset", is_flag=True, help="Stop and delete what is there first."),
        click.option(
            "--cheat",
            "cheats",
            multiple=True,
            metavar="NODE=KIND",
            help="Make a node misbehave, as worker-1=skip:0.02.",
        ),
        click.option(
            "--base-port",
            type=click.IntRange(0, 65_000),
            default=DEFAULT_BASE_PORT,
            show_default=True,
            help="HTTP port of the first node; the others count on. 0 takes free ports.",
        ),
        click.option("-w", "--workers", type=_COUNT, default=2, show_default=True),
        click.option("-n", "--validators", type=_COUNT, default=4, show_default=True),
        _folder,
    ):
        function = option(function)
    return function


@click.group(
    "testnet",
    cls=Group,
    examples=(
        "mlchain testnet up",
        "mlchain testnet up -n 7 -w 3 --cheat worker-1=skip:0.02",
        "mlchain testnet stop",
    ),
)
def command() -> None:
    """Run a local network of real node processes.

    One process per node, on this machine's own addresses only. State is kept between runs.
    """


@command.command(
    "up", answers=NETWORK, examples=("mlchain testnet up", "mlchain testnet up -n 7 -w 3 --reset")
)
@_shape
@click.pass_obj
def up(out: Output, /, **shape: Any) -> None:
    """Start the network in the background; what runs already is left alone."""
    net = _open_or_create(out, **shape)
    started = net.start()
    if started:
        out.note(f"started {', '.join(node.name for node in started)}")
    else:
        out.note("already running")
    try:
        net.wait_ready(READY_S, out.live)
    except BaseException:
        net.stop(started)  # half a network helps nobody
        raise
    _show(out, net)


@command.command(
    "run", answers=NETWORK, examples=("mlchain testnet run", "mlchain testnet run -n 1 -w 1")
)
@_shape
@click.pass_obj
def run(out: Output, /, **shape: Any) -> None:
    """Run the network until ctrl-c, then stop it. Its processes cannot outlive this one."""
    net = _open_or_create(out, **shape)
    busy = [node.name for node in net.nodes if net.pid(node) is not None]
    if busy:
        raise ConfigError(f"already running: {', '.join(busy)}", "mlchain testnet stop")
    try:
        with process.orderly_end():
            net.start(is_tied=True)
            net.wait_ready(READY_S, out.live)
            _show(out, net)
            out.note("ctrl-c stops the network, state is kept")
            while True:
                time.sleep(WATCH_S)
                net.status()  # raises when a node ends by itself
    except KeyboardInterrupt:
        out.note("stopping")
    finally:
        net.stop()


@command.command("status", answers=NETWORK, examples=("mlchain testnet status",))
@_folder
@click.pass_obj
def status(out: Output, folder: Path) -> None:
    """Show each node's process, height and links. Exits with 4 unless all answer."""
    net = _open(folder)
    rows = _show(out, net)
    if any(row["state"] != "running" for row in rows):
        raise click.exceptions.Exit(4)


@command.command(
    "stop",
    answers={"testnet.stopped": StoppedNodes},
    examples=("mlchain testnet stop", "mlchain testnet stop --reset"),
)
@_folder
@click.option("--reset", is_flag=True, help="Delete keys and blocks as well.")
@click.pass_obj
def stop(out: Output, folder: Path, reset: bool) -> None:
    """Stop all nodes. State is kept unless --reset."""
    net = _open(folder)
    stopped = net.stop()
    if reset:
        net.remove()
    text = f"stopped {', '.join(stopped)}" if stopped else "nothing was running"
    out.result("testnet.stopped", {"stopped": stopped, "removed": reset}, [text])


def parse_cheats(cheats: Sequence[str]) -> dict[str, str]:
    """Return kinds of misbehaviour by node from NODE=KIND texts.

    Raises:
        ConfigError: not of that form.
    """
    parsed: dict[str, str] = {}
    for text in cheats:
        name, _, kind = text.partition("=")
        if not name or not kind:
            raise ConfigError(f"--cheat {text}: not NODE=KIND", "as in worker-1=skip:0.02")
        parsed[name] = kind
    return parsed


def _open(folder: Path) -> Any:
    from mlchain.cli.localnet import LocalNet
    from mlchain.errors import NotFound

    net = LocalNet.open(folder)
    if net is None:
        raise NotFound(f"no network in {folder}", "mlchain testnet up")
    return net


def _open_or_create(
    out: Output,
    folder: Path,
    validators: int,
    workers: int,
    base_port: int,
    cheats: Sequence[str],
    reset: bool,
) -> Any:
    """Return the network in `folder`, made now if there is none; its shape must be as asked."""
    from mlchain.cli.localnet import LocalNet

    wanted = parse_cheats(cheats)
    net = LocalNet.open(folder)
    if net is not None and reset:
        net.remove()
        net = None
    if net is None:
        out.note(f"making keys and genesis for {validators} validators and {workers} workers")
        return LocalNet.create(folder, validators, workers, base_port or None, wanted)
    there = [sum(node.role == role for node in net.nodes) for role in ("validator", "worker")]
    cheating = {node.name: node.adversary for node in net.nodes if node.adversary}
    is_moved = base_port not in (0, net.nodes[0].http_port)
    if there != [validators, workers] or cheating != wanted or is_moved:
        raise ConfigError(
            f"{folder} holds another network: {there[0]} validators, {there[1]} workers, "
            f"ports from {net.nodes[0].http_port}" + (f", cheating {cheating}" if cheating else ""),
            "--reset makes a new one, --dir keeps both",
        )
    return net


def _show(out: Output, net: Any) -> list[dict[str, Any]]:
    """Print each node's state, and how to use the network."""
    from mlchain.cli.text import dim, table

    rows = []
    for node, pid, status in net.status():
        links = [peer["connected"] for peer in status["peers"]] if status else []
        rows.append(
            {
                "name": node.name,
                "role": node.role,
                "state": "running" if status else "silent" if pid else "stopped",
                "pid": pid,
                "height": status["height"] if status else None,
                "links": sum(links),
                "peers": len(links),
                "url": node.url,
                "adversary": node.adversary,
                "log": str(net.log_file(node)),
            }
        )
    header = ("node", "state", "pid", "height", "links", "")
    body = [
        (
            row["name"],
            row["state"],
            str(row["pid"] or ""),
            "" if row["height"] is None else str(row["height"]),
            f"{row['links']}/{row['peers']}" if row["peers"] else "",
            row["url"] + (f"  misbehaves: {row['adversary']}" if row["adversary"] else ""),
        )
        for row in rows
    ]
    key = net.folder / "keys" / "alice.json"
    lines = [
        *table(header, body),
        "",
        f"  API       {net.url}/v1/status",
        f"  a job     mlchain submit-job examples/iris.toml --key {key} --url {net.url} --follow",
        dim(f"  folder    {net.folder}"),
    ]
    data = {"folder": str(net.folder), "genesis": str(net.genesis), "url": net.url, "nodes": rows}
    out.result("testnet", data, lines)
    return rows
