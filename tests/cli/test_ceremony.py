"""How organisations begin a chain, each in its own folder, and what stops them from beginning."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from mlchain.cli import doctor, main
from mlchain.client import ceremony
from mlchain.client.ceremony import SignedJoin, build_genesis, read_record, verify_join
from mlchain.client.keystore import load_key
from mlchain.client.words import derive_key
from mlchain.errors import GenesisError, InvalidSignature
from mlchain.ledger.genesis import load_genesis

NAMES = ("aurora", "birch", "cedar", "delta")
LENGTH = "64"


def init(run, folder, name, *more, chain="hearts-1", port=9000, password="password"):
    return run(
        "init", name, "--chain", chain, "--listen", f"127.0.0.1:{port}", "--home", str(folder),
        "--password-file", str(password), "--cost", "test", "--ticket-heights", LENGTH, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four organisations that have made their join files and given them to one another."""
    folder = tmp_path_factory.mktemp("ceremony")
    (folder / "password").write_text("correct horse\n")
    (folder / "joins").mkdir()

    def run(*arguments):
        return CliRunner().invoke(main, arguments)

    for number, name in enumerate(NAMES):
        words = str(folder / f"{name}.words")
        result = init(
            run, folder / name, name, "--words-file", words, port=9000 + number,
            password=folder / "password",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        shutil.copy(folder / name / f"{name}.join.json", folder / "joins")
    return folder


@pytest.fixture
def folders(made, home, monkeypatch):
    """What they made, as a copy to spoil; the doctor looks at the chain alone."""
    shutil.copytree(made, home, dirs_exist_ok=True)
    monkeypatch.setattr(doctor, "examine", lambda home: [])
    return {name: home / name for name in NAMES}


def joins(home):
    return [str(path) for path in sorted((home / "joins").iterdir())]


def build(run, home, name, *more):
    target = str(home / name / "genesis.json")
    return run("genesis", "build", *joins(home), "--expect", "4", "--out", target, *more)


def sign(run, folder, heard):
    return run(
        "genesis", "sign", str(folder / "genesis.json"), "--hash", heard, "--key",
        str(folder / "keys" / "validator.json"), "--password-file", "password",
    )  # fmt: skip


@pytest.fixture
def built(run, home, folders):
    """All have built, and heard one hash."""
    heard = set()
    for name in NAMES:
        result = build(run, home, name)
        assert result.exit_code == 0, result.stderr
        heard.add(load_genesis(folders[name] / "genesis.json").hash.hex())
    (only,) = heard
    return only


def test_everybody_builds_the_same_genesis_in_whatever_order_the_files_come(run, home, built):
    documents = []
    for order in (joins(home), joins(home)[::-1]):
        documents.append(run("genesis", "build", *order, "--out", f"{len(documents)}").output)
        assert load_genesis(home / str(len(documents) - 1)).hash.hex() == built
    digits = documents[0].split("read aloud")[1].split("then")[0]
    assert "".join(digits.split()) == built, "what is read aloud is the whole hash"


def test_when_all_have_signed_what_they_heard_the_doctor_is_content(run, run_json, folders, built):
    spoken = " ".join(built[i : i + 4] for i in range(0, 64, 4))
    for name in NAMES:
        assert sign(run, folders[name], spoken).exit_code == 0
    for name in NAMES:
        for other in NAMES:
            if other != name:
                shutil.copy(folders[other] / f"{other}.signature.json", folders[name])
    for name in NAMES:
        assert run("genesis", "show", str(folders[name] / "genesis.json")).exit_code == 0
    code, document = run_json("doctor", "--home", str(folders["birch"]))
    found = {row["name"]: row for row in document["data"]["checks"]}
    assert code == 0
    assert "4 of 4 members signed" in found["genesis"]["text"]
    assert found["keys"]["text"] == "birch (validator)"
    assert found["peers"]["verdict"] == "notice" and "aurora does not listen" in str(found)


def test_a_join_file_changed_on_its_way_is_refused(run, home, folders):
    path = home / "joins" / "cedar.join.json"
    document = json.loads(path.read_text())
    assert document["join"]["member"]["host"] == "127.0.0.1"
    document["join"]["member"]["host"] = "10.6.6.6"
    path.write_text(json.dumps(document))
    result = build(run, home, "aurora")
    assert result.exit_code == 7
    assert "cedar.join.json: cedar: not as key" in result.stderr and "changed" in result.stderr
    assert not (folders["aurora"] / "genesis.json").exists()


def test_control_without_the_check_the_changed_join_file_makes_a_genesis(
    home, folders, monkeypatch
):
    signed = [read_record(SignedJoin, path) for path in (home / "joins").iterdir()]
    honest = build_genesis(signed)
    spoilt = read_record(SignedJoin, home / "joins" / "cedar.join.json")
    member = replace(spoilt.join.member, host="10.6.6.6")
    forged = replace(spoilt, join=replace(spoilt.join, member=member))
    others = [one for one in signed if one.join.member.name != "cedar"]
    with pytest.raises(InvalidSignature):
        build_genesis([*others, forged])
    monkeypatch.setattr(ceremony, "verify_join", lambda signed: None)
    assert build_genesis([*others, forged]).hash != honest.hash


def test_a_join_file_needs_the_key_of_its_connections_too(folders):
    signed = read_record(SignedJoin, folders["aurora"] / "aurora.join.json")
    other = read_record(SignedJoin, folders["birch"] / "birch.join.json")
    member = replace(signed.join.member, peer=other.join.member.peer)
    join = replace(signed.join, member=member)
    key = load_key(folders["aurora"] / "keys" / "validator.json", "correct horse")
    stolen = SignedJoin(join, key.sign(ceremony._join_bytes(join)), signed.peer_signature)
    with pytest.raises(InvalidSignature):
        ceremony.verify_join(stolen)


def test_a_missing_organisation_is_noticed_when_building(run, home, folders):
    (home / "joins" / "delta.join.json").unlink()
    result = build(run, home, "aurora")
    assert result.exit_code == 2
    assert "3 join files, 4 are expected: aurora, birch, cedar" in result.stderr


def test_who_was_left_out_cannot_sign_and_others_hear_another_hash(run, home, folders, built):
    """The control of reading aloud: birch, whose mail lost a file, has a genesis of its own."""
    (home / "joins" / "delta.join.json").unlink()
    (folders["birch"] / "genesis.json").unlink()
    lesser = str(folders["birch"] / "genesis.json")
    assert run("genesis", "build", *joins(home), "--out", lesser).exit_code == 0
    result = sign(run, folders["birch"], built)
    assert result.exit_code == 7 and "others read " + built in result.stderr
    shutil.copy(lesser, folders["delta"] / "genesis.json")
    theirs = load_genesis(folders["birch"] / "genesis.json").hash.hex()
    result = sign(run, folders["delta"], theirs)
    assert result.exit_code == 7 and "your join file was not among" in result.stderr


def test_a_missing_signature_is_named(run, folders, built):
    assert sign(run, folders["aurora"], built).exit_code == 0
    result = run("genesis", "show", str(folders["aurora"] / "genesis.json"))
    assert result.exit_code == 7
    assert "not signed by birch, cedar, delta" in result.stderr
    result = run("doctor", "--home", str(folders["aurora"]))
    assert result.exit_code == 7 and "1 of 4 members signed; not birch, cedar, delta" in (
        result.stdout
    )


@pytest.mark.parametrize(
    ("field", "why"),
    [("signature", "is wrong"), ("genesis", "signed genesis"), ("key", "who is no member")],
)
def test_a_wrong_signature_is_refused(run, folders, built, field, why):
    assert sign(run, folders["aurora"], built).exit_code == 0
    path = folders["aurora"] / "aurora.signature.json"
    document = json.loads(path.read_text())
    document[field] = f"{int(document[field][:2], 16) ^ 1:02x}" + document[field][2:]
    path.write_text(json.dumps(document))
    for command in (
        ("genesis", "show", str(folders["aurora"] / "genesis.json")),
        ("doctor", "--home", str(folders["aurora"])),
    ):
        result = run(*command)
        assert result.exit_code == 7 and why in result.output


@pytest.mark.parametrize(
    ("heard", "code"), [("", 2), ("3c90", 2), ("0" * 31, 2), ("0" * 64, 7), ("0" * 65, 2)]
)
def test_a_hash_half_heard_is_not_signed(run, folders, built, heard, code):
    assert sign(run, folders["aurora"], heard).exit_code == code
    assert not (folders["aurora"] / "aurora.signature.json").exists()


@pytest.mark.parametrize("digits", [32, 64])
def test_half_of_the_hash_suffices(run, folders, built, digits):
    assert sign(run, folders["aurora"], built[:digits].upper()).exit_code == 0


def test_another_chain_or_length_does_not_fit(run, home, folders):
    for name, more, what in (
        ("echo", {"chain": "hearts-2"}, "chain_id: hearts-2 and hearts-1"),
        ("foxtrot", {}, "ticket_heights: 65 and 64"),
    ):
        flags = ("--words-file", f"{name}.words", "--ticket-heights", "65" if not more else LENGTH)
        assert init(run, home / name, name, *flags, **more).exit_code == 0
        file = home / name / f"{name}.join.json"
        result = run("genesis", "build", *joins(home), str(file), "--out", "g.json")
        assert result.exit_code == 2 and what in result.stderr, result.stderr


def test_two_organisations_of_one_name_and_one_file_twice_are_refused(run, home, folders):
    result = run("genesis", "build", *joins(home), joins(home)[0], "--out", "g.json")
    assert result.exit_code == 2 and "two share one" in result.stderr


def test_parameters_are_set_by_name_and_change_the_hash(run, home, folders, built):
    result = run("genesis", "build", *joins(home), "--set", "heartbeat_ms=77", "--out", "g.json")
    assert result.exit_code == 0
    assert load_genesis(home / "g.json").params.heartbeat_ms == 77
    assert load_genesis(home / "g.json").hash.hex() != built
    for wrong in ("heart=1", "ticket_heights=9", "epoch_blocks=0", "heartbeat_ms=x"):
        result = run("genesis", "build", *joins(home), "--set", wrong, "--out", "h.json")
        assert result.exit_code == 2 and wrong.split("=")[0] in result.stderr


def test_all_keys_of_an_organisation_follow_from_its_words(run, home, folders):
    words = (home / "aurora.words").read_text()
    roles = {"validator": "validator", "peer": "peer", "account": "user"}
    for file, role in roles.items():
        kept = load_key(folders["aurora"] / "keys" / f"{file}.json", "correct horse")
        assert kept.public == derive_key(words, role).public
    result = init(run, home / "again", "aurora", "--restore", "--words-file", "aurora.words")
    assert result.exit_code == 0
    one, two = (read_record(SignedJoin, f / "aurora.join.json") for f in (
        folders["aurora"], home / "again"))  # fmt: skip
    assert one.join.member == two.join.member


def test_init_overwrites_nothing_and_asks_nobody(run, home, folders):
    result = init(run, folders["aurora"], "aurora", "--words-file", "more.words")
    assert result.exit_code == 2 and not (home / "more.words").exists()
    assert init(run, home / "new", "new").exit_code == 8, "nobody can be shown the words"
    result = run("init", "n", "--chain", "c", "--listen", "h:1", "--home", str(home / "n"))
    assert result.exit_code == 8 and not (home / "n").exists()


@pytest.mark.parametrize(
    ("name", "listen"), [("../x", "h:1"), ("a b", "h:1"), ("a", "h"), ("a", "h:0"), ("a", ":1")]
)
def test_init_refuses_names_and_addresses_that_are_none(run, name, listen):
    code = run("init", name, "--chain", "c", "--listen", listen, "--home", "h").exit_code
    assert code == 2


@pytest.mark.parametrize(
    ("said", "change"),
    [("a join file.chain_id", {"--chain": "c" * 65}), ("a join file.chain_id", {"--chain": ""}),
     ("a join file.member.host", {"--listen": f"{'h' * 65}:1"}),
     ("a join file.member.host", {"--listen": "[]:1"}),
     ("a join file.member.name", {"NAME": "n" * 65}),
     ("a join file.ticket_heights", {"--ticket-heights": str(2**63)})],
)  # fmt: skip
def test_init_makes_no_join_file_that_others_cannot_read(run, home, said, change):
    """Refused before a key is made or a word is shown; the longest that fits is read again."""
    (home / "password").write_text("correct horse\n")
    given = {"NAME": "n" * 64, "--chain": "c" * 64, "--listen": f"{'h' * 64}:1"}

    def begin(folder, given):
        options = [part for name in given if name != "NAME" for part in (name, given[name])]
        return run(
            "init", given["NAME"], *options, "--role", "observer", "--home", str(home / folder),
            "--password-file", "password", "--words-file", f"{folder}.words", "--cost", "test",
        )  # fmt: skip

    refused = begin("refused", given | change)
    assert (refused.exit_code, said in refused.stderr) == (2, True), refused.stderr
    assert not (home / "refused").exists() and not (home / "refused.words").exists()
    assert begin("taken", given).exit_code == 0, "control"
    verify_join(read_record(SignedJoin, home / "taken" / f"{'n' * 64}.join.json"))


def test_a_genesis_needs_a_join_file():
    with pytest.raises(GenesisError):
        build_genesis([])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"join": 1}', "x" * 20_000, "[" * 10_000])
def test_a_file_that_is_no_join_file_is_named(run, home, text):
    (home / "x.join.json").write_text(text)
    result = run("genesis", "build", "x.join.json")
    assert result.exit_code == 2 and "x.join.json" in result.stderr


def test_the_doctor_finds_keys_of_another_genesis(run, folders, built):
    for name in ("validator", "peer"):
        shutil.copy(folders["birch"] / "keys" / f"{name}.json", folders["aurora"] / f"{name}.x")
    shutil.copy(folders["aurora"] / "peer.x", folders["aurora"] / "keys" / "peer.json")
    result = run("doctor", "--home", str(folders["aurora"]))
    assert "known by another network key" in result.stdout
