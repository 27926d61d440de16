"""mlchain audit: how an audit is asked for and told. What it checks is client.receipt's matter."""

import json
import shutil
from types import SimpleNamespace

import pytest
from factories import make_chain, nudge

from mlchain import codec
from mlchain.cli.localnet import LocalNet
from mlchain.client import prediction_receipt
from mlchain.client import receipt as receipts
from mlchain.client.audit_page import signed_bytes
from mlchain.client.keystore import MIN_COST, create_key
from mlchain.client.receipt import Check, Report
from mlchain.crypto import SecretKey, is_signed
from mlchain.errors import NotFound
from mlchain.ledger.genesis import dump_genesis
from mlchain.ledger.kv import LevelKeyValue
from mlchain.vm.receipt import attach_files, make_receipt


@pytest.fixture
def genesis(home, short_chains):
    return str(LocalNet.create(home / "net", 1, 1, 9000, {}).genesis)


@pytest.fixture
def audit(run, genesis, home, monkeypatch):
    """Run the command over a receipt whose audit gives `report`; remember how it was asked."""
    (home / "job.receipt").write_bytes(b"")
    asked = {}
    report = Report(b"j" * 32, "ab", [Check("genesis", True, "fits")], 80, 26, 40)

    def verify(receipt, genesis, *, on_check, on_chunk, **options):
        asked.update(options, chain=genesis.chain_id)
        for check in report.checks:
            on_check(check)
        on_chunk(1, 40)
        return report

    monkeypatch.setattr(receipts, "read_receipt", lambda path: None)
    monkeypatch.setattr(receipts, "verify_receipt", verify)

    def invoke(*arguments):
        return run("audit", "job.receipt", "--genesis", genesis, *arguments)

    invoke.asked, invoke.report = asked, report
    return invoke


def test_a_passed_audit_says_what_it_re_ran_and_could_have_missed(audit):
    result = audit()
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "✓ audited   1 of 1 checks hold; re-ran 40 of 80 slices here: every byte equal"
    )
    assert lines[1].strip() == (
        "had 1 in 10 slices been forged, this audit would have missed it with p = 0.0359"
    )
    assert lines[-1].strip() == "the choice was fixed by --seed ab"
    assert "✓ genesis      fits" in result.stderr
    assert audit.asked["slices"] == 100


def test_a_failed_check_exits_with_7_and_names_itself(audit):
    audit.report.checks.append(Check("re-run", False, "chunk 7 was committed as ab"))
    result = audit()
    assert result.exit_code == 7
    assert "✗ re-run       chunk 7 was committed as ab" in result.stderr
    assert "✗ re-run: chunk 7 was committed as ab" in result.stderr
    assert result.stdout == ""
    document = json.loads(audit("--json").stdout)
    assert document["error"]["code"] == "verification_failed"


def test_everything_may_be_re_run_and_the_choice_repeated(audit):
    audit.report.drawn = audit.report.rerun = 80
    result = audit("--slices", "all", "--seed", "abc", "--json")
    assert (audit.asked["slices"], audit.asked["seed"]) == (None, "abc")
    data = json.loads(result.stdout)["data"]
    assert (data["rerun"], data["miss_1_in_100"], data["job"]) == (80, "0", "6a" * 32)
    assert "missed" not in audit("--slices", "all").stdout


@pytest.mark.parametrize("slices", ["-1", "some", "1.5", "²"])
def test_a_number_of_slices_is_a_number(audit, slices):
    assert audit("--slices", slices).exit_code == 2


def test_files_beside_the_receipt_are_found_by_what_they_hold(audit, home):
    from mlchain.ledger.content import cid_of

    (home / "files").mkdir()
    (home / "files" / "any-name").write_bytes(b"rows")
    assert audit("--data", "files").exit_code == 0
    assert audit.asked["find_file"](cid_of(b"rows")) == b"rows"
    assert audit.asked["find_file"](cid_of(b"other")) is None


