"""`mlchain gov`: propose, approve and follow changes of members, parameters and rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from mlchain.cli import options
from mlchain.cli.command import Group
from mlchain.cli.output import Output
from mlchain.web.answers import GovernanceView, ProposalView, TransactionView

if TYPE_CHECKING:
    from mlchain.vm.context import Payload
    from mlchain.vm.families.changes import AnyChange

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
WAIT_S = 60.0


class SentChange(TransactionView):
    """A transaction of governance in a block, and when it can take effect."""

    next_epoch_height: int


class ReadyFile(TypedDict):
    """The file in which a member to be says that it is ready, up to block `until`."""

    file: str
    until: int


SENT = {"sent": SentChange}


def signing(function: Any) -> Any:
    """Add the options of commands that send a transaction."""
    for option in (
        click.option("--key", "key_name", help="The member's key: a name or a file."),
        options.keys_dir,
        options.password_file,
        options.url,
    ):
        function = option(function)
    return function


@click.group(
    "gov",
    cls=Group,
    examples=("mlchain gov list", "mlchain gov approve 3 --key ~/aurora/keys/validator.json"),
)
def command() -> None:
    """Propose and approve changes of members, parameters and rules.

    A change that validators of more than two thirds of the weight approve takes effect when the
    epoch ends.
    """


@command.command("list", answers={"governance": GovernanceView}, examples=("mlchain gov list",))
@options.url
@click.pass_obj
def list_all(out: Output, url: str) -> None:
    """List members and proposals."""
    from mlchain.cli.text import table
    from mlchain.client.client import Client

    with Client(url) as client:
        view = client.governance()
    rows = [
        (str(p["number"]), p["author"], _summary(p), f"{p['approved']} of {view['quorum']}")
        for p in view["open"]
    ]
    members = [
        (m["name"], m["role"], f"{m['host']}:{m['port']}", _standing(m)) for m in view["members"]
    ]
    lines = [
        f"epoch {view['epoch']}, the next begins at #{view['next_epoch_height']}",
        *table(("member", "role", "address", ""), members),
        "",
        *(table(("", "by", "proposal", "approved"), rows) if rows else ["no open proposals"]),
    ]
    out.result("governance", view, lines)


@command.command("show", answers={"proposal": ProposalView}, examples=("mlchain gov show 3",))
@click.argument("number", type=click.IntRange(min=1))
@options.url
@click.pass_obj
def show(out: Output, number: int, url: str) -> None:
    """Show one proposal: everything that approving it would change."""
    from mlchain.client.client import Client

    with Client(url) as client:
        proposal = _find(client.governance(), number)
    outcome = proposal.get("outcome", "open")
    lines = [f"{number}  {_summary(proposal)}  {outcome}  {proposal.get('reason', '')}".rstrip()]
    lines += [f"  by        {proposal['author']}", f"  digest    {proposal['digest']}"]
    lines += [f"  approved  {', '.join(proposal['approvals']) or 'by nobody'}"]
    change = {**proposal["change"], **proposal["change"].get("member", {})}
    lines += [f"  {name}: {value}" for name, value in change.items() if name != "member"]
    out.result("proposal", proposal, lines)


@command.command(
    "approve", answers=SENT, examples=("mlchain gov approve 3 --key keys/validator.json",)
)
@click.argument("number", type=click.IntRange(min=1))
@signing
@click.pass_obj
def approve(out: Output, /, number: int, **how: Any) -> None:
    """Approve a proposal, after having looked at it with `mlchain gov show`."""
    from mlchain.client.client import Client
    from mlchain.vm.families.governance import Approve

    with Client(how["url"]) as client:
        proposal = _find(client.governance(), number)
    _send(out, Approve(number, bytes.fromhex(proposal["digest"])), _summary(proposal), **how)


@command.group(
    "propose", cls=Group, examples=("mlchain gov propose param heartbeat_ms 5000 --key v.json",)
)
def propose() -> None:
    """Propose a change, and approve it thereby."""


@propose.command(
    "param", answers=SENT, examples=("mlchain gov propose param heartbeat_ms 5000 --key v.json",)
)
@click.argument("name")
@click.argument("value", type=click.IntRange(min=0))
@signing
@click.pass_obj
def propose_param(out: Output, /, name: str, value: int, **how: Any) -> None:
    """Give a parameter of the chain another value."""
    from mlchain.vm.families.changes import SetParam

    _propose(out, SetParam(name, value), **how)


@propose.command("add", answers=SENT, examples=("mlchain gov propose add echo.ready --key v.json",))
@click.argument("file", type=_FILE)
@signing
@click.pass_obj
def propose_add(out: Output, /, file: Path, **how: Any) -> None:
    """Let a newcomer in, with the FILE that it made by `mlchain gov ready`."""
    from mlchain.client.ready import load_ready
    from mlchain.vm.families.changes import AddMember

    ready = load_ready(file)
    _propose(out, AddMember(ready.member, ready.until, ready.signature), **how)


@propose.command(
    "remove", answers=SENT, examples=("mlchain gov propose remove delta --key v.json",)
)
@click.argument("member")
@signing
@click.pass_obj
def propose_remove(out: Output, /, member: str, **how: Any) -> None:
    """Let a member go, by its name."""
    from mlchain.vm.families.changes import RemoveMember

    _propose(out, RemoveMember(_key_of(member, how["url"])), **how)


@propose.command(
    "replace", answers=SENT, examples=("mlchain gov propose replace delta new.ready --key v.json",)
)
@click.argument("member")
@click.argument("file", type=_FILE)
@signing
@click.pass_obj
def propose_replace(out: Output, /, member: str, file: Path, **how: Any) -> None:
    """Replace a key that is lost, with the FILE that the new key made by `mlchain gov ready`."""
    _propose(out, _replacing(member, file, how["url"]), **how)


@propose.command(
    "upgrade",
    answers=SENT,
    examples=("mlchain gov propose upgrade 2 $REGISTRY 120000 --key v.json",),
)
@click.argument("version", type=click.IntRange(min=1))
@click.argument("registry")
@click.argument("height", type=click.IntRange(min=1))
@signing
@click.pass_obj
def propose_upgrade(out: Output, /, version: int, registry: str, height: int, **how: Any) -> None:
    """Move on to another protocol version from the first epoch at HEIGHT or later."""
    from mlchain.vm.families.changes import Upgrade

    try:
        digest = bytes.fromhex(registry)
    except ValueError as error:
        raise click.UsageError("REGISTRY: expected 64 hex digits") from error
    if len(digest) != 32:
        raise click.UsageError("REGISTRY: expected 64 hex digits")
    _propose(out, Upgrade(version, digest, height), **how)


@command.command("leave", answers=SENT, examples=("mlchain gov leave --key keys/validator.json",))
@signing
@click.pass_obj
def leave(out: Output, /, **how: Any) -> None:
    """Leave, when the epoch ends; the bond comes back after `unbonding_blocks`."""
    from mlchain.vm.families.governance import Leave

    _send(out, Leave(), "leave", **how)


@command.command(
    "rotate", answers=SENT, examples=("mlchain gov rotate delta new.ready --key validator.json",)
)
@click.argument("member")
@click.argument("file", type=_FILE)
@signing
@click.pass_obj
def rotate(out: Output, /, member: str, file: Path, **how: Any) -> None:
    """Go on under the key or address in FILE; signed by the present key, needs no approvals."""
    from mlchain.vm.families.governance import ChangeKeys

    change = _replacing(member, file, how["url"])
    _send(out, ChangeKeys(change), f"replace the keys of {member}", **how)


@command.command(
    "operator",
    answers=SENT,
    examples=("mlchain gov operator aurora --key worker.json", "mlchain gov operator --end"),
)
@click.argument("validator", required=False)
@click.option("--end", is_flag=True, help="Belong to no validator any more.")
@signing
@click.pass_obj
def operator(out: Output, /, validator: str | None, end: bool, **how: Any) -> None:
    """Say that a worker is VALIDATOR's, in place of any before; the validator has to confirm.

    Its work then earns that validator turns to propose, and that validator attests it no more.
    """
    from mlchain.vm.families.operators import NameOperator

    if (validator is None) != end:
        raise click.UsageError("give the name of a validator, or --end")
    named = NameOperator(_key_of(validator, how["url"]) if validator else b"")
    then = "counts for what is assigned from now on" if end else "the validator has yet to confirm"
    _send(out, named, f"works for {validator or 'nobody'}", then=then, **how)


@command.command(
    "confirm",
    answers=SENT,
    examples=("mlchain gov confirm worker-0 --key validator.json", "mlchain gov confirm w --end"),
)
@click.argument("worker")
@click.option("--end", is_flag=True, help="It is the validator's no more, or never was.")
@signing
@click.pass_obj
def confirm(out: Output, /, worker: str, end: bool, **how: Any) -> None:
    """Confirm that WORKER is the validator's own, as it says by `mlchain gov operator`."""
    from mlchain.vm.families.operators import ConfirmWorker

    confirmed = ConfirmWorker(_key_of(worker, how["url"]), not end)
    what = f"{worker} is {'no more ' if end else ''}its worker"
    _send(out, confirmed, what, then="counts for what is assigned from now on", **how)


