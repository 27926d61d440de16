"""`mlchain schema`: the JSON Schemas of the documents that commands print with `--json`.

They are made of the types that each command names in `answers`, so that there is no second list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

import click

from mlchain.cli.command import Command
from mlchain.cli.output import Output
from mlchain.errors import NotFound

ERROR = "error"


class SchemaRow(TypedDict):
    """A schema, and the commands that print such documents."""

    name: str
    commands: list[str]


class SchemaList(TypedDict):
    """All schemas."""

    schemas: list[SchemaRow]


class Fault(TypedDict):
    """Why a command failed; `code` and `exit_code` are stable."""

    code: str
    exit_code: int
    message: str
    hint: str


@click.command(
    "schema",
    cls=Command,
    answers={"schemas": SchemaList, "schema": dict[str, Any]},
    examples=("mlchain schema", "mlchain schema job > job.schema.json"),
)
@click.argument("name", required=False)
@click.pass_obj
def command(out: Output, name: str | None) -> None:
    """Show the JSON Schema of what a command prints with --json, or list them all.

    Documents may get further fields; a field that is there keeps its name and type within a
    version, the number after the slash.
    """
    import json

    from mlchain.cli.text import table

    known = by_name()
    if name is None:
        rows = [{"name": key, "commands": paths} for key, (_, paths) in known.items()]
        text = table(("schema", "commands"), [(r["name"], ", ".join(r["commands"])) for r in rows])
        out.result("schemas", {"schemas": rows}, text)
        return
    name = name.removeprefix("mlchain.").removesuffix("/1")
    if name not in known:
        raise NotFound(f"no schema {name!r}", "mlchain schema lists them")
    document = document_schema(name, known[name][0])
    out.result("schema", document, [json.dumps(document, indent=2)])


def by_name() -> dict[str, tuple[Any, list[str]]]:
    """Return each schema's type and the commands that print it, in the order of the names."""
    found: dict[str, tuple[Any, list[str]]] = {ERROR: (Fault, ["all"])}
    for path, command in every_command():
        for name, kind in command.answers.items():
            known, paths = found.setdefault(name, (kind, []))
            assert known == kind, f"{path}: the schema {name} means something else elsewhere"
            paths.append(path)
    return dict(sorted(found.items()))


def every_command() -> Iterator[tuple[str, Command]]:
    """Yield all commands, groups left out, with their paths: `job show`."""
    from mlchain.cli import main

    def walk(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[str, Command]]:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from walk(command, (*path, name))
            elif isinstance(command, Command):
                yield " ".join((*path, name)), command

    yield from walk(main, ())


def document_schema(name: str, kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of the whole document whose `data` is of `kind`."""
    import msgspec

    (data,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    is_error = name == ERROR
    if is_error:
        place = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
        components["Fault"]["properties"]["at"] = place
    body = "error" if is_error else "data"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"mlchain.{name}/1",
        "type": "object",
        "properties": {
            "schema": {"const": f"mlchain.{name}/1"},
            "ok": {"const": not is_error},
            body: data,
        },
        "required": ["schema", "ok", body],
        "$defs": components,
    }
