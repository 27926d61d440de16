"""`mlchain sim`: a seed is a run, a broken promise is exit code 7."""

import json


def test_a_kept_promise_exits_with_0_and_says_what_was_run(run):
    result = run("sim", "--seed", "3", "--count", "2")
    assert result.exit_code == 0
    assert "✓ 2 seeds, 0 broken" in result.stdout


def test_one_seed_has_one_digest(run_json):
    code, once = run_json("sim", "--seed", "3")
    assert code == 0 and len(once["data"]["digest"]) == 32
    assert run_json("sim", "--seed", "3")[1]["data"]["digest"] == once["data"]["digest"]
    assert run_json("sim", "--seed", "4")[1]["data"]["digest"] != once["data"]["digest"]


def test_a_broken_promise_exits_with_7_and_names_the_seed(run):
    result = run("sim", "--seed", "0", "--count", "2", "--mutant", "small-quorum")
    assert result.exit_code == 7
    assert "2 of 2 seeds broke a promise" in result.stderr
    assert "mlchain sim --seed 0 --nodes 4 --mutant small-quorum -v" in result.stderr


def test_a_broken_promise_is_told_to_programs_too(run):
    result = run("sim", "--seed", "1", "--mutant", "log-and-signer-lost", "--json")
    assert result.exit_code == 7
    documents = [json.loads(line) for line in (result.stdout + result.stderr).splitlines()]
    assert documents[0]["data"]["broken"][0]["seed"] == 1
    assert "double signature" in documents[0]["data"]["broken"][0]["violation"]


def test_with_v_the_transcript_is_printed(run):
    assert "prevote 1/0 for" in run("sim", "--seed", "3", "-v").stdout
    assert "prevote 1/0 for" not in run("sim", "--seed", "3").stdout


def test_the_adversary_may_be_named_or_none_but_not_invented(run, run_json):
    assert run("sim", "--adversary", "none").exit_code == 0
    assert run_json("sim", "--seed", "2", "--adversary", "equivocator")[1]["data"]["convicted"] == 1
    assert run("sim", "--adversary", "nobody").exit_code == 2
    assert run("sim", "--mutant", "nothing").exit_code == 2
