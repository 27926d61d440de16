"""What commands print with `--json`: each has a schema, and what is printed in any test keeps it.

The second half is done by `conftest.py`: it looks at every call of `Output.result` in these tests.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from strict_schema import PRINTED, complaints

from mlchain.cli.failure import EXIT_CODES
from mlchain.cli.schema import by_name, document_schema, every_command

WITHOUT_ANSWER = ("node",)
"""They run until they are stopped, and log."""


def test_every_command_says_what_it_prints():
    """A new command names a TypedDict in `answers`, or this fails. CONTRIBUTING.md shows how."""
    silent = [path for path, command in every_command() if not command.answers]
    assert silent == [*WITHOUT_ANSWER]


WITH_PROCESSES = {
    "demo": "cli/test_demo.py",
    "dev": "process/test_dev_start.py",
    "draw": "process/test_partitioned.py",
    "merged": "process/test_partitioned.py",
    "partitioned": "process/test_partitioned.py",
}
"""Printed by commands that start real nodes, and compared with their schema there."""


def test_each_schema_was_printed_by_some_test(request):
    """Every command's result was seen, and so compared; this is the last test of the folder."""
    ran = {Path(item.fspath).name for item in request.session.items}
    here = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    if not here <= ran or request.config.option.keyword:
        pytest.skip("only when all of tests/cli runs")
    assert by_name().keys() - PRINTED == {"error", *WITH_PROCESSES}
    for name, file in WITH_PROCESSES.items():
        assert f'complaints("{name}", ' in (Path(__file__).parents[1] / file).read_text()


@pytest.mark.parametrize("name", [*by_name()])
def test_every_schema_is_shown(run, run_json, name):
    shown = json.loads(run("schema", name).stdout)
    assert shown["title"] == f"mlchain.{name}/1"
    code, document = run_json("schema", f"mlchain.{name}/1")
    assert (code, document["data"]) == (0, shown)


def test_all_schemas_are_listed_with_their_commands(run_json):
    _, document = run_json("schema")
    rows = {row["name"]: row["commands"] for row in document["data"]["schemas"]}
    assert rows["job"] == ["job show"] and rows["error"] == ["all"]


def test_an_unknown_schema_is_not_found(run_json):
    code, document = run_json("schema", "jbo")
    assert (code, document["error"]["hint"]) == (3, "mlchain schema lists them")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("sattus",), "usage"), (("keys", "show", "nobody"), "not_found"),
     (("status", "--url", "http://127.0.0.1:9"), "unreachable")],
)  # fmt: skip
def test_errors_keep_their_schema(run_json, arguments, code):
    status, document = run_json(*arguments)
    assert (document["error"]["code"], status) == (code, EXIT_CODES[code])
    assert complaints("error", by_name()["error"][0], document) == []


def test_control_a_field_too_many_or_missing_or_of_another_type_is_found():
    kind = by_name()["keys"][0]
    row = {"name": "a", "address": "b", "public": "c", "file": "d", "protected": True}

    def wrong(**change: object) -> list[str]:
        rows = [{key: value for key, value in (row | change).items() if value is not None}]
        document = {"schema": "mlchain.keys/1", "ok": True, "data": {"keys": rows}}
        return complaints("keys", kind, document)

    assert wrong() == []
    assert wrong(more=1) and wrong(name=None) and wrong(protected="yes")
    assert document_schema("keys", kind)["properties"]["data"]
