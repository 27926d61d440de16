"""Shared by the tests of the command line: a runner, a home of their own, and the fake node."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from stand_in import STAND_IN
from strict_schema import PRINTED, complaints

import mlchain
from mlchain.cli import main, process
from mlchain.cli.localnet import LocalNet
from mlchain.cli.output import Output, jsonable

sys.path.insert(0, str(Path(__file__).parents[1] / "client"))  # for fake_node


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without any files or variables of ours."""
    for name in ("CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for name in ("MLCHAIN_URL", "MLCHAIN_JSON", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    root = Path(mlchain.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", str(root))  # children find this very package
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_collection_modifyitems(items):
    """Let the test that looks at what all others printed be the last."""
    items.sort(key=lambda item: item.name == "test_each_schema_was_printed_by_some_test")


@pytest.fixture(autouse=True)
def results_keep_their_schema(monkeypatch):
    """Compare everything that commands print as their result with its schema, asked for or not."""
    print_result = Output.result

    def result(self, schema, data, lines):
        command = click.get_current_context().command
        assert schema in command.answers, f"{command.name}: answers lacks {schema!r}"
        document = {"schema": f"mlchain.{schema}/1", "ok": True, "data": jsonable(data)}
        assert complaints(schema, command.answers[schema], document) == []
        PRINTED.add(schema)
        print_result(self, schema, data, lines)

    monkeypatch.setattr(Output, "result", result)


@pytest.fixture
def run():
    """Run a command line in this process and return click's result."""

    def invoke(*arguments: str, **options: Any) -> Result:
        result = CliRunner().invoke(main, list(arguments), **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def run_json(run):
    """Run a command line with `--json`; return its exit code and the one document it printed."""

    def invoke(*arguments: str, **options: Any) -> tuple[int, dict[str, Any]]:
        result = run(*arguments, "--json", **options)
        assert result.stdout.count("\n") == 1, result.output
        return result.exit_code, json.loads(result.stdout)

    return invoke


@pytest.fixture
def node():
    """A node that answers from a table."""
    from fake_node import STATUS, serve

    with serve() as fake:
        fake.routes["GET /v1/status"] = STATUS
        yield fake


@pytest.fixture
def short_chains(monkeypatch):
    """Let validators register hash chains that are quick to make."""
    from msgspec.structs import replace

    from mlchain.cli import localgenesis

    short = replace(localgenesis.LOCAL_PARAMS, ticket_heights=50)
    monkeypatch.setattr(localgenesis, "LOCAL_PARAMS", short)


@pytest.fixture
def behaviour(monkeypatch, short_chains):
    """Let nodes be stand-ins; the dictionary names scripts for those that shall differ."""
    scripts: dict[str, str] = {}

    def command(net, node, is_tied):
        script = scripts.get(node.name, STAND_IN)
        return [sys.executable, "-c", script, str(node.http_port), "tied" if is_tied else "free"]

    monkeypatch.setattr(LocalNet, "command", command)
    monkeypatch.setattr(process, "STOP_S", 2.0)
    return scripts