def test_a_missing_file_is_not_a_failed_audit(audit, monkeypatch):
    def verify(*_, **__):
        raise NotFound("the dataset is not in the receipt", "--data FOLDER")

    monkeypatch.setattr(receipts, "verify_receipt", verify)
    assert audit().exit_code == 3


@pytest.fixture
def audit_answer(run_json, genesis, home, monkeypatch):
    """Run the command over a receipt of an answer whose audit makes `checks`."""
    (home / "p.receipt").write_bytes(prediction_receipt.HEAD)
    checks = [Check("genesis", True, "fits"), Check("re-run", True, "every byte equal")]
    receipt = SimpleNamespace(request=b"r" * 32)

    def tell_all(receipt, genesis, find_file, on_check):
        for check in checks:
            on_check(check)
        return checks

    monkeypatch.setattr(prediction_receipt, "read_prediction_receipt", lambda path: receipt)
    monkeypatch.setattr(prediction_receipt, "verify_prediction_receipt", tell_all)

    def invoke(*arguments):
        return run_json("audit", "p.receipt", "--genesis", genesis, *arguments)

    invoke.checks = checks
    return invoke


def test_the_audit_of_an_answer_leaves_a_report_too(audit_answer, home):
    create_key(home / "auditor.json", auditor := SecretKey(b"a" * 32), None, cost=MIN_COST)
    code, document = audit_answer("--report", "kept", "--sign", "auditor.json")
    page, plain = (home / "kept" / f"audit-p.{kind}" for kind in ("html", "json"))
    assert (code, document["data"]["report"]) == (0, ["kept/audit-p.html", "kept/audit-p.json"])
    written = json.loads(plain.read_text())
    assert written["report"]["subject"] == "receipt of prediction " + "72" * 32
    assert written["report"]["passed"] and written["report"]["checks"] == document["data"]["checks"]
    signature = bytes.fromhex(written["signature"]["signature"])
    assert is_signed(auditor.public, signed_bytes(written["report"]), signature)
    assert "every byte equal" in page.read_text() and "slices" not in page.read_text()


def test_an_answer_that_does_not_hold_leaves_its_report(audit_answer, home):
    audit_answer.checks[-1] = Check("re-run", False, "computing gives ab")
    assert audit_answer()[0] == 7
    assert "✗ failed" in (home / "audit-p.html").read_text()
    (home / "audit-p.html").unlink()
    audit_answer("--no-report")
    assert not (home / "audit-p.html").exists()


@pytest.mark.parametrize("how", [("--slices", "3"), ("--seed", "mine")])
def test_an_answer_has_no_slices_to_choose(audit_answer, how):
    code, document = audit_answer(*how)
    assert (code, document["error"]["code"]) == (2, "usage")
    assert f"{how[0]}: an answer has no slices" in document["error"]["message"]


def test_what_is_no_receipt_is_refused(run, genesis, home):
    (home / "job.receipt").write_bytes(b"not a receipt")
    result = run("audit", "job.receipt", "--genesis", genesis)
    assert (result.exit_code, "is not a receipt" in result.stderr) == (7, True)
    assert run("audit", "none.receipt", "--genesis", genesis).exit_code == 2


@pytest.fixture(scope="module")
def real():
    """A settled job, and the same with one chunk forged by everybody together."""
    return [
        (chain := make_chain(1, 1), chain.run_job(forge=forge))
        for forge in (None, lambda chunk, state: nudge(state) if chunk == 5 else state)
    ]


def write_files(home, chain, job_id):
    """Write what an auditor has: a receipt, and a genesis file of their own."""
    receipt = attach_files(make_receipt(chain.store, job_id), chain.content)
    (home / "job.receipt").write_bytes(codec.encode(receipt))
    (home / "genesis.json").write_text(dump_genesis(chain.genesis))
    return "audit", "job.receipt", "--genesis", "genesis.json"


