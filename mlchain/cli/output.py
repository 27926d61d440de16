"""What commands print: data on stdout, everything else on stderr, one JSON document on request.

Colours carry five meanings and never stand alone: green equal, red differs, yellow waiting, blue a
link, dim the rest. `NO_COLOR`, `FORCE_COLOR` and `TERM=dumb` are honoured.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click

from mlchain.cli.failure import Failure

MAX_JSON_INTEGER = 2**53
"""Beyond it JavaScript and friends round: such integers are written as strings."""


class Output:
    """Where a command's words go. One per run, handed to commands by `click.pass_obj`."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.quiet = False
        self.verbose = False
        self._live = False

    def result(self, schema: str, data: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Print the result: `lines` for people, or `data` as a document of `schema` (name/1)."""
        self.end_live()
        if self.as_json:
            document = {"schema": f"mlchain.{schema}/1", "ok": True, "data": jsonable(data)}
            click.echo(json.dumps(document, ensure_ascii=False))
            return
        for line in lines:
            click.echo(line)

    def note(self, line: str) -> None:
        """Print progress or a notice for people."""
        if self.as_json or self.quiet:
            return
        self.end_live()
        click.echo(line, err=True)

    def live(self, line: str) -> None:
        """Show `line` in place of the last live line; nothing unless a terminal watches."""
        if self.as_json or self.quiet or not sys.stderr.isatty() or is_plain():
            return
        click.echo(f"\r\x1b[2K{line}", err=True, nl=False, color=use_colour())
        self._live = True

    def end_live(self) -> None:
        """Remove the live line, so that ordinary lines start at the left."""
        if self._live:
            click.echo("\r\x1b[2K", err=True, nl=False)
            self._live = False

    def error(self, failure: Failure) -> None:
        """Print why the command failed and what to do next."""
        self.end_live()
        if self.as_json:
            body: dict[str, Any] = {
                "code": failure.code,
                "exit_code": failure.exit_code,
                "message": failure.message,
                "hint": failure.hint,
            }
            if failure.at:
                body["at"] = dict(failure.at)
            click.echo(json.dumps({"schema": "mlchain.error/1", "ok": False, "error": body}))
            return
        colour = use_colour()
        click.echo(click.style(f"✗ {failure.message}", fg="red"), err=True, color=colour)
        if failure.hint:
            click.echo(click.style(f"  try  {failure.hint}", dim=True), err=True, color=colour)


def is_plain() -> bool:
    """Tell whether the terminal cannot move its cursor."""
    return os.environ.get("TERM") == "dumb"


def use_colour() -> bool | None:
    """Return True or False where the environment decides, None where the terminal does."""
    if os.environ.get("NO_COLOR") or is_plain():
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def jsonable(value: Any) -> Any:
    """Return `value` with bytes as hex and integers beyond 2^53 as strings."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_JSON_INTEGER:
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value
