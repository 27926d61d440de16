"""Where a command's values come from: flag, variable, ./mlchain.toml, the user's file, built-in."""

import pytest
from fake_node import STATUS


@pytest.fixture
def asked(node, run_json):
    """Return the chain id that `mlchain status` gets, with the real node only at one place."""

    def ask(*arguments: str) -> str:
        code, document = run_json("status", *arguments)
        return document["data"]["chain_id"] if code == 0 else document["error"]["code"]

    node.routes["GET /v1/status"] = {**STATUS, "chain_id": "found"}
    return ask


NOWHERE = "http://127.0.0.1:9"


def test_the_nearest_source_wins(asked, node, home, monkeypatch):
    user = home / "config" / "mlchain" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text(f'url = "{node.url}"\n')
    assert asked() == "found", "the user's file over the built-in"
    (home / "mlchain.toml").write_text(f'url = "{NOWHERE}"\n')
    assert asked() == "unreachable", "the working folder's file over the user's"
    monkeypatch.setenv("MLCHAIN_URL", node.url)
    assert asked() == "found", "the variable over files"
    assert asked("--url", NOWHERE) == "unreachable", "the flag over all"


def test_a_table_holds_for_its_command_only(asked, node, home):
    (home / "mlchain.toml").write_text(f'url = "{NOWHERE}"\n[status]\nurl = "{node.url}"\n')
    assert asked() == "found"
    (home / "mlchain.toml").write_text(f'[job.list]\nurl = "{node.url}"\n')
    assert asked() == "unreachable"


def test_variables_are_named_after_command_and_option(asked, node, monkeypatch):
    monkeypatch.setenv("MLCHAIN_STATUS_URL", node.url)
    assert asked() == "found"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("url = ", "mlchain.toml: Invalid value"),
        ("colour = true\n", "mlchain.toml: colour: not a setting for all commands"),
        ('[status]\nurll = "x"\n', "mlchain.toml: [status] urll: no such option"),
    ],
)
def test_a_mistake_in_a_file_is_named(run, home, text, reason):
    (home / "mlchain.toml").write_text(text)
    result = run("status")
    assert result.exit_code == 2
    assert reason in result.stderr


def test_the_nodes_own_table_is_left_to_the_node(asked, node, home):
    text = f'url = "{node.url}"\n[node]\nhttp_listen = "127.0.0.1:0"\n'
    (home / "mlchain.toml").write_text(text)
    assert asked() == "found"
