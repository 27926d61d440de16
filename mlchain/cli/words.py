"""Showing a person the words of its keys, once, and getting words back."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import click

from mlchain.cli.output import is_plain
from mlchain.cli.signing import has_person
from mlchain.errors import ConfigError, Locked

ASKED_BACK = 3
"""Words a person repeats, at places nobody chose."""
_ROW = 6

ROLE_NAMES = ("user", "validator", "worker", "peer", "auditor", "observer")
"""The roles of `client.words`, for help that imports nothing."""

words_file = click.option(
    "--words-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="The 24 words, instead of a person at a terminal; - is standard input.",
)

index = click.option(
    "--index",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Which key of that role the words give; one for each node or user.",
)

cost = click.option(
    "--cost",
    type=click.Choice(("moderate", "sensitive", "test")),
    default="moderate",
    show_default=True,
    help="What a try of the password costs: 256 MiB, 1 GiB, or nearly nothing.",
)


def cost_of(name: str) -> Any:
    """Return the cost of a try by its name."""
    from mlchain.client.keystore import COSTS

    return COSTS[name]


def hand_over_words(words: str, file: Path | None) -> None:
    """Give new words away before any key of theirs exists: to a file, or to a person.

    Raises:
        ConfigError: the file cannot be written, or the person did not write the words down.
        Locked: no file and no person.
    """
    if file is not None:
        from mlchain.client.keystore import write_secret

        if str(file) == "-":
            raise ConfigError("--words-file: new words are not written to standard output")
        write_secret(file, (words + "\n").encode(), False, "name another --words-file")
        return
    if not has_person():
        raise Locked("24 words: nobody to show them to, this is no terminal", "give --words-file")
    _show(words)
    _ask_back(words)


def obtain_words(file: Path | None) -> str:
    """Return words there are already: from a file, standard input or a person.

    Raises:
        ConfigError: not 24 words that fit together.
        Locked: no file and no person.
    """
    from mlchain.client.words import check_words, read_words

    if file is not None:
        return read_words(sys.stdin.buffer if str(file) == "-" else file)
    if not has_person():
        raise Locked("24 words: nobody to ask, this is no terminal", "give --words-file")
    return check_words(str(click.prompt("the 24 words", err=True, hide_input=True)))


def _show(words: str) -> None:
    listed = words.split()
    click.echo("Write these words down, on paper. They are every key there will be,", err=True)
    click.echo("and the only way back to them. They are shown this once.\n", err=True)
    for start in range(0, len(listed), _ROW):
        row = enumerate(listed[start : start + _ROW], start + 1)
        click.echo("  " + "".join(f"{i:>2} {word:<11}" for i, word in row).rstrip(), err=True)
    click.echo("", err=True)


def _ask_back(words: str) -> None:
    listed = words.split()
    click.prompt("press enter when they are on paper", default="", show_default=False, err=True)
    if not is_plain():
        click.echo("\x1b[2J\x1b[3J\x1b[H", err=True, nl=False)  # screen, what scrolled off, home
    for place in sorted(secrets.SystemRandom().sample(range(len(listed)), ASKED_BACK)):
        if str(click.prompt(f"word {place + 1}", err=True)).strip().lower() != listed[place]:
            raise ConfigError(
                f"word {place + 1} is another", "nothing was made; begin again with new words"
            )