@command.command(
    "ready",
    answers={"ready": ReadyFile},
    examples=(
        "mlchain gov ready echo --key keys/validator.json --peer-key keys/peer.json"
        " --listen 10.0.0.5:8644 --bond 1000000000 --out echo.ready",
    ),
)
@click.argument("name")
@click.option(
    "--role", type=click.Choice(("validator", "worker", "observer")), default="validator",
    show_default=True, help="What the member will be.",
)  # fmt: skip
@click.option("--key", "key_file", type=_FILE, required=True, help="The key that will be it.")
@click.option("--peer-key", type=_FILE, required=True, help="The key of its connections.")
@click.option("--listen", metavar="HOST:PORT", required=True, help="Where others reach it.")
@click.option("--bond", type=click.IntRange(min=0), default=0, show_default=True,
              help="Micro-credits; 0 when a member changes its keys.")  # fmt: skip
@click.option("--blocks", type=click.IntRange(min=1), default=100_000, show_default=True,
              help="For how many blocks from now on it is ready.")  # fmt: skip
@click.option("--out", "target", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="Where to write the proof.")  # fmt: skip
@options.password_file
@options.url
@click.pass_obj
def ready(
    out: Output, name: str, role: str, key_file: Path, peer_key: Path, listen: str, bond: int,
    blocks: int, target: Path, password_file: Path | None, url: str,
) -> None:  # fmt: skip
    """Sign that a key is ready to take the place of member NAME, and write the proof to a file.

    Give the file to a member that proposes it. The bond will come from the key's own account.
    """
    from mlchain.cli.signing import open_key
    from mlchain.client.client import Client
    from mlchain.client.keystore import read_key_info
    from mlchain.client.ready import make_ready, save_ready

    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise click.UsageError("--listen: expected HOST:PORT")
    with Client(url) as client:
        status, view = client.status(), client.governance()
    proof = make_ready(
        status["chain_id"], name, role, open_key(key_file, password_file),
        read_key_info(peer_key).public, host.strip("[]"), int(port), bond,
        view["params"]["ticket_heights"], status["height"] + blocks,
    )  # fmt: skip
    save_ready(target, proof)
    lines = [f"{target}  {role} {name} at {listen}, ready until #{proof.until}"]
    lines.append(f"  mlchain gov propose add {target} --key MEMBER")
    out.result("ready", {"file": str(target), "until": proof.until}, lines)


