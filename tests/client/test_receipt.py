"""A receipt is believed for its proofs alone.

Most rows here are made by a *lying quorum*: whatever is changed, the validators sign it again, so
only the named check can object. Each row also says which check objects when that one is taken
out ("" for none): the control that the check is not there for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from factories import CHAIN_ID, GrowingChain, JobSpec, make_chain, make_dataset, make_genesis, nudge
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.client import checks
from mlchain.client import receipt as receipts
from mlchain.client.receipt import find_in_folder, read_receipt, verify_receipt
from mlchain.consensus.work.commitment import segment_root
from mlchain.consensus.work.sampling import draw_slice
from mlchain.errors import CodecError, ConfigError, GenesisError, NotFound, VerificationFailed
from mlchain.ledger.block import header_id
from mlchain.ledger.commit import make_commit
from mlchain.ledger.content import cid_of
from mlchain.ledger.merkle import SparseTree
from mlchain.ledger.validators import Validator
from mlchain.ml_runtime import Dataset, State, make_plan
from mlchain.vm.families.jobs import (
    JOBS,
    PLANS,
    SEGMENTS,
    Job,
    JobState,
    PlanRecord,
    Segment,
    plan_id,
)
from mlchain.vm.families.models import MODELS, Model
from mlchain.vm.receipt import (
    MAX_RECEIPT_BYTES,
    File,
    Proven,
    Receipt,
    SetChange,
    attach_files,
    decimal_text,
    make_receipt,
    miss_text,
)

ALL = [name for name, _ in checks.CHECKS] + ["re-run"]


def receipt_of(chain: GrowingChain, job_id: bytes) -> Receipt:
    return attach_files(make_receipt(chain.store, job_id), chain.content)


def failed(receipt: Receipt, chain: GrowingChain, **options: Any) -> str:
    """Name of the check that fails, "" if the receipt passes; everything is re-run."""
    report = verify_receipt(receipt, chain.genesis, **{"slices": None, **options})
    return report.failed.name if report.failed else ""


@pytest.fixture(scope="module")
def honest() -> tuple[GrowingChain, Receipt]:
    chain = make_chain(4, 2)
    return chain, receipt_of(chain, chain.run_job())


@pytest.fixture(scope="module")
def changed() -> tuple[GrowingChain, Receipt]:
    """A job during which one of four validators was put out of the set."""
    chain = make_chain(4, 2)
    job_id = chain.submit()
    chain.start(job_id)
    chain.commit_segment(job_id)
    chain.accuse_falsely("validator-2", job_id)
    chain.finish_segment(job_id)
    chain.commit_segment(job_id)
    chain.finish_segment(job_id)
    return chain, receipt_of(chain, job_id)


# ---- what passes --------------------------------------------------------------------------------


def test_an_honest_receipt_passes_every_check_and_every_chunk_is_compared(honest):
    chain, receipt = honest
    report = verify_receipt(receipt, chain.genesis)
    assert [check.name for check in report.checks] == ALL
    assert all(check.passed for check in report.checks)
    assert (report.chunks, report.drawn, report.rerun) == (8, 8, 8)
    assert report.miss(10) == "0"


def test_a_receipt_survives_its_encoding(honest):
    _, receipt = honest
    data = codec.encode(receipt)
    assert codec.decode(Receipt, data, MAX_RECEIPT_BYTES) == receipt


def test_a_trapped_job_passes_when_it_traps_again_at_the_same_step():
    chain = make_chain(1, 1)
    dataset = make_dataset()
    values = Dataset.from_arrays(dataset.x / 2.0**15, dataset.y.astype(float))
    job_id = chain.run_job(JobSpec(model="linear", rate="4e8", steps=40, test_rows=0), values)
    assert chain.job(job_id).state == JobState.TRAPPED
    receipt = receipt_of(chain, job_id)
    assert failed(receipt, chain) == ""
    assert failed(receipt, chain, slices=0) == ""  # the chunk that trapped is always run

    def later(books: Books) -> None:
        last = books.segments[-1]
        trap = last.commit.trap + (1 if last.commit.trap % 2 else -1)  # in the same chunk
        books.segments[-1] = replace(last, commit=replace(last.commit, trap=trap))

    assert failed(resign(chain, receipt, later), chain, slices=0) == "re-run"


def test_a_set_that_changed_is_followed_from_genesis(changed):
    chain, receipt = changed
    assert len(receipt.changes) == 1 and len(receipt.changes[0].validators) == 3
    assert failed(receipt, chain) == ""


def test_states_that_were_left_out_are_computed_again(honest):
    chain, receipt = honest
    keep = {cid_of(make_dataset().encode()), *leaf_lists(receipt)}
    small = replace(receipt, files=tuple(f for f in receipt.files if f.content in keep))
    assert len(small.files) == 3 < len(receipt.files)
    report = verify_receipt(small, chain.genesis, slices=1)
    assert report.failed is None
    assert report.rerun == 8  # the final state had to be reached for the score


def test_files_beyond_the_bound_are_left_out_the_most_useful_stay(honest):
    chain, receipt = honest
    dataset = len(make_dataset().encode())
    bare = replace(receipt, files=())
    kept = attach_files(bare, chain.content, 2 * 4 * 32 + dataset).files
    assert {f.content for f in kept} == {cid_of(make_dataset().encode()), *leaf_lists(receipt)}


def test_a_file_that_is_needed_is_asked_for_and_found_beside_the_receipt(honest, tmp_path):
    chain, receipt = honest
    bare = replace(receipt, files=())
    with pytest.raises(NotFound, match="not in the receipt"):
        verify_receipt(bare, chain.genesis)
    for number, file in enumerate(receipt.files):
        (tmp_path / f"any name {number}").write_bytes(file.data)
    (tmp_path / "unrelated").write_bytes(b"something else")
    assert failed(bare, chain, find_file=find_in_folder(tmp_path)) == ""
    lie = {f.content: f.data[::-1] for f in receipt.files}
    assert failed(bare, chain, find_file=lie.get) == "data"


# ---- what does not: a lying quorum --------------------------------------------------------------


@dataclass
class Books:
    """The records that a receipt proves, open to change."""

    job: Job
    plan: PlanRecord
    model: Model | None
    segments: list[Segment]
    files: dict[bytes, bytes]

    def change_commit(self, index: int, **fields: Any) -> None:
        segment = self.segments[index]
        self.segments[index] = replace(segment, commit=replace(segment.commit, **fields))

    def change_segment(self, index: int, **fields: Any) -> None:
        self.segments[index] = replace(self.segments[index], **fields)

    def attach(self, data: bytes) -> bytes:
        content = cid_of(data)
        self.files[content] = data
        return content


def resign(chain: GrowingChain, receipt: Receipt, change: Callable[[Books], Any]) -> Receipt:
    """Return the receipt of books that were cooked, proven and certified like honest ones."""
    books = Books(
        codec.decode(Job, receipt.job.value),
        codec.decode(PlanRecord, receipt.plan.value),
        codec.decode(Model, receipt.model.value) if receipt.model else None,
        [codec.decode(Segment, proven.value) for proven in receipt.segments],
        {file.content: file.data for file in receipt.files},
    )
    change(books)
    job_id = receipt.job_id
    rows = {JOBS.key(job_id): books.job, PLANS.key(books.job.plan): books.plan}
    rows |= {SEGMENTS.key(job_id, i): segment for i, segment in enumerate(books.segments)}
    rows |= {MODELS.key(job_id): books.model} if books.model else {}
    values = {key: codec.encode(record) for key, record in rows.items()}
    tree = SparseTree().update(values)
    proven = {key: Proven(value, tree.prove(key)) for key, value in values.items()}
    header = replace(receipt.header, state_root=tree.root)
    votes = [
        chain.precommit(key, header.height, header_id(header))
        for key in chain.chain.validators.keys
    ]
    wanted = [books.job.dataset]
    for segment in books.segments:
        wanted += [segment.commit.leaves_content, segment.commit.end_content]
    return replace(
        receipt,
        header=header,
        commit=make_commit(votes),
        job=proven[JOBS.key(job_id)],
        plan=proven[PLANS.key(books.job.plan)],
        model=proven.get(MODELS.key(job_id)),
        segments=tuple(proven[SEGMENTS.key(job_id, i)] for i in range(len(books.segments))),
        files=tuple(File(c, books.files[c]) for c in sorted(books.files) if c in wanted),
    )


def leaf_lists(receipt: Receipt) -> list[bytes]:
    found = [codec.decode(Segment, proven.value).commit for proven in receipt.segments]
    return [commit.leaves_content for commit in found]


def end_without_result(books: Books) -> None:
    books.job = replace(books.job, state=JobState.EXPIRED)


def claim_a_better_score(books: Books) -> None:
    metrics = replace(books.model.metrics, correct=books.model.metrics.correct - 1)
    books.change_commit(-1, metrics=metrics)
    books.model = replace(books.model, metrics=metrics)


def name_another_model(books: Books) -> None:
    books.model = replace(books.model, content=books.segments[0].commit.end_content)


def begin_elsewhere(books: Books) -> None:
    books.change_commit(1, start=bytes(32))


def begin_from_another_state(books: Books) -> None:
    books.change_commit(0, start=bytes(32))


def leave_out_the_last_segment(books: Books) -> None:
    books.segments.pop()


def commit_fewer_chunks(books: Books) -> None:
    books.change_commit(0, count=books.segments[0].commit.count - 1)


def store_another_program(books: Books) -> None:
    plan = make_plan("softmax", features=4, classes=3, optimiser="sgd", batch=8, rate="0.25")
    books.plan = PlanRecord(plan.encode())


def store_no_program(books: Books) -> None:
    books.plan = PlanRecord(b"no program")
    books.job = replace(books.job, plan=plan_id(b"no program"))
    books.model = replace(books.model, plan=books.job.plan)


def name_data_that_is_none(books: Books) -> None:
    books.job = replace(books.job, dataset=books.attach(b"not a dataset"))
    books.model = replace(books.model, dataset=books.job.dataset)


def use_other_data(books: Books) -> None:
    dataset = make_dataset(rows=60)
    x = dataset.x / 2.0**15
    x[0, 0] += 0.25
    other = Dataset.from_arrays(x, dataset.y, classes=3)
    books.job = replace(books.job, dataset=books.attach(other.encode()))
    books.model = replace(books.model, dataset=books.job.dataset)


def show_other_leaves(books: Books) -> None:
    leaves = books.files[books.segments[0].commit.leaves_content]
    books.change_commit(0, leaves_content=books.attach(leaves[32:] + leaves[:32]))


def take_another_workers_leaves(books: Books) -> None:
    books.change_segment(0, worker=bytes(32))


def count_another_attempt(books: Books) -> None:
    books.change_commit(0, attempt=1)
    books.change_segment(0, attempt=1)


def attest_by_too_few(books: Books) -> None:
    books.change_segment(0, attestations=books.segments[0].attestations[:2])


def attest_twice(books: Books) -> None:
    first, second = books.segments[0].attestations[:2]
    books.change_segment(0, attestations=(first, first, second))


def attest_ones_own_work(books: Books) -> None:
    segment = books.segments[0]
    worker = segment.attestations[0].validator
    data = books.files[segment.commit.leaves_content]
    leaves = tuple(data[i : i + 32] for i in range(0, len(data), 32))
    root = segment_root(CHAIN_ID, segment.commit.job, 0, segment.attempt, worker, 0, leaves)
    books.change_commit(0, leaf_root=root)
    books.change_segment(0, worker=worker)


def attest_as_a_stranger(books: Books) -> None:
    row = books.segments[0].attestations
    books.change_segment(0, attestations=(*row, replace(row[0], validator=b"s" * 32)))


def choose_the_ticket(books: Books) -> None:
    row = list(books.segments[0].attestations)
    row[0] = replace(row[0], ticket=b"t" * 32)
    books.change_segment(0, attestations=tuple(row))


def borrow_a_ticket(books: Books) -> None:
    row = list(books.segments[1].attestations)
    row[0] = replace(row[0], ticket=row[1].ticket)
    books.change_segment(1, attestations=tuple(row))


def show_another_end(books: Books) -> None:
    data = books.files[books.segments[0].commit.end_content]
    zeros = data[:-4] + bytes(4)
    books.change_commit(0, end_content=books.attach(zeros))


def change_the_order(books: Books) -> None:
    books.job = replace(books.job, order_seed=b"o" * 32)


LIES = [  # what the quorum lies about, which check sees it, which one would if that were off
    (end_without_result, "job", ""),
    (name_another_model, "job", ""),
    (begin_elsewhere, "job", ""),
    (leave_out_the_last_segment, "job", ""),
    (commit_fewer_chunks, "job", "leaves"),
    (store_another_program, "program", "re-run"),
    (store_no_program, "program", "data"),
    (name_data_that_is_none, "data", "states"),
    (use_other_data, "re-run", ""),
    (show_other_leaves, "leaves", "re-run"),
    (take_another_workers_leaves, "leaves", ""),
    (count_another_attempt, "leaves", ""),
    (attest_by_too_few, "attestations", ""),
    (attest_twice, "attestations", ""),
    (attest_ones_own_work, "attestations", ""),
    (attest_as_a_stranger, "attestations", ""),
    (choose_the_ticket, "attestations", ""),
    (borrow_a_ticket, "attestations", ""),
    (show_another_end, "states", ""),
    (begin_from_another_state, "states", ""),
    (change_the_order, "states", "metrics"),
    (claim_a_better_score, "metrics", ""),
]


@pytest.mark.parametrize(("lie", "check", "next_check"), LIES, ids=[x[0].__name__ for x in LIES])
def test_a_lying_quorum_is_seen_through(honest, monkeypatch, lie, check, next_check):
    chain, receipt = honest
    forged = resign(chain, receipt, lie)
    assert failed(forged, chain) == check
    without(monkeypatch, check)
    assert failed(forged, chain, **({"slices": 0} if check == "re-run" else {})) == next_check


def test_resigned_honest_books_pass(honest):
    """The control of all lies: signing again is not what fails."""
    chain, receipt = honest
    assert failed(resign(chain, receipt, lambda books: None), chain) == ""


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    left = tuple(row for row in checks.CHECKS if row[0] != name)
    monkeypatch.setattr(receipts, "CHECKS", left)


# ---- what does not: somebody on the way ---------------------------------------------------------


def drop_signatures(receipt: Receipt) -> Receipt:
    commit = replace(receipt.commit, signatures=receipt.commit.signatures[:2])
    return replace(receipt, commit=commit)


def spoil_a_signature(receipt: Receipt) -> Receipt:
    first, *rest = receipt.commit.signatures
    first = replace(first, signature=first.signature[:-1] + bytes([first.signature[-1] ^ 1]))
    return replace(receipt, commit=replace(receipt.commit, signatures=(first, *rest)))


def change_the_header(receipt: Receipt) -> Receipt:
    return replace(receipt, header=replace(receipt.header, time_ms=receipt.header.time_ms + 1))


def change_a_record(receipt: Receipt) -> Receipt:
    job = codec.decode(Job, receipt.job.value)
    value = codec.encode(replace(job, fee=job.fee + 1))
    return replace(receipt, job=replace(receipt.job, value=value))


def swap_segments(receipt: Receipt) -> Receipt:
    return replace(receipt, segments=receipt.segments[::-1])


def drop_a_segment(receipt: Receipt) -> Receipt:
    return replace(receipt, segments=receipt.segments[:-1])


def drop_the_model(receipt: Receipt) -> Receipt:
    return replace(receipt, model=None)


def spoil_a_file(receipt: Receipt) -> Receipt:
    first, *rest = receipt.files
    first = replace(first, data=first.data[:-1] + bytes([first.data[-1] ^ 1]))
    return replace(receipt, files=(first, *rest))


def add_a_file(receipt: Receipt) -> Receipt:
    files = (*receipt.files, File(cid_of(b"advertisement"), b"advertisement"))
    return replace(receipt, files=tuple(sorted(files, key=lambda file: file.content)))


TAMPERING = [
    (lambda r: replace(r, genesis=bytes(32)), "genesis", ""),
    (drop_signatures, "certificate", ""),
    (spoil_a_signature, "certificate", ""),
    (change_the_header, "certificate", ""),
    (change_a_record, "state", ""),
    (swap_segments, "state", "job"),
    (drop_a_segment, "job", "data"),
    (drop_the_model, "job", ""),
    (add_a_file, "data", ""),
    (spoil_a_file, "data", None),
]


@pytest.mark.parametrize(("tamper", "check", "next_check"), TAMPERING)
def test_whoever_passes_a_receipt_on_cannot_change_it(
    honest, monkeypatch, tamper, check, next_check
):
    chain, receipt = honest
    forged = tamper(receipt)
    assert failed(forged, chain) == check
    if next_check is not None:
        without(monkeypatch, check)
        assert failed(forged, chain) == next_check


def test_no_byte_of_a_receipt_may_change(honest):
    chain, receipt = honest
    data = codec.encode(receipt)
    for place in range(0, len(data), 97):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        try:
            forged = codec.decode(Receipt, bytes(flipped), MAX_RECEIPT_BYTES)
        except CodecError:
            continue
        assert failed(forged, chain) != "", f"byte {place}"


def test_a_receipt_of_another_chain_fails_at_its_genesis(honest):
    _, receipt = honest
    other = make_chain(4, 2, chain_id="test-2")
    assert failed(receipt, other) == "genesis"
    assert failed(replace(receipt, genesis=other.genesis.hash), other) == "certificate"


@pytest.mark.parametrize("kind", ["left out", "cooked", "unsigned", "repeated"])
def test_a_change_of_validators_cannot_be_invented_or_hidden(changed, kind):
    chain, receipt = changed
    change = receipt.changes[0]
    stranger = Validator(b"s" * 32, 1)
    cooked = tuple(sorted((*change.validators[:2], stranger), key=lambda v: v.key))
    changes: tuple[SetChange, ...] = {
        "left out": (),
        "cooked": (replace(change, validators=cooked),),
        "unsigned": (
            replace(change, commit=replace(change.commit, signatures=change.commit.signatures[:2])),
        ),
        "repeated": (change, change),
    }[kind]
    expected = "certificate" if kind == "left out" else "validators"
    assert failed(replace(receipt, changes=changes), chain) == expected


# ---- re-running ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forged() -> tuple[GrowingChain, Receipt]:
    """Worker and validators together forged chunk 5 of 8, leaf and all that follows from it."""
    chain = make_chain(1, 1)
    job_id = chain.run_job(forge=lambda chunk, state: nudge(state) if chunk == 5 else state)
    return chain, receipt_of(chain, job_id)


def test_a_forged_chunk_is_found_by_running_it_and_by_nothing_else(forged):
    chain, receipt = forged
    report = verify_receipt(receipt, chain.genesis, slices=None)
    assert report.failed.name == "re-run" and "chunk 5 " in report.failed.text
    assert report.rerun == 5
    assert failed(receipt, chain, slices=0) == ""  # the control


def test_a_sample_finds_the_forgery_exactly_when_it_leads_over_it(forged):
    chain, receipt = forged
    outcomes = []
    for seed in map(str, range(12)):
        key = crypto.digest("mlchain/audit-seed", seed.encode())
        drawn = draw_slice(key, receipt.job_id, 8, 1)
        outcomes.append(failed(receipt, chain, slices=1, seed=seed) == "re-run")
        assert outcomes[-1] == (drawn[0] >= 5)  # from chunk 4, where the nearest state is
    assert any(outcomes) and not all(outcomes)


def test_the_choice_is_repeatable_and_otherwise_new_each_time(honest):
    chain, receipt = honest
    first, second = (verify_receipt(receipt, chain.genesis, slices=2) for _ in range(2))
    assert first.seed != second.seed
    again = verify_receipt(receipt, chain.genesis, slices=2, seed=first.seed)
    assert (again.drawn, again.rerun) == (first.drawn, first.rerun) == (2, first.rerun)


def test_progress_counts_the_chunks_on_the_way_too(honest):
    chain, receipt = honest
    seen: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        seen.append((done, total))

    report = verify_receipt(receipt, chain.genesis, slices=3, seed="x", on_chunk=note)
    assert seen == [(n + 1, report.rerun) for n in range(report.rerun)]


def test_a_chain_of_other_tables_is_not_judged():
    genesis = replace(make_genesis(1, 1), registry=bytes(32))
    chain = GrowingChain(genesis)
    receipt = receipt_of(chain, chain.run_job())
    with pytest.raises(GenesisError, match="registry"):
        verify_receipt(receipt, genesis)


# ---- files and numbers --------------------------------------------------------------------------


def test_a_file_that_is_no_receipt_is_refused(honest, tmp_path):
    path = tmp_path / "job.receipt"
    with pytest.raises(ConfigError):
        read_receipt(path)
    for data in (b"", b"garbage", codec.encode(honest[1])[:-1], codec.encode(honest[1]) + b"\0"):
        path.write_bytes(data)
        with pytest.raises(VerificationFailed, match="not a receipt"):
            read_receipt(path)
    path.write_bytes(codec.encode(honest[1]))
    assert read_receipt(path) == honest[1]


def test_only_jobs_with_a_result_have_a_receipt():
    chain = make_chain(1, 1)
    job_id = chain.submit()
    chain.start(job_id)
    with pytest.raises(NotFound, match="running"):
        make_receipt(chain.store, job_id)
    with pytest.raises(NotFound, match="not known"):
        make_receipt(chain.store, bytes(32))


def test_the_chance_of_a_miss_is_the_one_on_the_front_page():
    assert miss_text(80, 26, 10) == "0.0359"  # C(72, 26) / C(80, 26)
    assert miss_text(80, 80, 100) == "0" and miss_text(80, 0, 10) == "1"
    assert miss_text(100_000, 1_000, 100) == "0.0000432"  # beyond 10,000: (99/100)^1000, a bound


@pytest.mark.parametrize(
    ("value", "text"),
    [((0, 1), "0"), ((1, 1), "1"), ((29, 30), "0.967"), ((1, 8), "0.125"), ((5, 2), "2.5"),
     ((1234567, 1), "1234567"), ((1, 3 * 10**12), "3.33e-13"), ((1, 10**12), "1.0e-12")],
)  # fmt: skip
def test_fractions_are_printed_without_floats(value, text):
    from fractions import Fraction

    assert decimal_text(Fraction(*value)) == text


def test_a_nudge_is_the_smallest_forgery_there_is():
    state = State((np.zeros(3, np.float32) + np.float32(1),))
    assert np.count_nonzero(nudge(state).tensors[0] != state.tensors[0]) == 1
