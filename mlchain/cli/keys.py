"""`mlchain keys`: create and look after signing keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from mlchain.cli import options, words
from mlchain.cli.command import Group
from mlchain.cli.output import Output
from mlchain.errors import ConfigError

if TYPE_CHECKING:
    from mlchain.client.keystore import KeyInfo


class KeyRow(TypedDict):
    """A key file; the secret is never shown."""

    name: str
    address: str
    public: str
    file: str
    protected: bool


class KeyList(TypedDict):
    """The keys of a folder."""

    keys: list[KeyRow]


KEY = {"key": KeyRow}


@click.group("keys", cls=Group, examples=("mlchain keys new alice", "mlchain keys list"))
def command() -> None:
    """Create and look after signing keys.

    A key is one file, encrypted under a password. Whoever has file and password owns the account.
    """


@command.command(
    "new",
    answers=KEY,
    examples=(
        "mlchain keys new alice",
        "mlchain keys new auditor --role auditor",
        "mlchain keys new ci --password-file secret.txt --words-file paper.txt",
    ),
)
@click.argument("name")
@options.keys_dir
@options.password_file
@click.option("--unprotected", is_flag=True, help="No password. For test networks only.")
@click.option("--words/--no-words", default=None, help="Make it from 24 new words [at a terminal].")
@words.words_file
@click.option("--role", type=click.Choice(words.ROLE_NAMES), default="user", show_default=True)
@words.cost
@click.pass_obj
def new(
    out: Output, /, name: str, keys_dir: Path, password_file: Path | None, unprotected: bool,
    words: bool | None, words_file: Path | None, role: str, cost: str,
) -> None:  # fmt: skip
    """Create a key and print its address.

    At a terminal the key is made from 24 new words, which are shown once and asked back; elsewhere
    --words-file is where they go, or there are none and the key file is all there is.
    """
    from mlchain.cli.signing import has_person, new_secret
    from mlchain.cli.words import cost_of, hand_over_words
    from mlchain.client.keystore import create_key
    from mlchain.client.words import derive_key, new_words

    path = _new_path(name, keys_dir)
    password = _new_password(name, password_file, unprotected)
    if words is None:
        words = words_file is not None or (has_person() and not unprotected)
    if not words and (words_file is not None or role != "user"):
        raise click.UsageError("--words-file and --role speak of a key from words")
    if words:
        fresh = new_words()
        hand_over_words(fresh, words_file)
        key = derive_key(fresh, role)
    else:
        key = new_secret()
    _show(out, create_key(path, key, password, cost=cost_of(cost)))


@command.command(
    "restore",
    answers=KEY,
    examples=(
        "mlchain keys restore validator --role validator --keys-dir ~/aurora/keys",
        "mlchain keys restore alice --words-file - --password-file secret.txt",
    ),
)
@click.argument("name")
@options.keys_dir
@options.password_file
@click.option("--unprotected", is_flag=True, help="No password. For test networks only.")
@words.words_file
@click.option("--role", type=click.Choice(words.ROLE_NAMES), default="user", show_default=True)
@words.index
@words.cost
@click.pass_obj
def restore(
    out: Output, /, name: str, keys_dir: Path, password_file: Path | None, unprotected: bool,
    words_file: Path | None, role: str, index: int, cost: str,
) -> None:  # fmt: skip
    """Make a key file again from its 24 words."""
    from mlchain.cli.words import cost_of, obtain_words
    from mlchain.client.keystore import create_key
    from mlchain.client.words import derive_key

    path = _new_path(name, keys_dir)
    key = derive_key(obtain_words(words_file), role, index)
    password = _new_password(name, password_file, unprotected)
    _show(out, create_key(path, key, password, cost=cost_of(cost)))


@command.command("import", answers=KEY, examples=("mlchain keys import alice backup/alice.json",))
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@options.keys_dir
@options.password_file
@click.pass_obj
def import_key(
    out: Output, name: str, file: Path, keys_dir: Path, password_file: Path | None
) -> None:
    """Copy a key FILE into the folder of keys, under its own password."""
    from mlchain.cli.signing import ask_password
    from mlchain.client.keystore import create_key, load_key, read_key_info, read_password

    path = _new_path(name, keys_dir)
    password = None
    if read_key_info(file).is_protected:
        asked = f"password of {file.name}"
        password = read_password(password_file) if password_file else ask_password(asked)
    _show(out, create_key(path, load_key(file, password), password))


@command.command("list", answers={"keys": KeyList}, examples=("mlchain keys list",))
@options.keys_dir
@click.pass_obj
def list_all(out: Output, keys_dir: Path) -> None:
    """List the keys of a folder. No password is needed."""
    from mlchain.cli.text import table
    from mlchain.client.keystore import list_keys

    keys = list_keys(keys_dir) if keys_dir.is_dir() else []
    rows = [
        (key.name, key.address, "encrypted" if key.is_protected else "NOT PROTECTED")
        for key in keys
    ]
    lines = table(("name", "address", ""), rows) if rows else [f"no keys in {keys_dir}"]
    out.result("keys", {"keys": [_document(key) for key in keys]}, lines)


@command.command("show", answers=KEY, examples=("mlchain keys show alice",))
@click.argument("name")
@options.keys_dir
@click.pass_obj
def show(out: Output, name: str, keys_dir: Path) -> None:
    """Show the address and public key of a key. The secret is never printed."""
    from mlchain.cli.signing import key_path
    from mlchain.client.keystore import read_key_info

    _show(out, read_key_info(key_path(name, keys_dir)))


def _new_path(name: str, keys_dir: Path) -> Path:
    if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 64:
        raise click.UsageError("a key's name has letters, digits, - and _ only")
    path = keys_dir / f"{name}.json"
    if path.exists():  # before any words are shown
        raise ConfigError(f"{path}: there is a key already", "choose another name")
    return path


def _new_password(name: str, password_file: Path | None, unprotected: bool) -> str | None:
    from mlchain.cli.signing import ask_password
    from mlchain.client.keystore import read_password

    if unprotected:
        return None
    if password_file is not None:
        return read_password(password_file)
    return ask_password(f"new password of {name}", is_new=True)


def _document(info: KeyInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "address": info.address,
        "public": info.public,
        "file": str(info.path),
        "protected": info.is_protected,
    }


def _show(out: Output, info: KeyInfo) -> None:
    lines = [
        f"{info.name}  {info.address}",
        f"  public  {info.public.hex()}",
        f"  file    {info.path}"
        + ("" if info.is_protected else "  NOT PROTECTED: for test networks only"),
    ]
    out.result("key", _document(info), lines)
