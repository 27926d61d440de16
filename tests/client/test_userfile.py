"""A user's file appears complete or not at all."""

from __future__ import annotations

import ast
import os
import stat
import threading
from pathlib import Path

import pytest

from mlchain.client.prediction_receipt import read_prediction_receipt
from mlchain.client.receipt import read_receipt
from mlchain.client.userfile import draft, read_file, write_file
from mlchain.errors import CodecError, ConfigError, VerificationFailed

PACKAGE = Path(__file__).parents[2] / "mlchain"
OTHERWISE = {
    "cli/failure.py": "a report of a bug, of a new name",
    "cli/process.py": "the id of a process",
}
"""Files that no person names."""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class Stopped(Exception):
    pass


def test_who_is_stopped_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.receipt"
    path.write_text("old")
    for target in (path, tmp_path / "new"):
        with pytest.raises(Stopped), draft(target) as file:
            file.write(b"half")
            file.flush()
            raise Stopped
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.receipt"]
    write_file(path, "whole")
    assert path.read_text() == "whole" and os.listdir(tmp_path) == ["a.receipt"], "control"


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.receipt"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"a.receipt: No space left on device") as caught:
        write_file(path, "new", "name another file")
    assert caught.value.hint == "name another file"
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.receipt"]


def test_a_file_keeps_its_mode_and_a_new_one_has_what_the_umask_leaves(tmp_path):
    old, new, secret = (tmp_path / name for name in ("old", "new", "secret"))
    old.write_text("a")
    old.chmod(0o640)
    before = os.umask(0o027)
    try:
        for path in (old, new):
            write_file(path, b"b")
        write_file(secret, b"c", mode=0o600)
    finally:
        os.umask(before)
    assert [mode(path) for path in (old, new, secret)] == [0o640, 0o640, 0o600]
    old.chmod(0o604)
    write_file(old, b"d")
    assert (mode(old), old.read_bytes()) == (0o604, b"d")


def test_a_new_file_takes_no_place(tmp_path):
    path = tmp_path / "genesis.json"
    write_file(path, "one", is_new=True)
    with pytest.raises(ConfigError, match="there is a file already"):
        write_file(path, "two", is_new=True)
    assert path.read_text() == "one" and os.listdir(tmp_path) == ["genesis.json"]


def test_a_file_is_read_up_to_its_bound(tmp_path):
    path = tmp_path / "a.receipt"
    path.write_bytes(b"12345678")
    assert read_file(path, 8) == b"12345678"
    with pytest.raises(CodecError, match="larger than 7 bytes"):
        read_file(path, 7)
    with pytest.raises(CodecError, match="larger than 7 bytes"):
        read_file(Path("/dev/zero"), 7)  # it says of itself that it holds nothing
    with pytest.raises(ConfigError, match="No such file") as caught:
        read_file(tmp_path / "none", 7, "name another")
    assert caught.value.hint == "name another"


@pytest.mark.parametrize("read", [read_receipt, read_prediction_receipt])
def test_a_receipt_without_an_end_is_none(monkeypatch, read):
    monkeypatch.setattr(f"{read.__module__}.MAX_RECEIPT_BYTES", 1 << 16)
    with pytest.raises(VerificationFailed, match="not a receipt: /dev/zero: larger than 65536"):
        read(Path("/dev/zero"))


def test_a_link_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "file")
    for text in ("one", "two"):
        write_file(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "disk" / "file").read_text() == text


def test_a_pipe_is_given_the_bytes_and_stays_a_pipe(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    reader.start()
    write_file(pipe, b"bytes")
    reader.join(30)
    assert heard == [b"bytes"] and stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["", "none/file"])
def test_a_folder_or_a_place_in_none_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"Is a directory|No such file"):
        write_file(tmp_path / name, b"x")


def writes(source: str) -> list[str]:
    """Calls that write a file in place, or by a way of their own."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            opens = node.func.attr in ("open", "fdopen") and any(
                isinstance(text, str) and text[:1] in ("w", "a", "x") for text in texts
            )
            if opens or node.func.attr in ("write_text", "write_bytes", "mkstemp"):
                found.append(ast.unparse(node.func))
    return found


def test_nobody_writes_a_users_file_in_another_way():
    places = [*(PACKAGE / "cli").rglob("*.py"), *(PACKAGE / "client").rglob("*.py")]
    names = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in places}
    others = {name for name, text in names.items() if writes(text)} - {"client/userfile.py"}
    assert others == set(OTHERWISE)
    assert writes("path.write_text('x')") and writes("path.open('wb')"), "control"
    assert not writes("path.open('rb')\npath.read_text()"), "control"
