"""mlchain keys: what is written, what is shown, and that nobody is asked where nobody is."""

import json
import os
import pty
import re
import select
import sys
import time

import pytest

from mlchain.client import keystore
from mlchain.client.keystore import MIN_COST, create_key, load_key
from mlchain.client.words import derive_key
from mlchain.crypto import SecretKey


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Passwords cost nothing to try here: their strength is the keystore's own test."""
    monkeypatch.setitem(create_key.__kwdefaults__, "cost", MIN_COST)
    monkeypatch.setitem(keystore.COSTS, "moderate", MIN_COST)


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
    assert again.exit_code == 8


def test_import_of_an_unprotected_key_stays_unprotected(run, home):
    create_key(home / "backup.json", SecretKey(b"k" * 32), None)
    assert "NOT PROTECTED" in run("keys", "import", "carol", "backup.json").stdout


def test_a_folder_without_keys_is_no_error(run):
    result = run("keys", "list", "--json")
    assert json.loads(result.stdout)["data"] == {"keys": []}


def test_the_key_folder_may_be_another(run, home):
    run("keys", "new", "carol", "--unprotected", "--keys-dir", str(home / "mine"))
    assert [key.name for key in keystore.list_keys(home / "mine")] == ["carol"]


# ---- words ------------------------------------------------------------------------------------

WORDS = "abandon " * 23 + "art"


def key_in(home, name):
    return load_key(home / "data" / "mlchain" / "keys" / f"{name}.json", "correct horse")


@pytest.mark.parametrize("role", ["user", "validator", "worker", "peer", "auditor"])
def test_the_words_of_a_new_key_give_it_back(run, home, password, role):
    how = ("--role", role, "--password-file", password, "--words-file")
    assert run("keys", "new", "carol", *how, "paper").exit_code == 0
    assert (home / "paper").stat().st_mode & 0o777 == 0o600
    assert run("keys", "restore", "again", *how, "paper").exit_code == 0
    assert key_in(home, "again").public == key_in(home, "carol").public
    assert run("keys", "restore", "next", *how, "paper", "--index", "1").exit_code == 0
    assert key_in(home, "next").public != key_in(home, "carol").public


def test_words_come_from_standard_input_when_asked(run, home, password):
    how = ("--password-file", password, "--words-file", "-")
    assert run("keys", "restore", "carol", *how, input=WORDS + "\n").exit_code == 0
    assert key_in(home, "carol").public == derive_key(WORDS, "user").public


def test_words_that_do_not_fit_together_make_no_key(run, home, password):
    how = ("--password-file", password, "--words-file", "-")
    result = run("keys", "restore", "carol", *how, input="zoo " * 24)
    assert result.exit_code == 2 and "do not fit together" in result.stderr
    assert "zoo" not in result.stderr
    assert not (home / "data" / "mlchain" / "keys" / "carol.json").exists()


@pytest.mark.parametrize("command", [("new", "carol", "--words"), ("restore", "carol")])
def test_words_are_neither_shown_nor_asked_where_nobody_is(run_json, password, command):
    code, document = run_json("keys", *command, "--password-file", password)
    assert code == 8 and "--words-file" in document["error"]["hint"]


def test_a_file_of_words_is_never_overwritten(run, home, password):
    (home / "paper").write_text("the words of another key")
    how = ("--password-file", password, "--words-file", "paper")
    assert run("keys", "new", "carol", *how).exit_code == 2
    assert (home / "paper").read_text() == "the words of another key"


def at_terminal(arguments, answer, patience_s=60.0):
    """Run a command on a terminal of its own; `answer(all output so far)` gives what is typed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "mlchain", *arguments])
    seen, end = b"", time.monotonic() + patience_s
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            more = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        seen += more
        if typed := answer(seen.decode(errors="replace")):
            os.write(terminal, typed.encode() + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode(errors="replace")


@pytest.mark.parametrize("is_written_down", [True, False])
def test_a_person_is_shown_the_words_once_and_asked_for_some_of_them(
    home, password, is_written_down
):
    """On a real terminal. Who cannot repeat them gets no key."""
    answered = 0

    def answer(seen):
        nonlocal answered
        new, words = seen[answered:], re.findall(r"^ .*?\d+ \w+.*$", seen, re.MULTILINE)
        listed = dict(re.findall(r"(\d+) ([a-z]+)", " ".join(words)))
        asked = re.search(r"word (\d+): $", new)
        if "on paper: " in new:
            answered = len(seen)
            return " "
        if asked:
            answered = len(seen)
            return listed[asked[1]] if is_written_down else "zoo zoo"
        return ""

    keys = home / "mine"
    code, seen = at_terminal(
        ["keys", "new", "carol", "--cost", "test", "--password-file", password, "--keys-dir",
         str(keys)], answer,
    )  # fmt: skip
    assert "Write these words down" in seen and "\x1b[2J\x1b[3J" in seen, seen
    assert (code == 0) == is_written_down == (keys / "carol.json").exists(), seen
    if not is_written_down:
        assert "nothing was made" in seen