def test_a_real_receipt_is_audited_offline(run, home, real):
    result = run(*write_files(home, *real[0]), "--slices", "3", "--seed", "mine")
    assert result.exit_code == 0, result.stderr
    names = [line.split()[1] for line in result.stderr.splitlines() if "✓" in line]
    assert names[0] == "genesis" and names[-1] == "re-run" and len(names) == 12
    assert "✓ metrics      accuracy 1.0000 (15 of 15)" in result.stderr
    assert "12 of 12 checks hold" in result.stdout and "--seed mine" in result.stdout


def test_a_forged_chunk_exits_with_7_and_is_named_unless_nothing_is_re_run(run, home, real):
    command = write_files(home, *real[1])
    result = run(*command, "--slices", "all")
    assert result.exit_code == 7
    assert "✗ re-run       chunk 5 was committed as" in result.stderr
    assert run(*command, "--slices", "0").exit_code == 0  # the control


def test_a_receipt_of_another_chain_exits_with_7(run, home, real):
    command = write_files(home, *real[0])
    (home / "genesis.json").write_text(dump_genesis(make_chain(1, 1, "test-2").genesis))
    result = run(*command, "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["code"]) == (7, "verification_failed")
    assert error["message"].startswith("genesis: ")


# ---- the report, and whole chains ---------------------------------------------------------------


def test_every_audit_leaves_a_page_and_a_document(run, run_json, home, real):
    command = write_files(home, *real[0])
    code, document = run_json(*command, "--slices", "3", "--report", "out")
    assert code == 0
    assert document["data"]["report"] == ["out/audit-job.html", "out/audit-job.json"]
    report = json.loads((home / "out" / "audit-job.json").read_text())["report"]
    assert report["passed"] and report["drawn"] == 3 and len(report["checks"]) == 12
    assert "✓ passed" in (home / "out" / "audit-job.html").read_text()


def test_a_failed_audit_leaves_its_report_too(run, home, real):
    assert run(*write_files(home, *real[1]), "--slices", "all").exit_code == 7
    report = json.loads((home / "audit-job.json").read_text())["report"]
    assert (report["passed"], report["jobs"][0]["differs"]) == (False, 5)
    page = (home / "audit-job.html").read_text()
    assert "✗ failed" in page and '<span class="d">x</span>' in page


def test_no_report_is_written_when_none_is_wanted(run, home, real):
    assert run(*write_files(home, *real[0]), "--slices", "0", "--no-report").exit_code == 0
    assert not list(home.glob("audit-*"))


def test_an_auditor_signs_the_report_and_anybody_can_check_it(run, home, real):
    create_key(home / "auditor.json", SecretKey(b"a" * 32), "secret", cost=MIN_COST)
    (home / "password").write_text("secret")
    how = ("--slices", "0", "--sign", "auditor.json", "--password-file", "password")
    assert run(*write_files(home, *real[0]), *how).exit_code == 0
    found = json.loads((home / "audit-job.json").read_text())
    key, signature = (bytes.fromhex(found["signature"][n]) for n in ("key", "signature"))
    assert is_signed(key, signed_bytes(found["report"]), signature)
    found["report"]["passed"] = False
    assert not is_signed(key, signed_bytes(found["report"]), signature)


def test_a_genesis_may_be_named_by_its_hash(run, home, real):
    name, file, option, _ = write_files(home, *real[0])
    digest = real[0][0].genesis.hash.hex()
    spoken = " ".join(digest[i : i + 4] for i in range(0, 64, 4))
    for text in (digest, spoken):
        assert run(name, file, option, text, "--slices", "0", "--no-report").exit_code == 0
    assert run(name, file, option, "00" * 32, "--slices", "0").exit_code == 3


def home_of(chain, folder):
    """What a stopped node leaves: its stores, and the genesis file."""
    folder.mkdir()
    (folder / "genesis.json").write_text(dump_genesis(chain.genesis))
    for name, kv in (("data", chain.store._kv), ("content", chain.content._kv)):
        level = LevelKeyValue(folder / name)
        level.write(dict(kv.items()))
        level.close()
    return str(folder)


def test_the_auditors_first_ten_minutes(run, run_json, home, real):
    """A node's archive, audited with nothing but the hash: every line of the screen."""
    chain, _ = real[0]
    stopped = home_of(chain, home / "aurora")
    result = run("archive", "--home", stopped, "--out", "hearts-1.car")
    assert result.exit_code == 0, result.stderr
    digest = chain.genesis.hash.hex()
    result = run("audit", "hearts-1.car", "--genesis", digest, "--slices", "3", "--seed", "mine")
    assert result.exit_code == 0, result.stderr
    height = chain.store.height
    for said in (
        f"✓ genesis      {digest}  0 of 2 members signed",
        f"✓ headers      {height} of {height} linked, each signed by more than 2/3 of the power",
        f"✓ state        {height} of {height} state roots recomputed from genesis",
        "✓ data         ",
        "✓ re-run       3 of 3 equal, of 8",
        "! note         2 of 2 members did not sign genesis",
        f"audit-hearts-1-1-{height}.html",
    ):
        assert said in result.stderr, result.stderr
    assert "passed with 1 note" in result.stdout
    assert "had 1 in 100 slices been forged" in result.stdout and "--seed mine" in result.stdout
    code, document = run_json("audit", "hearts-1.car", "--genesis", digest, "--slices", "all")
    assert (code, document["schema"], document["data"]["rerun"]) == (0, "mlchain.audit-chain/1", 8)


def test_of_a_chain_of_which_nothing_was_re_run_no_byte_is_called_equal(run, run_json, home, real):
    """The archive has no data of its job: 8 slices that nobody could look at."""
    chain, _ = real[0]
    stopped = home_of(chain, home / "n")
    command = "archive", "--home", stopped, "--out"
    assert run(*command, "whole.car").exit_code == 0
    shutil.rmtree(home / "n" / "content")
    (home / "n" / "content").mkdir()
    assert run(*command, "bare.car").exit_code == 0
    digest = chain.genesis.hash.hex()
    said = run("audit", "bare.car", "--genesis", digest).stdout
    assert "0 of 0 slices re-run here\n" in said and "equal" not in said
    lacking = "8 slices could not be re-run: the archive lacks their data"
    assert lacking in said and lacking in next(home.glob("audit-bare-*.html")).read_text()
    document = run_json("audit", "bare.car", "--genesis", digest)[1]["data"]
    assert (document["passed"], document["chunks"], document["absent"]) == (True, 0, 8)
    said = run("audit", "whole.car", "--genesis", digest).stdout
    assert "8 of 8 slices re-run here: every byte equal" in said and "lacks" not in said, "control"
    assert "equal" not in run("audit", "whole.car", "--genesis", digest, "--slices", "0").stdout


def test_a_forged_chain_and_a_wrong_hash_exit_with_7(run, home, real):
    chain, _ = real[1]
    assert run("archive", "--home", home_of(chain, home / "n"), "--out", "f.car").exit_code == 0
    digest = chain.genesis.hash.hex()
    result = run("audit", "f.car", "--genesis", digest, "--slices", "all")
    assert result.exit_code == 7 and "chunk 5 was committed as" in result.stderr
    assert run("audit", "f.car", "--genesis", digest, "--slices", "0").exit_code == 0  # control
    result = run("audit", "f.car", "--genesis", "00" * 32)
    assert result.exit_code == 7 and "you named 0000" in result.stderr


def test_an_archive_needs_a_node_that_has_run_and_is_asked_or_stopped(run, home, real):
    assert run("archive", "--home", str(home), "--out", "f.car").exit_code == 2
    stopped = home_of(real[0][0], home / "n")
    running = LevelKeyValue(home / "n" / "data")
    result = run("archive", "--home", stopped, "--out", "f.car")
    running.close()
    assert result.exit_code == 2 and "in use" in result.stderr
    for both in ((), ("--home", stopped, "--url", "http://127.0.0.1:1")):
        assert run("archive", *both, "--out", "f.car").exit_code == 2
    assert run("archive", "--url", "http://127.0.0.1:1", "--out", "f.car").exit_code == 4
    assert not list(home.glob("*.car*"))