def _find(view: dict[str, Any], number: int) -> dict[str, Any]:
    from mlchain.errors import NotFound

    for proposal in (*view["open"], *view["decided"]):
        if proposal["number"] == number:
            found: dict[str, Any] = proposal
            return found
    raise NotFound(f"no proposal {number}", "mlchain gov list shows them")


def _summary(proposal: dict[str, Any]) -> str:
    change = proposal["change"]
    member = change.get("member") or {}
    parts = (change.get("name"), change.get("value"), member.get("name"), change.get("version"))
    key = change.get("key", "")[:16]
    return " ".join([change["kind"], *(str(p) for p in parts if p is not None), key]).rstrip()


def _standing(member: dict[str, Any]) -> str:
    """Say how often a validator proposes, and whose worker a worker is."""
    if member["left"]:
        return f"left at {member['left']}"
    if member["operator"]:
        waits = "" if member["is_confirmed"] else ", who has yet to confirm"
        return f"works for {member['operator']}{waits}"
    return f"turns {member['turns']}" if member["turns"] else ""


def _key_of(member: str, url: str) -> bytes:
    from mlchain.client.client import Client
    from mlchain.errors import NotFound

    with Client(url) as client:
        members = client.governance()["members"]
    for row in members:
        if row["name"] == member and not row["left"]:
            return bytes.fromhex(row["key"])
    raise NotFound(f"no member {member!r}", "mlchain gov list shows them")


def _replacing(member: str, file: Path, url: str) -> Any:
    from mlchain.client.ready import load_ready
    from mlchain.vm.families.changes import ReplaceKeys

    ready = load_ready(file)
    return ReplaceKeys(_key_of(member, url), ready.member, ready.until, ready.signature)


def _propose(out: Output, change: AnyChange, **how: Any) -> None:
    from mlchain.vm.families.governance import Propose

    _send(out, Propose(change), type(change).__name__, **how)


def _send(
    out: Output,
    payload: Payload,
    what: str,
    *,
    key_name: str | None,
    keys_dir: Path,
    password_file: Path | None,
    url: str,
    then: str = "",
) -> None:
    """Sign and send, and wait until a block holds it; `then` says when it counts."""
    from mlchain.cli.signing import load_signer
    from mlchain.client.client import Client

    with Client(url) as client:
        chain_id = str(client.status()["chain_id"])
        name, key = load_signer(chain_id, key_name, keys_dir, password_file)
        identity = client.send(payload, key, gas_price=0 if payload.ROLE else 1)
        found = client.wait(identity, WAIT_S, out.live)
        view = client.governance()
    lines = [f"{what}  by {name}  in block #{found['height']}"]
    lines += [f"  {event}" for event in found.get("events", [])]
    then = then or f"takes effect at #{view['next_epoch_height']} if it is approved by then"
    lines.append(f"  {then}")
    out.result("sent", {**found, "next_epoch_height": view["next_epoch_height"]}, lines)
