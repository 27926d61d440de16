"""mlchain keys: what is written, what is shown, and that nobody is asked where nobody is."""

import json

import pytest

from mlchain.client import keystore
from mlchain.client.keystore import MIN_COST, create_key, load_key
from mlchain.crypto import SecretKey


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Passwords cost nothing to try here: their strength is the keystore's own test."""
    monkeypatch.setitem(create_key.__kwdefaults__, "cost", MIN_COST)


@pytest.fixture
def password(home):
    file = home / "password"
    file.write_text("correct horse\n")
    return str(file)


def test_a_new_key_is_encrypted_listed_and_shown_without_its_secret(run, home, password):
    result = run("keys", "new", "carol", "--password-file", password)
    assert result.exit_code == 0, result.stderr
    path = home / "data" / "mlchain" / "keys" / "carol.json"
    secret = load_key(path, "correct horse").seed.hex()
    shown = run("keys", "show", "carol").stdout
    assert shown == result.stdout
    assert "mlc1" in shown and secret not in shown
    assert "carol  mlc1" in run("keys", "list").stdout
    assert "encrypted" in run("keys", "list").stdout


def test_an_unprotected_key_says_so_everywhere(run):
    assert "NOT PROTECTED" in run("keys", "new", "ci", "--unprotected").stdout
    assert "NOT PROTECTED" in run("keys", "list").stdout


def test_nobody_is_asked_where_there_is_no_terminal(run_json):
    code, document = run_json("keys", "new", "carol")
    assert (code, document["error"]["code"]) == (8, "locked")
    assert "--password-file" in document["error"]["hint"]


def test_a_key_is_never_overwritten(run):
    assert run("keys", "new", "carol", "--unprotected").exit_code == 0
    assert run("keys", "new", "carol", "--unprotected").exit_code == 2


@pytest.mark.parametrize("name", ["../carol", "", "a b", ".", "x" * 65])
def test_a_name_is_a_name_and_not_a_path(run, name):
    assert run("keys", "new", name, "--unprotected").exit_code == 2


def test_import_copies_a_key_under_its_own_password(run, home, password):
    key = SecretKey(b"k" * 32)
    create_key(home / "backup.json", key, "correct horse")
    result = run("keys", "import", "carol", "backup.json", "--password-file", password)
    assert result.exit_code == 0, result.stderr
    path = home / "data" / "mlchain" / "keys" / "carol.json"
    assert load_key(path, "correct horse").seed == key.seed
    wrong = home / "wrong"
    wrong.write_text("wrong\n")
    again = run("keys", "import", "dave", "backup.json", "--password-file", str(wrong))
    assert again.exit_code == 7


def test_import_of_an_unprotected_key_stays_unprotected(run, home):
    create_key(home / "backup.json", SecretKey(b"k" * 32), None)
    assert "NOT PROTECTED" in run("keys", "import", "carol", "backup.json").stdout


def test_a_folder_without_keys_is_no_error(run):
    result = run("keys", "list", "--json")
    assert json.loads(result.stdout)["data"] == {"keys": []}


def test_the_key_folder_may_be_another(run, home):
    run("keys", "new", "carol", "--unprotected", "--keys-dir", str(home / "mine"))
    assert [key.name for key in keystore.list_keys(home / "mine")] == ["carol"]
