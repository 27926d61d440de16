"""submit-job, job and status against a node that answers from a table."""

import json
from pathlib import Path

import pytest
from fake_node import JOB_ID, STATUS, fault, job, problem

from mlchain import codec
from mlchain.cli.watch import events_between
from mlchain.client.keystore import dev_key
from mlchain.ledger import unixfs
from mlchain.ledger.transaction import decode_transaction, verify_transaction
from mlchain.ml_runtime import Dataset, check_plan, decode_plan
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.jobs import fixed_seed
from mlchain.vm.families.submit import SubmitJob
from mlchain.web.answers import JobRow

FILE = """\
[job]
name = "flowers"
fee = 120_000
[data]
source = "flowers.csv"
[model]
kind = "softmax"
[training]
rate = 0.1
batch = 4
steps = 40
chunk = 2
segments = 3
"""
ROWS = "size,kind\n" + "".join(f"{i}.5,{'small' if i < 10 else 'large'}\n" for i in range(20))
VERIFIED = "✓ verified  3 of 3 validators re-ran 26 of 80 slices: every byte equal"


@pytest.fixture
def file(home) -> Path:
    (home / "flowers.csv").write_text(ROWS)
    path = home / "flowers.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def chain(node):
    """A development chain that accepts a job and settles it."""
    node.routes["GET /v1/status"] = {**STATUS, "chain_id": "dev-1"}
    node.routes["POST /v1/data"] = lambda body: (
        200,
        json.dumps({"cid": unixfs.cid_text(unixfs.cid_of(body))}).encode(),
    )
    alice = dev_key("alice").public.hex()
    node.routes[f"GET /v1/accounts/{alice}"] = {"balance": 10**9, "nonce": 5}
    node.routes["POST /v1/txs"] = [{"id": "ab" * 32}, {"id": JOB_ID}]
    node.routes[f"GET /v1/txs/{JOB_ID}"] = {"state": "included", "height": 13, "code": "ok"}
    node.routes[f"GET /v1/jobs/{JOB_ID}"] = [job("submitted"), job("running"), job("settled")]
    node.routes[f"GET /v1/jobs/{JOB_ID}/receipt"] = b"receipt"
    node.routes[f"GET /v1/jobs/{JOB_ID}/model"] = b"model"
    return node


def test_a_job_file_becomes_two_signed_requests_over_one_dataset(run, chain, file):
    result = run("submit-job", str(file), "--url", chain.url)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == JOB_ID
    (data,) = [body for route, body in chain.requests if route == "POST /v1/data"]
    sent = [decode_transaction(b) for route, b in chain.requests if route == "POST /v1/txs"]
    for transaction in sent:
        verify_transaction(transaction)
        assert transaction.body.sender == dev_key("alice").public
    assert [transaction.body.nonce for transaction in sent] == [5, 6]
    register = codec.decode(RegisterData, sent[0].body.payload)
    submit = codec.decode(SubmitJob, sent[1].body.payload)
    dataset = Dataset.decode(data)
    assert register == RegisterData(unixfs.cid_of(data), len(data), 20, 1)
    assert (dataset.rows, dataset.outputs, dataset.kind) == (20, 2, "class")
    assert submit.dataset == register.content
    assert (submit.name, submit.tier, submit.fee) == ("flowers", "audited", 120_000)
    assert (submit.train_rows, submit.test_rows) == (16, 4)
    assert (submit.steps, submit.chunk) == (40, 2)
    assert submit.segment == 7, "20 chunks in 3 segments: 7, 7, 6"
    assert submit.seed == b"", "the chain draws the order"
    check_plan(decode_plan(submit.plan))


def test_a_fixed_seed_is_sent_with_the_job_and_seed_0_is_one(run, chain, file):
    for number in (0, 7):
        file.write_text(f"{FILE}seed = {number}\n")
        chain.routes["POST /v1/txs"] = [{"id": "ab" * 32}, {"id": JOB_ID}]
        assert run("submit-job", str(file), "--url", chain.url).exit_code == 0
        data = [body for route, body in chain.requests if route == "POST /v1/txs"][-1]
        submit = codec.decode(SubmitJob, decode_transaction(data).body.payload)
        assert submit.seed == fixed_seed(number)


def test_following_ends_with_what_was_verified_and_a_receipt(run, chain, file, home):
    result = run("submit-job", str(file), "--url", chain.url, "--follow")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == VERIFIED
    assert lines[1].strip() == (
        "had 1 in 10 slices been forged, the sample would have missed it with p = 0.036"
    )
    assert lines[2].strip().startswith("had 1 in 100 slices been forged")
    assert "  accuracy 0.9667  (29 of 30 test rows)" in lines
    assert f"  state hash  {'ef' * 32}" in lines
    assert (home / "7f3ae1c2.receipt").read_bytes() == b"receipt"
    for part in ("✓ data", "✓ signed    job 7f3ae1c2 by alice, fee 120 000", "✓ included"):
        assert part in result.stderr


