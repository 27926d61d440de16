"""Key files: sealed or openly unprotected, private to their owner, not overwritten by accident."""

from __future__ import annotations

import json
import os
import stat

import pytest

from mlchain.client import keystore
from mlchain.client.keystore import (
    DEV_KEY_NAMES,
    MAX_COST,
    MIN_COST,
    Cost,
    create_key,
    dev_key,
    is_dev_key,
    list_keys,
    load_key,
    read_key_info,
    read_password,
)
from mlchain.crypto import SecretKey, address
from mlchain.errors import ConfigError, Locked, NotFound, VerificationFailed

KEY = SecretKey(bytes(range(32)))
OTHER = SecretKey(bytes(32))
ALICE = "mlc1dazvf0smfktxvgcery6dg42hy8yqgk4zrpu6sxpchshvfvtpv2zsfk9u02"
PASSWORD = "correct horse ☂"


def sealed(path, key=KEY, password=PASSWORD, **options):
    return create_key(path, key, password, cost=MIN_COST, **options)


def altered(path, change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_an_encrypted_key_comes_back_with_its_password(tmp_path):
    info = sealed(tmp_path / "alice.json")
    assert load_key(tmp_path / "alice.json", PASSWORD).seed == KEY.seed
    assert info == read_key_info(tmp_path / "alice.json")
    assert (info.name, info.address, info.is_protected) == ("alice", address(KEY.public), True)
    assert KEY.seed.hex() not in (tmp_path / "alice.json").read_text()


def test_one_key_sealed_twice_gives_two_ciphertexts(tmp_path):
    sealed(tmp_path / "a.json")
    sealed(tmp_path / "b.json")
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert one["ciphertext"] != two["ciphertext"] and one["kdf"]["salt"] != two["kdf"]["salt"]


def test_an_encrypted_key_is_locked_without_a_password(tmp_path):
    sealed(tmp_path / "k.json")
    with pytest.raises(Locked, match="needs a password"):
        load_key(tmp_path / "k.json")


def test_a_wrong_password_is_told_from_a_missing_one(tmp_path):
    sealed(tmp_path / "k.json")
    with pytest.raises(Locked, match="wrong password"):
        load_key(tmp_path / "k.json", PASSWORD + " ")


def test_an_unprotected_key_needs_no_password_and_says_so(tmp_path):
    info = create_key(tmp_path / "k.json", KEY, None)
    assert not info.is_protected and not read_key_info(tmp_path / "k.json").is_protected
    assert "NOT PROTECTED" in json.loads((tmp_path / "k.json").read_text())["warning"]
    assert load_key(tmp_path / "k.json").seed == KEY.seed
    assert load_key(tmp_path / "k.json", "any").seed == KEY.seed


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_key_file_is_private_whatever_the_umask(tmp_path, password):
    old = os.umask(0)
    try:
        create_key(tmp_path / "keys" / "k.json", KEY, password, cost=MIN_COST)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "keys" / "k.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_an_unprotected_key_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "k.json"
    create_key(path, KEY, None)
    path.chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        load_key(path)
    assert caught.value.hint == f"chmod 600 {path}"
    sealed(path, force=True)
    path.chmod(0o644)
    assert load_key(path, PASSWORD).seed == KEY.seed, "control: the password protects this one"


def test_a_key_is_not_overwritten_unless_forced(tmp_path):
    path = tmp_path / "k.json"
    sealed(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        sealed(path, SecretKey(bytes(32)))
    assert "there is a file already" in caught.value.message and "--force" in caught.value.hint
    assert path.read_bytes() == before
    sealed(path, SecretKey(bytes(32)), force=True)
    assert load_key(path, PASSWORD).seed == bytes(32)
    assert os.listdir(tmp_path) == ["k.json"], "no draft stays behind"


def test_a_write_that_fails_leaves_the_old_key_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "k.json"
    sealed(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        sealed(path, SecretKey(bytes(32)), force=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["k.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(public=OTHER.public.hex(), address=address(OTHER.public)),
        lambda d: d.update(address=address(OTHER.public)),
        lambda d: d["kdf"].update(passes=2),
        lambda d: d["kdf"].update(salt="00" * 16),
        lambda d: d.update(ciphertext=d["ciphertext"][:-2] + "00"),
    ],
)
def test_no_field_of_an_encrypted_file_can_be_changed(tmp_path, change):
    path = tmp_path / "k.json"
    sealed(path)
    load_key(path, PASSWORD)
    altered(path, change)
    with pytest.raises(Locked):
        load_key(path, PASSWORD)


def test_without_the_authenticated_header_a_changed_address_would_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(keystore, "_authenticated", lambda header: b"")
    path = tmp_path / "k.json"
    sealed(path)
    altered(path, lambda d: d.update(address=address(OTHER.public)))
    assert load_key(path, PASSWORD).seed == KEY.seed, "control: the attack works undefended"


def test_an_unprotected_file_that_names_another_key_is_refused(tmp_path):
    path = tmp_path / "k.json"
    create_key(path, KEY, None)
    altered(path, lambda d: d.update(public=OTHER.public.hex()))
    with pytest.raises(VerificationFailed, match="not that of key"):
        load_key(path)


@pytest.mark.parametrize(
    "kdf",
    [
        {"memory_bytes": MAX_COST.memory_bytes + 1},
        {"memory_bytes": 1 << 60},
        {"passes": MAX_COST.passes + 1},
        {"passes": 0},
        {"memory_bytes": 8},
        {"name": "scrypt"},
        {"salt": "00"},
        {"extra": 1},
    ],
)
def test_a_foreign_file_cannot_ask_for_absurd_memory_or_time(tmp_path, monkeypatch, kdf):
    path = tmp_path / "k.json"
    sealed(path)
    altered(path, lambda d: d["kdf"].update(kdf))
    monkeypatch.setattr(keystore, "_box", lambda *args: pytest.fail("the password was hashed"))
    with pytest.raises(ConfigError, match=r"kdf"):
        load_key(path, PASSWORD)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"kind": "encrypted"}',
        '{"kind": "other"}',
        '{"kind": 1}',
        "[" * 5000,
        "\xff",
        " " * 9000,
    ],
)
def test_what_is_not_a_key_file_is_one_clear_error(tmp_path, text):
    path = tmp_path / "k.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"k\.json: .*key file"):
        load_key(path, PASSWORD)


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path):
    with pytest.raises(NotFound, match="no such key file"):
        load_key(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_key(tmp_path)


def test_keys_are_listed_by_name_and_other_files_passed_over(tmp_path):
    sealed(tmp_path / "b.json")
    create_key(tmp_path / "a.json", OTHER, None)
    (tmp_path / "genesis.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("x")
    listed = [(info.name, info.public, info.is_protected) for info in list_keys(tmp_path)]
    assert listed == [("a", OTHER.public, False), ("b", KEY.public, True)]
    assert list_keys(tmp_path / "none") == []


@pytest.mark.parametrize("password", ["", "x" * 1025, "☂" * 400])
def test_an_unusable_password_is_refused(tmp_path, password):
    with pytest.raises(ConfigError, match="1 to 1024 bytes"):
        sealed(tmp_path / "k.json", password=password)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"secret\n", "secret"), (b"with space \r\nrest", "with space "), (b"one", "one")],
)
def test_a_password_file_s_first_line_counts(tmp_path, content, password):
    (tmp_path / "p").write_bytes(content)
    assert read_password(tmp_path / "p") == password


