"""mlchain audit PROOF: three outcomes, three exit codes, and a file is known by how it begins."""

import json
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

sys.path.append(str(Path(__file__).parents[1] / "ml_runtime"))  # for the makers of proofs

from proof_lab import KEY, Flipping, Lab, accuse_falsely

from mlchain import codec, crypto
from mlchain.ml_runtime.proof import job_id


@pytest.fixture(scope="module")
def lab():
    return Lab()


@pytest.fixture(scope="module")
def proof(lab):
    return lab.prove(lab.other(backend=Flipping(4, 2, 1)).trace(1, lab.start(1)))


@pytest.fixture
def audit(run, home):
    def invoke(proof, *arguments):
        data = proof if isinstance(proof, bytes) else codec.encode(proof)
        (home / "birch.fraud").write_bytes(data)
        return run("audit", "birch.fraud", *arguments)

    return invoke


@pytest.mark.parametrize("options", [(), ("--oracle",)])
def test_a_proven_fraud_exits_with_7_and_names_the_op(audit, lab, proof, options):
    result = audit(proof, *options)
    assert result.exit_code == 7
    assert "✗ fraud proven: step 6, op 4 (" in result.stderr
    assert f"accused  {crypto.address(KEY.public)}" in result.stderr
    assert job_id(lab.tracer.job).hex() in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("option", ["--slices", "--seed", "--report", "--sign"])
def test_what_would_mean_nothing_of_a_proof_is_refused(audit, proof, option):
    result = audit(proof, option, "9")
    assert result.exit_code == 2 and f"{option}: a proof is judged" in result.stderr
    assert audit(proof, "--no-report").exit_code == 7, "control: that is so anyway"


def test_programs_read_where_the_fault_is(audit, lab, proof):
    error = json.loads(audit(proof, "--json").stdout)["error"]
    assert error["code"] == "verification_failed"
    at = error["at"]
    assert (at["outcome"], at["chunk"], at["step"]) == ("fraud", 1, 6)
    assert at["job"] == job_id(lab.tracer.job).hex()
    assert at["entry"].startswith("op 4 (")


def test_a_false_accusation_exits_with_0(audit, lab):
    result = audit(accuse_falsely(lab, 1, 40))
    assert result.exit_code == 0
    assert result.stdout.startswith("✓ unfounded: mlc1")
    document = json.loads(audit(accuse_falsely(lab, 1, 40), "--json").stdout)
    assert (document["schema"], document["data"]["outcome"]) == ("mlchain.fraud/1", "unfounded")


def test_a_proof_that_shows_nothing_exits_with_2(audit, proof):
    bad = replace(proof, fault=replace(proof.fault, leaf=bytes(32)))
    result = audit(bad)
    assert result.exit_code == 2
    assert "proves nothing: openings: they do not lead" in result.stderr
    assert audit(codec.encode(proof)[:-1]).exit_code == 2


def test_a_proof_about_another_job_than_the_one_asked_about_exits_with_2(audit, lab, proof):
    assert audit(proof, "--traced-job", job_id(lab.tracer.job).hex()).exit_code == 7
    assert audit(proof, "--traced-job", "00" * 32).exit_code == 2
    assert audit(proof, "--traced-job", "mine").exit_code == 2


def test_what_does_not_begin_like_a_proof_is_taken_for_a_receipt(audit):
    result = audit(b"something else")
    assert result.exit_code == 2
    assert "--genesis" in result.stderr