def test_everything_being_re_run_leaves_no_odds_to_tell(run, chain, file):
    settled = job("settled")
    settled["verified"]["rerun"] = 80
    chain.routes[f"GET /v1/jobs/{JOB_ID}"] = settled
    result = run("submit-job", str(file), "--url", chain.url, "--follow")
    assert "re-ran 80 of 80 slices: every byte equal" in result.stdout
    assert "missed" not in result.stdout


def test_the_json_document_is_the_job_and_progress_is_silent(run, chain, file):
    result = run("submit-job", str(file), "--url", chain.url, "--follow", "--json")
    document = json.loads(result.stdout)
    assert (document["schema"], document["ok"]) == ("mlchain.followed/1", True)
    assert document["data"]["verified"]["rerun"] == 26
    assert document["data"]["receipt_file"] == "7f3ae1c2.receipt"
    assert result.stderr == ""


@pytest.mark.parametrize(("state", "words"), [("trapped", "exact range"), ("expired", "in time")])
def test_a_job_without_a_result_is_a_failure(run, chain, file, state, words):
    chain.routes[f"GET /v1/jobs/{JOB_ID}"] = job(state)
    result = run("submit-job", str(file), "--url", chain.url, "--follow")
    assert result.exit_code == 5
    assert state in result.stderr and words in result.stderr


def test_what_the_chain_refuses_is_shown_in_its_words(run, chain, file):
    chain.routes["POST /v1/txs"] = problem(422, "rejected", "balance 3, needed 9", "ask for money")
    result = run("submit-job", str(file), "--url", chain.url)
    assert result.exit_code == 5
    assert "✗ balance 3, needed 9\n  try  ask for money" in result.stderr


def test_a_mistake_in_the_job_file_names_file_and_line_in_json(run_json, chain, file):
    file.write_text(FILE.replace("steps = 40", "steps = 0"))
    code, document = run_json("submit-job", str(file), "--url", chain.url)
    assert code == 2
    assert document["error"]["at"] == {"file": str(file), "line": 11}
    assert chain.requests == [], "nothing was sent"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("batch = 4", "batch = 17", "batch = 17: there are 16 training rows"),
        ("segments = 3", "segments = 21", "segments = 21: there are 20 chunks of 2"),
        ("flowers.csv", "none.csv", "none.csv: No such file"),
    ],
)
def test_a_job_that_its_data_cannot_carry_is_refused_before_anything_is_sent(
    run, chain, file, old, new, reason
):
    file.write_text(FILE.replace(old, new))
    result = run("submit-job", str(file), "--url", chain.url)
    assert (result.exit_code, reason in result.stderr) == (2, True), result.stderr
    assert [route for route, _ in chain.requests if route.startswith("POST")] == []


def test_a_key_must_be_named_when_there_are_several_and_may_be_a_file(run, chain, file, home):
    chain.routes["GET /v1/status"] = {**STATUS, "chain_id": "test-1"}
    submit = ("submit-job", str(file), "--url", chain.url)
    assert "mlchain keys new" in run(*submit).stderr
    for name in ("carol", "dave"):
        assert run("keys", "new", name, "--unprotected").exit_code == 0
    result = run(*submit)
    assert (result.exit_code, "carol, dave" in result.stderr) == (2, True)
    shown = json.loads(run("keys", "show", "carol", "--json").stdout)["data"]
    chain.routes[f"GET /v1/accounts/{shown['public']}"] = {"balance": 1, "nonce": 0}
    for key in ("carol", shown["file"]):
        chain.routes["POST /v1/txs"] = [{"id": "ab" * 32}, {"id": JOB_ID}]
        assert run(*submit, "--key", key).exit_code == 0


def test_published_keys_sign_on_development_chains_only(run, chain, file):
    chain.routes["GET /v1/status"] = {**STATUS, "chain_id": "bank-1"}
    result = run("submit-job", str(file), "--url", chain.url, "--key", "alice")
    assert result.exit_code == 3


def test_show_lists_segments_who_re_ran_them_and_the_result(run, chain):
    chain.routes["GET /v1/jobs/7f"] = job("settled")
    result = run("job", "show", "7f", "--url", chain.url)
    assert result.exit_code == 0
    assert "1  hard   worker-1           3  13 of 40" in result.stdout
    assert VERIFIED in result.stdout