@pytest.mark.parametrize("content", [b"", b"\nsecond", b"\xff\n", b"x" * 5000])
def test_an_unusable_password_file_is_refused(tmp_path, content):
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(ConfigError):
        read_password(tmp_path / "p")
    with pytest.raises(ConfigError, match="No such file"):
        read_password(tmp_path / "none")


def test_the_published_keys_are_the_same_everywhere_and_known_as_such(tmp_path):
    assert address(dev_key("alice").public) == ALICE
    publics = [dev_key(name).public for name in DEV_KEY_NAMES]
    assert len(set(publics)) == len(publics)
    assert all(map(is_dev_key, publics))
    assert not is_dev_key(KEY.public)
    assert create_key(tmp_path / "alice.json", dev_key("alice"), None).is_dev_key
    with pytest.raises(NotFound, match="mallory"):
        dev_key("mallory")


def test_the_cost_of_a_password_is_written_into_the_file(tmp_path):
    create_key(tmp_path / "k.json", KEY, PASSWORD, cost=Cost(2, 2 << 20))
    kdf = json.loads((tmp_path / "k.json").read_text())["kdf"]
    assert (kdf["passes"], kdf["memory_bytes"]) == (2, 2 << 20)
    assert load_key(tmp_path / "k.json", PASSWORD).seed == KEY.seed
