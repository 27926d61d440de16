"""`mlchain genesis`: from join files to a genesis that every organisation has signed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from mlchain.cli import options
from mlchain.cli.command import Group
from mlchain.cli.output import Output
from mlchain.errors import GenesisError, VerificationFailed

if TYPE_CHECKING:
    from mlchain.ledger.genesis import Genesis


class MemberRow(TypedDict):
    """A member as the genesis names it."""

    name: str
    role: str
    key: str
    address: str


class GenesisView(TypedDict):
    """A genesis file; `signed` names the members that did, null where nobody was asked."""

    file: str
    chain_id: str
    hash: str
    members: list[MemberRow]
    signed: list[str] | None


class SignatureView(TypedDict):
    """A signature of a genesis, and the file it is in."""

    name: str
    hash: str
    file: str


_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(
    "genesis",
    cls=Group,
    examples=(
        "mlchain genesis build *.join.json --expect 4",
        "mlchain genesis sign genesis.json --key keys/validator.json --hash '3c90 …'",
        "mlchain genesis show genesis.json",
    ),
)
def command() -> None:
    """Begin a chain together with other organisations.

    Each makes a join file (mlchain init), builds the genesis from all of them, reads its hash
    aloud, and signs the hash it heard.
    """


def _settings(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Any:
    """Return parameters by name of NAME=VALUE texts."""
    found = {}
    for text in values:
        name, _, value = text.partition("=")
        if not (value.isascii() and value.isdigit()):
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER", ctx, param)
        found[name] = int(value)
    return found


@command.command(
    "build",
    answers={"genesis": GenesisView},
    examples=(
        "mlchain genesis build *.join.json --expect 4",
        "mlchain genesis build *.join.json --set heartbeat_ms=5000 --out ~/aurora/genesis.json",
    ),
)
@click.argument("joins", metavar="JOIN…", nargs=-1, required=True, type=_FILE)
@click.option("--expect", type=click.IntRange(min=1), help="How many members there have to be.")
@click.option("--set", "changed", multiple=True, metavar="NAME=NUMBER", callback=_settings,
              help="Give a parameter another value; everybody has to.")  # fmt: skip
@click.option("--bond", type=click.IntRange(min=0), help="Micro-credits each member brings.")
@click.option("--balance", type=click.IntRange(min=0), help="Micro-credits of each account.")
@click.option("--out", "target", type=_FILE, default=Path("genesis.json"), show_default=True)
@click.pass_obj
def build(
    out: Output, joins: tuple[Path, ...], expect: int | None, changed: dict[str, int],
    bond: int | None, balance: int | None, target: Path,
) -> None:  # fmt: skip
    """Make the genesis file from all join files.

    Whoever does it with the same files gets the same genesis: read its hash to one another.
    """
    from mlchain.client.ceremony import (
        BALANCE,
        BOND,
        MAX_JOINS,
        SignedJoin,
        build_genesis,
        read_record,
        verify_join,
    )
    from mlchain.client.userfile import write_file
    from mlchain.errors import InvalidSignature
    from mlchain.ledger.genesis import dump_genesis
    from mlchain.vm.registry import check_registry

    if len(joins) > MAX_JOINS:
        raise click.UsageError(f"{len(joins)} join files, at most {MAX_JOINS}")
    signed = []
    for path in joins:
        signed.append(read_record(SignedJoin, path))
        try:
            verify_join(signed[-1])
        except InvalidSignature as error:
            raise InvalidSignature(f"{path}: {error.message}", error.hint) from error
    names = sorted(one.join.member.name for one in signed)
    if expect is not None and len(signed) != expect:
        raise GenesisError(
            f"{len(signed)} join files, {expect} are expected: {', '.join(names)}",
            "ask who is missing for its join file",
        )
    genesis = build_genesis(
        signed, changed, BOND if bond is None else bond, BALANCE if balance is None else balance
    )
    check_registry(genesis)
    write_file(target, dump_genesis(genesis), "remove it, or name another --out", is_new=True)
    lines = [f"{target}  chain {genesis.chain_id}", *_member_lines(genesis), *_hash_lines(genesis)]
    lines += ["  then  mlchain genesis sign " + str(target) + " --key KEY --hash HASH"]
    out.result("genesis", _document(genesis, target, None), lines)


@command.command(
    "sign",
    answers={"genesis-signature": SignatureView},
    examples=("mlchain genesis sign genesis.json --key keys/validator.json --hash '3c90 …'",),
)
@click.argument("genesis", type=_FILE)
@click.option("--key", "key_file", type=_FILE, required=True, help="The member's key.")
@click.option("--hash", "heard", help="The hash as the others read it aloud.")
@options.password_file
@click.pass_obj
def sign(
    out: Output, genesis: Path, key_file: Path, heard: str | None, password_file: Path | None
) -> None:
    """Sign the hash that everybody read; the signature is a file beside the genesis.

    Give it to the others: they put it beside their own copy.
    """
    from mlchain.cli.signing import has_person, open_key
    from mlchain.client.ceremony import SIGNATURE_SUFFIX, sign_genesis, write_record
    from mlchain.ledger.genesis import load_genesis

    loaded = load_genesis(genesis)
    if heard is None:
        if not has_person():
            raise click.UsageError("--hash: the hash as the others read it aloud")
        heard = str(click.prompt("the hash that was read aloud", err=True))
    key = open_key(key_file, password_file)
    signature = sign_genesis(loaded, key, heard)
    name = next(member.name for member in loaded.members if member.key == key.public)
    file = genesis.parent / f"{name}{SIGNATURE_SUFFIX}"
    write_record(file, signature)
    lines = [f"{name} signed genesis {loaded.hash.hex()[:16]}…", f"  file  {file}"]
    out.result("genesis-signature", {"name": name, "hash": loaded.hash, "file": str(file)}, lines)


@command.command(
    "show", answers={"genesis": GenesisView}, examples=("mlchain genesis show genesis.json",)
)
@click.argument("genesis", type=_FILE)
@click.pass_obj
def show(out: Output, genesis: Path) -> None:
    """Show members, hash, and who signed. Exits with 7 unless every member has."""
    from mlchain.client.ceremony import find_signatures, verify_signatures
    from mlchain.ledger.genesis import load_genesis

    loaded = load_genesis(genesis)
    signed = verify_signatures(loaded, find_signatures(genesis.parent))
    missing = [member.name for member in loaded.members if member.name not in signed]
    lines = [f"{genesis}  chain {loaded.chain_id}", *_member_lines(loaded, signed)]
    lines += [*_hash_lines(loaded), f"  {len(signed)} of {len(loaded.members)} members signed"]
    if missing:
        out.note("\n".join(lines))
        raise VerificationFailed(
            "not signed by " + ", ".join(missing), f"put their signatures beside {genesis}"
        )
    out.result("genesis", _document(loaded, genesis, signed), lines)


def _member_lines(genesis: Genesis, signed: list[str] | None = None) -> list[str]:
    from mlchain.cli.text import table

    rows = [
        (m.name, m.role, f"{m.host}:{m.port}", m.key.hex()[:16],
         "" if signed is None else "signed" if m.name in signed else "NOT SIGNED")
        for m in genesis.members
    ]  # fmt: skip
    return ["  " + line for line in table(("member", "role", "address", "key", ""), rows)]


def _hash_lines(genesis: Genesis) -> list[str]:
    digits = genesis.hash.hex()
    groups = [digits[i : i + 4] for i in range(0, 64, 4)]
    return ["", "  read aloud  " + " ".join(groups[:8]), "              " + " ".join(groups[8:])]


def _document(genesis: Genesis, path: Path, signed: list[str] | None) -> dict[str, Any]:
    members = [
        {"name": m.name, "role": m.role, "key": m.key, "address": f"{m.host}:{m.port}"}
        for m in genesis.members
    ]
    return {
        "file": str(path), "chain_id": genesis.chain_id, "hash": genesis.hash, "members": members,
        "signed": signed,
    }  # fmt: skip
