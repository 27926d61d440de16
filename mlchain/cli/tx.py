"""`mlchain tx`: transactions made, signed and sent on different machines, for keys kept cold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from mlchain.cli import options
from mlchain.cli.command import Group
from mlchain.cli.output import Output
from mlchain.errors import CodecError, ConfigError, VerificationFailed
from mlchain.web.answers import TransactionView

if TYPE_CHECKING:
    from mlchain.codec import Record
    from mlchain.ledger.transaction import TransactionBody

WAIT_S = 60.0
MAX_SHOWN = 400
"""Characters that are shown of one field of a transaction; how many more there are is said."""
_FILE = click.Path(path_type=Path, dir_okay=False)


class TransactionFile(TypedDict):
    """A transaction in a file: what it says, signed or not yet."""

    file: str
    signed: bool
    chain_id: str
    sender: str
    nonce: int
    kind: str
    says: str
    fields: dict[str, str]


@click.group(
    "tx",
    cls=Group,
    examples=(
        "mlchain tx transfer mlc1q9fz… 5000000 --from mlc1ux3e… --out pay.tx",
        "mlchain tx sign pay.tx --key account.json --out pay.signed",
        "mlchain tx send pay.signed",
    ),
)
def command() -> None:
    """Make, sign and send transactions on different machines.

    A key that is kept off the network signs a file that was made elsewhere.
    """


@command.command(
    "transfer",
    answers={"transaction-file": TransactionFile},
    examples=("mlchain tx transfer mlc1q9fz… 5000000 --from mlc1ux3e… --out pay.tx",),
)
@click.argument("to")
@click.argument("amount", type=click.IntRange(min=1))
@click.option("--from", "sender", required=True, help="Address of the account that pays.")
@click.option("--out", "target", type=_FILE, required=True, help="The file to sign.")
@options.url
@click.pass_obj
def transfer(out: Output, to: str, amount: int, sender: str, target: Path, url: str) -> None:
    """Write a transfer of AMOUNT micro-credits to account TO, for signing elsewhere."""
    from mlchain import codec
    from mlchain.client.client import Client
    from mlchain.crypto import parse_address
    from mlchain.vm.families.accounts import Transfer

    payer, payload = parse_address(sender), Transfer(parse_address(to), amount)
    with Client(url) as client:
        body = client.prepare(payload, payer)
    _write(target, codec.encode(body))
    _show(out, target, body, False)


@command.command(
    "sign",
    answers={"transaction-file": TransactionFile},
    examples=("mlchain tx sign pay.tx --key account.json --out pay.signed",),
)
@click.argument("file", type=_FILE)
@click.option("--key", "key_file", type=_FILE, required=True, help="The sender's key file.")
@click.option("--out", "target", type=_FILE, required=True, help="The signed transaction.")
@options.password_file
@click.pass_obj
def sign(out: Output, file: Path, key_file: Path, target: Path, password_file: Path | None) -> None:
    """Sign the transaction in FILE, without a network; says first what is signed.

    At a terminal it asks before it opens the key.
    """
    from mlchain import codec
    from mlchain.cli.signing import has_person, open_key
    from mlchain.crypto import address
    from mlchain.ledger.transaction import TransactionBody, sign_transaction

    body = _read(TransactionBody, file)
    lines = _lines(file, body, False)
    if has_person() and not out.as_json:
        click.echo("\n".join(lines), err=True)
        if not click.confirm("sign this?", err=True):
            raise ConfigError("nothing was signed")
    else:
        out.note("\n".join(lines))
    key = open_key(key_file, password_file)
    if key.public != body.sender:
        raise VerificationFailed(
            f"{file} is to be sent by {address(body.sender)}, the key is {address(key.public)}"
        )
    _write(target, codec.encode(sign_transaction(body, key)))
    _show(out, target, body, True)


@command.command(
    "send", answers={"sent-transaction": TransactionView}, examples=("mlchain tx send pay.signed",)
)
@click.argument("file", type=_FILE)
@options.url
@click.pass_obj
def send(out: Output, file: Path, url: str) -> None:
    """Send a signed transaction, and wait until a block holds it."""
    from mlchain import codec
    from mlchain.client.client import Client
    from mlchain.ledger.transaction import Transaction, verify_transaction

    transaction = _read(Transaction, file)
    verify_transaction(transaction)
    with Client(url) as client:
        identity = client.post_transaction(codec.encode(transaction))
        found = client.wait(identity, WAIT_S, out.live)
    lines = [f"{_says(transaction.body)[1]}  in block #{found['height']}"]
    out.result("sent-transaction", found, lines)


def _says(body: TransactionBody) -> tuple[str, str]:
    """Return the kind of a transaction and, in words, what signing it means.

    Raises:
        InvalidTransaction, CodecError: not a transaction this version knows.
    """
    from mlchain.crypto import address
    from mlchain.vm.families import decode_payload
    from mlchain.vm.families.accounts import Transfer

    payload = decode_payload(body.kind, body.payload)
    name = type(payload).__name__
    if isinstance(payload, Transfer):
        return name, f"transfer {payload.amount:,} micro-credits to {address(payload.to)}"
    return name, name


def _fields(body: TransactionBody) -> dict[str, str]:
    """Return what a transaction's payload says, each field as JSON text, long ones cut.

    A field that is a record is named by its kind as well: what a proposal would change.
    """
    from mlchain.codec import Record
    from mlchain.ledger.jsonfile import dump_record
    from mlchain.vm.families import decode_payload

    payload = decode_payload(body.kind, body.payload)
    found = {}
    for name, text in json.loads(dump_record(payload)).items():
        value = getattr(payload, name)
        kind = f"{type(value).__name__} " if isinstance(value, Record) else ""
        found[name] = kind + _cut(json.dumps(text))
    return found


def _cut(text: str) -> str:
    more = len(text) - MAX_SHOWN
    return text if more <= 0 else f"{text[:MAX_SHOWN]}… and {more:,} characters more"


def _lines(file: Path, body: TransactionBody, is_signed: bool) -> list[str]:
    """Return what a person has to know of a transaction; of a transfer the words say it all."""
    from mlchain.crypto import address

    kind, says = _says(body)
    fields = {} if says != kind else _fields(body)
    return [
        f"{file}  {'signed' if is_signed else 'to be signed'}",
        f"  {says}",
        *(f"    {name} {text}" for name, text in fields.items()),
        f"  from {address(body.sender)} on {body.chain_id}",
        f"  number {body.nonce} of the account, fee at most {body.gas_limit * body.gas_price:,}",
    ]


def _show(out: Output, file: Path, body: TransactionBody, is_signed: bool) -> None:
    from mlchain.crypto import address

    kind, says = _says(body)
    document: TransactionFile = {
        "file": str(file), "signed": is_signed, "chain_id": body.chain_id,
        "sender": address(body.sender), "nonce": body.nonce, "kind": kind, "says": says,
        "fields": _fields(body),
    }  # fmt: skip
    out.result("transaction-file", document, _lines(file, body, is_signed))


def _read(kind: type[Record], file: Path) -> Any:
    """Return the record in a file of hex digits."""
    from mlchain import codec
    from mlchain.ledger.transaction import MAX_TRANSACTION_BYTES

    try:
        with file.open("rb") as stream:
            text = stream.read(2 * MAX_TRANSACTION_BYTES + 2)
        return codec.decode(kind, bytes.fromhex(text.decode("ascii")), MAX_TRANSACTION_BYTES)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (ValueError, CodecError) as error:
        what = "signed transaction" if kind.__name__ == "Transaction" else "transaction to sign"
        raise ConfigError(f"{file}: no {what}", "mlchain tx transfer, mlchain tx sign") from error


def _write(file: Path, data: bytes) -> None:
    from mlchain.client.userfile import write_file

    write_file(file, data.hex() + "\n", "name another file with --out")
