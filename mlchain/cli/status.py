"""`mlchain status`: what a node knows."""

from __future__ import annotations

import click

from mlchain.cli import options
from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.web.answers import Status


@click.command(
    "status",
    cls=Command,
    answers={"status": Status},
    examples=("mlchain status", "mlchain status --json --url http://host:8645"),
)
@options.url
@click.pass_obj
def command(out: Output, url: str) -> None:
    """Show what a node knows: head, peers, validators, mempool.

    Of a node that fetches a snapshot of the state: how far it is, and from whom.
    Exits with 4 when no node answers.
    """
    from mlchain.cli.text import bad, good, short, state_sync_lines, table, time_text
    from mlchain.client.client import Client

    with Client(url) as client:
        status = client.status()
    role = ", ".join(status["roles"])
    head = (
        f"  head     #{status['height']}  {short(status['block_id'])}"
        f"  {time_text(status['time_ms'])}" + ("  syncing" if status.get("syncing") else "")
    )
    sync = status.get("state_sync")
    lines = [
        f"{status['name']}  {role}  chain {status['chain_id']}  genesis {short(status['genesis'])}",
        *(state_sync_lines(sync) if sync else [head]),
        f"  mempool  {status['mempool']} transactions",
        *([f"  chains   registered up to #{end}"] if (end := status.get("chains_end")) else []),
        *([f"  blocks   from #{status['kept']} on"] if status.get("kept") else []),
        "",
    ]
    peers = status.get("peers", [])
    rows = [(peer["name"], "connected" if peer["connected"] else "not connected") for peer in peers]
    lines += ["  " + line for line in table(("peer", "link"), rows)]
    missing = [peer["name"] for peer in peers if not peer["connected"]]
    lines.append(bad("missing " + ", ".join(missing)) if missing else good("all peers connected"))
    out.result("status", status, lines)
