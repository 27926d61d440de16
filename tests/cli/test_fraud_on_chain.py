"""mlchain job fraud and mlchain audit FILE --genesis: the file of a dispute, fetched and judged."""

import json

import pytest
from factories import make_chain, nudge
from fake_node import JOB_ID, job

from mlchain import codec
from mlchain.ledger.genesis import dump_genesis
from mlchain.vm.accusation import WrongChunk, WrongEnd, make_accusation

ROWS = [
    {"job": JOB_ID, "segment": 0, "attempt": 0, "chunk": 3},
    {"job": JOB_ID, "segment": 1, "attempt": 2, "chunk": 9},
]


@pytest.fixture(scope="module")
def chain():
    """A chain with a committed segment whose second chunk is forged."""
    made = make_chain(4, 1)
    made.job_id = made.submit()
    made.start(made.job_id)
    made.commit_segment(made.job_id, lambda chunk, state: nudge(state) if chunk == 1 else state)
    return made


def accusation(chain, chunk, ground):
    commit = chain.segment(chain.job_id, 0).commit
    data = chain.content.get(commit.leaves_content)
    leaves = tuple(data[i : i + 32] for i in range(0, len(data), 32))
    made = make_accusation(chain.store, chain.job_id, 0, chunk, leaves)
    made = made.__class__(*(getattr(made, name) for name in made.__struct_fields__[:-1]), ground)
    return codec.encode(made)


@pytest.fixture
def audit(run, home, chain):
    def invoke(data, *arguments):
        (home / "case.fraud").write_bytes(data)
        (home / "genesis.json").write_text(dump_genesis(chain.genesis))
        return run("audit", "case.fraud", "--genesis", "genesis.json", *arguments)

    return invoke


def forged(chain):
    trainer = chain.trainer(chain.job(chain.job_id))
    state = trainer.run_chunk(0, trainer.initial_state())
    return accusation(chain, 1, WrongChunk(state.encode()))


def test_a_proven_fraud_exits_with_7_and_says_what_is_certified(audit, home, chain):
    (home / "files").mkdir()
    job = chain.job(chain.job_id)
    (home / "files" / "any-name").write_bytes(chain.content.get(job.dataset))
    result = audit(forged(chain), "--data", "files", "--json")
    assert result.exit_code == 7
    at = json.loads(result.stdout)["error"]["at"]
    assert (at["ground"], at["chunk"], at["job"]) == ("chunk", 1, chain.job_id.hex())
    assert "signed by 4 of 4" in at["certified"]


def test_without_the_dataset_it_says_what_is_missing(audit, chain):
    result = audit(forged(chain))
    assert result.exit_code == 3
    assert "--data FOLDER" in result.stderr


def test_an_unfounded_accusation_exits_with_0(audit, chain):
    last = chain.segment(chain.job_id, 0).commit.count - 1
    result = audit(accusation(chain, last, WrongEnd()))
    assert result.exit_code == 0
    assert result.stdout.startswith("✓ unfounded: mlc1")


def test_a_file_that_shows_nothing_exits_with_2(audit, chain):
    assert audit(forged(chain)[:-1]).exit_code == 2
    result = audit(accusation(chain, 0, WrongEnd()))
    assert result.exit_code == 2 and "proves nothing: the end is that of" in result.stderr


@pytest.fixture
def judges(node):
    """A node that made two files."""
    node.routes[f"GET /v1/jobs/{JOB_ID[:4]}"] = job("running")
    node.routes[f"GET /v1/jobs/{JOB_ID}/fraud"] = {"files": ROWS}
    node.routes[f"GET /v1/jobs/{JOB_ID}/fraud/0/0/3"] = b"first"
    node.routes[f"GET /v1/jobs/{JOB_ID}/fraud/1/2/9"] = b"second"
    return node


@pytest.mark.parametrize(
    ("options", "data"),
    [((), b"second"), (("--chunk", "3"), b"first"), (("--segment", "0"), b"first")],
)
def test_the_file_of_a_dispute_is_fetched(run, home, judges, options, data):
    result = run("job", "fraud", JOB_ID[:4], "--url", judges.url, "-o", "x.fraud", *options)
    assert result.exit_code == 0, result.stderr
    assert (home / "x.fraud").read_bytes() == data
    assert "mlchain audit x.fraud --genesis FILE" in result.stdout


def test_a_node_that_made_none_says_whom_to_ask(run, judges):
    result = run("job", "fraud", JOB_ID[:4], "--url", judges.url, "--chunk", "4")
    assert result.exit_code == 3
    assert "ask another" in result.stderr
