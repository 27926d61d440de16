"""A receipt whose attesters are not in the genesis file: proven by their records in the state."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from factories import GrowingChain, make_key, nudge
from msgspec.structs import replace
from newcomers import admit, make_open_chain, rotate
from receipt_forger import Books, failed, receipt_of, resign

from mlchain import codec
from mlchain.cli import main
from mlchain.client import checks
from mlchain.client.accusation import judge_accusation
from mlchain.client.receipt import verify_receipt
from mlchain.consensus.work.tickets import Reveal
from mlchain.errors import CodecError
from mlchain.ledger.genesis import dump_genesis
from mlchain.ledger.merkle import SparseTree
from mlchain.ml_runtime.proof import Outcome
from mlchain.vm.accusation import WrongChunk, make_accusation
from mlchain.vm.families.jobs import Segment
from mlchain.vm.families.members import VALIDATORS, ValidatorRecord
from mlchain.vm.receipt import MAX_RECEIPT_BYTES, Proven, Receipt

JOINER = "validator-4"


@pytest.fixture(scope="module")
def joined() -> tuple[GrowingChain, Receipt]:
    """A job that a validator attested which had joined by governance."""
    chain = make_open_chain()
    admit(chain, JOINER)
    return chain, receipt_of(chain, chain.run_job())


def attesters(receipt: Receipt, index: int) -> list[bytes]:
    segment = codec.decode(Segment, receipt.segments[index].value)
    return [attested.validator for attested in segment.attestations]


def reason(receipt: Receipt, chain: GrowingChain) -> str:
    report = verify_receipt(receipt, chain.genesis, slices=0)
    return f"{report.failed.name}: {report.failed.text}" if report.failed else ""


# ---- who came after genesis ----------------------------------------------------------------------


def test_a_job_attested_by_a_validator_that_joined_audits(joined):
    chain, receipt = joined
    assert make_key(JOINER).public in attesters(receipt, 0)
    assert len(receipt.newcomers) == 1 and len(receipt.changes) == 1
    assert failed(receipt, chain) == ""
    data = codec.encode(receipt)
    assert codec.decode(Receipt, data, MAX_RECEIPT_BYTES) == receipt


def test_a_job_attested_under_an_old_and_then_a_new_key_audits():
    chain = make_open_chain()
    job_id = chain.submit()
    chain.start(job_id)
    chain.commit_segment(job_id)
    chain.finish_segment(job_id)
    new = rotate(chain, "validator-3", "validator-3-new")
    chain.commit_segment(job_id)
    chain.finish_segment(job_id)
    receipt = receipt_of(chain, job_id)
    old = make_key("validator-3").public
    assert (old in attesters(receipt, 0), new in attesters(receipt, 1)) == (True, True)
    assert len(receipt.newcomers) == 1
    assert failed(receipt, chain) == ""


def test_a_newcomer_that_has_gone_again_is_still_proven():
    """It changes its key a second time after the job; what it attested stays what it was."""
    chain = make_open_chain()
    second = rotate(chain, "validator-3", "second")
    job_id = chain.run_job()
    rotate(chain, "second", "third", name="validator-3")
    receipt = receipt_of(chain, job_id)
    assert second in attesters(receipt, 0) and second not in chain.chain.validators.keys
    assert len(receipt.newcomers) == 1
    assert failed(receipt, chain) == ""


def test_a_receipt_without_newcomers_carries_no_record(honest):
    _, receipt = honest
    assert receipt.newcomers == ()


# ---- the work of a worker that came after genesis ------------------------------------------------


def test_a_worker_under_a_new_key_is_audited_and_convicted_like_any_other():
    chain = make_open_chain()
    worker = rotate(chain, "worker-0", "worker-0-new", role="worker")
    job_id = chain.submit()
    chain.start(job_id)
    segment = chain.commit_segment(job_id, lambda i, state: nudge(state) if i == 1 else state)
    trainer = chain.trainer(chain.job(job_id))
    before = trainer.run_chunk(0, trainer.initial_state())
    leaves = chain.content.get(segment.commit.leaves_content)
    ends = tuple(leaves[i : i + 32] for i in range(0, len(leaves), 32))
    made = make_accusation(chain.store, job_id, 0, 1, ends)
    made = replace(made, ground=WrongChunk(before.encode()))
    found = judge_accusation(made, chain.genesis, chain.content.get)
    assert (found.outcome, found.worker) == (Outcome.FRAUD, worker)
    assert failed(receipt_of(chain, chain.run_job()), chain) == ""


# ---- forged newcomers ----------------------------------------------------------------------------


def own_chain(receipt: Receipt) -> Proven:
    """The record, with a ticket chain that the forger made up."""
    proven = receipt.newcomers[0]
    record = codec.decode(ValidatorRecord, proven.value)
    return replace(proven, value=codec.encode(replace(record, tickets=Reveal(b"t" * 32, 1))))


def under_another_root(receipt: Receipt) -> Proven:
    """A good proof, in a state that nobody certified."""
    key, value = VALIDATORS.key(make_key(JOINER).public), own_chain(receipt).value
    return Proven(value, SparseTree().update({key: value}).prove(key))


FORGED = {
    "left out": lambda receipt, chain: (),
    "of other tickets": lambda receipt, chain: (own_chain(receipt),),
    "proven under another root": lambda receipt, chain: (under_another_root(receipt),),
    "of another validator": lambda receipt, chain: (founder(chain),),
    "one too many": lambda receipt, chain: (*receipt.newcomers, founder(chain)),
}


def founder(chain: GrowingChain) -> Proven:
    value, proof = chain.store.prove(VALIDATORS.key(make_key("validator-0").public))
    assert value is not None
    return Proven(value, proof)


@pytest.mark.parametrize("kind", FORGED)
def test_a_newcomer_that_is_not_proven_is_a_stranger(joined, kind):
    chain, receipt = joined
    forged = replace(receipt, newcomers=FORGED[kind](receipt, chain))
    found = reason(forged, chain)
    assert found.startswith("attestations: ")
    assert kind == "one too many" or "attested by a stranger" in found


def test_control_without_the_state_proof_a_forged_newcomer_is_believed(joined, monkeypatch):
    """Its record decides which tickets are right, so it can choose its slices."""
    chain, receipt = joined
    record = codec.decode(ValidatorRecord, receipt.newcomers[0].value)
    forged = replace(receipt.newcomers[0], value=codec.encode(replace(record, name="forger")))
    forged_receipt = replace(receipt, newcomers=(forged,))
    assert "stranger" in reason(forged_receipt, chain)
    monkeypatch.setattr(checks, "require_proven", lambda *_: None)
    assert reason(forged_receipt, chain) == ""


def choose_its_ticket(books: Books) -> None:
    for index, segment in enumerate(books.segments):
        row = [
            replace(each, ticket=b"t" * 32) if each.validator in books.newcomers else each
            for each in segment.attestations
        ]
        books.change_segment(index, attestations=tuple(row))


def lengthen_its_chain(books: Books) -> None:
    for key, record in books.newcomers.items():
        books.newcomers[key] = replace(record, tickets=Reveal(bytes(32), 2**62))


@pytest.mark.parametrize(
    ("lie", "word"),
    [
        (choose_its_ticket, "not of the chain it registered"),
        (lengthen_its_chain, "beyond the end of its chain"),
        (lambda books: None, ""),
    ],
)
def test_a_quorum_that_signs_other_tickets_is_seen_through(joined, lie, word):
    """The last one is the control: signing again is not what fails."""
    chain, receipt = joined
    found = reason(resign(chain, receipt, lie), chain)
    assert word in found and bool(word) == bool(found)


def test_no_byte_of_a_newcomers_proof_may_change(joined):
    chain, receipt = joined
    (proven,) = receipt.newcomers
    data = codec.encode(proven)
    for place in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        try:
            forged = codec.decode(Proven, bytes(flipped))
        except CodecError:
            continue
        found = reason(replace(receipt, newcomers=(forged,)), chain)
        assert "stranger" in found, f"byte {place}"


def test_the_command_refuses_a_forged_newcomer_with_7(joined, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the report is written
    chain, receipt = joined
    genesis, file = tmp_path / "genesis.json", tmp_path / "job.receipt"
    genesis.write_text(dump_genesis(chain.genesis))
    for newcomers, code in ((receipt.newcomers, 0), ((under_another_root(receipt),), 7)):
        file.write_bytes(codec.encode(replace(receipt, newcomers=newcomers)))
        words = ["audit", str(file), "--genesis", str(genesis), "--slices", "1"]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == code, result.stderr
    assert "attested by a stranger" in result.stderr and "not proven" in result.stderr
