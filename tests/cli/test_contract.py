"""What every command promises: help with an example, JSON, exit codes, a hint with each error."""

import json
import os
import subprocess
import sys

import click
import pytest

from mlchain import errors
from mlchain.cli import COMMANDS, main
from mlchain.cli.failure import EXIT_CODES, describe

HEAVY = ("numpy", "sklearn", "libp2p", "fastapi", "onnx", "rich", "httpx", "msgspec", "nacl")


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []

    def walk(group: click.Group, path: tuple[str, ...]) -> None:
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            assert command is not None
            found.append((*path, name))
            if isinstance(command, click.Group):
                walk(command, (*path, name))

    walk(main, ())
    return found


def test_the_start_loads_none_of_the_heavy_libraries():
    code = (
        "import sys, runpy\n"
        "sys.argv = ['mlchain', '--help']\n"
        "try: runpy.run_module('mlchain', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sorted(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split("LOADED")[1].split()
    assert "click" in loaded, "the list is of the right process"
    assert [name for name in HEAVY if name in loaded] == []
    assert [name for name in loaded if name.startswith("mlchain.cli.")] == [
        "mlchain.cli.command",
        "mlchain.cli.failure",
        "mlchain.cli.output",
    ]


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_has_help_with_an_example_and_json(run, path):
    result = run(*path, "-h")
    assert result.exit_code == 0
    assert f"mlchain {' '.join(path)}" in result.stdout.split("Usage:")[1].splitlines()[0]
    assert "--json" in result.stdout
    assert "Example:\n    mlchain " in result.stdout
    assert run(*path, "--help").stdout == result.stdout


def test_the_list_of_commands_needs_no_import_and_says_one_line_each(run):
    result = run()
    assert result.exit_code == 0
    for name, (_, summary) in COMMANDS.items():
        assert f"{name}" in result.stdout and summary[:30] in result.stdout


def test_an_unknown_command_is_answered_with_the_nearest_one(run):
    result = run("submit")
    assert result.exit_code == 2
    assert "Did you mean 'submit-job'?" in result.stderr
    assert "try  mlchain --help" in result.stderr
    assert result.stdout == ""


def test_an_unknown_subcommand_is_answered_alike(run):
    assert "Did you mean 'list'?" in run("job", "lst").stderr


@pytest.mark.parametrize(
    "arguments",
    [("sattus",), ("status", "--nope"), ("job", "show"), ("job", "list", "--limit", "0"), ("job",)],
)
def test_a_wrong_command_line_is_one_json_document_when_asked(run_json, arguments):
    code, document = run_json(*arguments)
    assert code == 2
    assert document["schema"] == "mlchain.error/1"
    assert document["ok"] is False
    assert document["error"]["code"] == "usage"
    assert document["error"]["exit_code"] == 2


def test_json_may_stand_before_the_command_or_in_the_environment(run, monkeypatch):
    assert json.loads(run("--json", "sattus").stdout)["ok"] is False
    monkeypatch.setenv("MLCHAIN_JSON", "1")
    assert json.loads(run("sattus").stdout)["ok"] is False


EXPECTED = {
    errors.ConfigError: 2,
    errors.GenesisError: 2,
    errors.CodecError: 2,
    errors.NotFound: 3,
    errors.Unreachable: 4,
    errors.Rejected: 5,
    errors.InvalidTransaction: 5,
    errors.OutOfGas: 5,
    errors.Timeout: 6,
    errors.VerificationFailed: 7,
    errors.InvalidSignature: 7,
    errors.StoreCorrupted: 7,
    errors.Locked: 8,
}


@pytest.mark.parametrize(("kind", "code"), EXPECTED.items())
def test_each_expected_error_has_its_exit_code(kind, code):
    failure = describe(kind("why", "what next"), [])
    assert (failure.exit_code, failure.message, failure.hint) == (code, "why", "what next")


def test_exit_codes_are_the_documented_ones():
    assert EXIT_CODES == {
        "internal": 1,
        "usage": 2,
        "not_found": 3,
        "unreachable": 4,
        "rejected": 5,
        "timeout": 6,
        "verification_failed": 7,
        "locked": 8,
        "interrupted": 130,
    }


def _break(monkeypatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("mlchain.cli.doctor.examine", fail)


def test_a_bug_leaves_a_report_and_exits_with_1(run, run_json, monkeypatch, home):
    _break(monkeypatch, ZeroDivisionError("oops"))
    result = run("doctor")
    assert result.exit_code == 1
    assert "a bug in mlchain: ZeroDivisionError: oops" in result.stderr
    (report,) = (home / "state" / "mlchain").glob("report-*.txt")
    assert str(report) in result.stderr
    assert "command: mlchain doctor" in report.read_text()
    assert "ZeroDivisionError: oops" in report.read_text()
    code, document = run_json("doctor")
    assert (code, document["error"]["code"]) == (1, "internal")


def test_a_report_is_written_even_when_the_home_cannot_be(run, monkeypatch, home):
    (home / "state").write_text("a file where a folder should be")
    _break(monkeypatch, ZeroDivisionError("oops"))
    assert run("doctor").exit_code == 1


def test_an_interrupted_command_exits_with_130(run, monkeypatch):
    _break(monkeypatch, KeyboardInterrupt())
    assert run("doctor").exit_code == 130


def test_verbose_shows_where_an_error_arose(run):
    assert "Traceback" not in run("keys", "show", "nobody").stderr
    assert "Traceback" in run("keys", "show", "nobody", "-v").stderr


def test_a_terminal_without_unicode_still_gets_its_answer():
    run = subprocess.run(
        [sys.executable, "-m", "mlchain", "keys", "show", "nobody"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert run.returncode == 3
    assert b"no such key file" in run.stderr


@pytest.mark.parametrize(
    ("variables", "is_terminal", "is_coloured"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_colour_obeys_the_terminal_and_the_environment(
    run, monkeypatch, variables, is_terminal, is_coloured
):
    monkeypatch.delenv("TERM", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[31m" in run("sattus", color=is_terminal).stderr) == is_coloured