def test_show_names_who_was_found_cheating_and_who_took_over(run, chain):
    found = fault(
        offender="worker-2",
        role="worker",
        kind="forged",
        segment=0,
        chunk=17,
        slashed=500_000_000,
        finders=["validator-3", "validator-1"],
        height=31,
    )
    chain.routes["GET /v1/jobs/7f"] = job("running", faults=[found])
    text = run("job", "show", "7f", "--url", chain.url).stdout
    assert (
        "worker-2  forged in segment 1, slice 17: slashed 500 000 000 at block #31, "
        "found by validator-3, validator-1" in text
    )
    assert "segment 1 was given to worker-1" in text


def test_a_validators_fault_gives_no_segment_to_anybody(run, chain):
    found = fault(
        offender="validator-2",
        role="validator",
        kind="false-accusation",
        segment=0,
        chunk=0,
        slashed=1,
        finders=[],
        height=40,
    )
    chain.routes["GET /v1/jobs/7f"] = job("running", faults=[found])
    text = run("job", "show", "7f", "--url", chain.url).stdout
    assert "validator-2  false-accusation in segment 1, slice 0" in text
    assert "was given to" not in text, "the worker did nothing wrong and kept it"


def test_list_shows_a_line_for_each_job(run, chain):
    chain.routes["GET /v1/jobs"] = {
        "jobs": [
            {name: value for name, value in job(state).items() if name in JobRow.__annotations__}
            for state in ("settled", "running")
        ]
    }
    lines = run("job", "list", "--url", chain.url).stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["7f3ae1c27f3a", "iris", "settled", "audited", "80/80"],
        ["7f3ae1c27f3a", "iris", "running", "audited", "0/80"],
    ]
    chain.routes["GET /v1/jobs"] = {"jobs": []}
    assert run("job", "list", "--url", chain.url).stdout == "no jobs\n"


def test_result_saves_model_and_receipt(run, chain, home):
    chain.routes["GET /v1/jobs/7f"] = job("settled")
    result = run("job", "result", "7f", "--url", chain.url, "-o", "flowers.model")
    assert result.exit_code == 0, result.stderr
    assert (home / "flowers.model").read_bytes() == b"model"
    assert (home / "7f3ae1c2.receipt").read_bytes() == b"receipt"
    unwritable = run("job", "result", "7f", "--url", chain.url, "-o", "none/flowers.model")
    assert unwritable.exit_code == 2


def test_a_job_that_still_runs_has_no_result(run, chain):
    chain.routes["GET /v1/jobs/7f"] = job("running")
    result = run("job", "result", "7f", "--url", chain.url)
    assert (result.exit_code, "it is running" in result.stderr) == (3, True)


def test_status_says_who_is_missing(run, node):
    result = run("status", "--url", node.url)
    assert result.exit_code == 0
    assert "head     #12" in result.stdout
    assert "3 transactions" in result.stdout
    assert "✗ missing worker-1" in result.stdout


def test_status_of_a_node_without_a_state_says_how_far_it_is_and_from_whom(run, run_json, node):
    given = [
        {"name": "beta", "chunks": 12, "refused": False},
        {"name": "gamma", "chunks": 0, "refused": True},
    ]
    sync = {"phase": "fetching", "height": 4000, "chunks": 12, "of": 256, "bytes": 1_300_000}
    fetching = {"height": 0, "state_sync": {**sync, "peers": given}}
    node.routes["GET /v1/status"] = {**STATUS, **fetching}
    said = run("status", "--url", node.url).stdout
    assert "state    fetching  of block #4000" in said and "head" not in said
    assert "12/256  1.3 MB" in said
    assert "from     beta  12 chunks" in said
    assert "from     gamma  0 chunks  ✗ gave what is wrong" in said
    code, document = run_json("status", "--url", node.url)
    assert (code, document["data"]["state_sync"]["chunks"]) == (0, 12)


def test_nobody_there_exits_with_4_and_says_what_to_try(run):
    result = run("status", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 4
    assert "no node answers at http://127.0.0.1:9" in result.stderr
    assert "mlchain testnet up" in result.stderr


def test_events_tell_each_thing_once():
    states = [job("submitted"), job("accepted"), job("running"), job("running"), job("settled")]
    told = [list(events_between(a, b)) for a, b in zip([{}, *states], states, strict=False)]
    assert [len(lines) for lines in told] == [0, 1, 3, 0, 2]
    assert "segment 1/2  final in block #24: 3 validators re-ran 13 of 40 slices" in told[4][0]
