"""Receipts of things that did not happen: what a lying quorum, or a liar on the way, could make.

`resign` changes the books behind a receipt and proves and certifies them again, as honest books
would be: what is wrong afterwards is only what was changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from factories import CHAIN_ID, GrowingChain, make_dataset
from msgspec.structs import replace

from mlchain import codec
from mlchain.client.receipt import verify_receipt
from mlchain.consensus.work.commitment import segment_root
from mlchain.ledger.block import header_id
from mlchain.ledger.commit import make_commit
from mlchain.ledger.content import cid_of
from mlchain.ledger.merkle import SparseTree
from mlchain.ml_runtime import Dataset, make_plan
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
from mlchain.vm.families.members import VALIDATORS, ValidatorRecord
from mlchain.vm.families.models import MODELS, Model
from mlchain.vm.receipt import (
    File,
    Proven,
    Receipt,
    attach_files,
    find_newcomers,
    make_receipt,
)


def receipt_of(chain: GrowingChain, job_id: bytes) -> Receipt:
    return attach_files(make_receipt(chain.store, job_id), chain.content)


def failed(receipt: Receipt, chain: GrowingChain, **options: Any) -> str:
    """Name of the check that fails, "" if the receipt passes; everything is re-run."""
    report = verify_receipt(receipt, chain.genesis, **{"slices": None, **options})
    return report.failed.name if report.failed else ""


@dataclass
class Books:
    """The records that a receipt proves, open to change."""

    job: Job
    plan: PlanRecord
    model: Model | None
    segments: list[Segment]
    newcomers: dict[bytes, ValidatorRecord]
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
    segments = [codec.decode(Segment, proven.value) for proven in receipt.segments]
    newcomers = zip(find_newcomers(chain.genesis, segments), receipt.newcomers, strict=True)
    books = Books(
        codec.decode(Job, receipt.job.value),
        codec.decode(PlanRecord, receipt.plan.value),
        codec.decode(Model, receipt.model.value) if receipt.model else None,
        segments,
        {key: codec.decode(ValidatorRecord, proven.value) for key, proven in newcomers},
        {file.content: file.data for file in receipt.files},
    )
    change(books)
    job_id = receipt.job_id
    rows = {JOBS.key(job_id): books.job, PLANS.key(books.job.plan): books.plan}
    rows |= {SEGMENTS.key(job_id, i): segment for i, segment in enumerate(books.segments)}
    rows |= {MODELS.key(job_id): books.model} if books.model else {}
    rows |= {VALIDATORS.key(key): record for key, record in books.newcomers.items()}
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
        newcomers=tuple(proven[VALIDATORS.key(key)] for key in sorted(books.newcomers)),
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


def choose_a_ticket_for_a_height_that_has_one(books: Books) -> None:
    first, second = books.segments
    row = [replace(row, ticket=b"t" * 32) for row in first.attestations]
    books.change_segment(0, commit_height=second.commit_height, attestations=tuple(row))
    books.change_segment(0, hard_height=second.hard_height)


def attest_before_the_chain_began(books: Books) -> None:
    books.change_segment(0, hard_height=0)


def attest_at_a_height_without_tickets(books: Books) -> None:
    books.change_segment(0, commit_height=2**62, hard_height=2**62 + 1)


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
    (choose_a_ticket_for_a_height_that_has_one, "attestations", ""),
    (attest_before_the_chain_began, "attestations", ""),
    (attest_at_a_height_without_tickets, "attestations", ""),
    (show_another_end, "states", ""),
    (begin_from_another_state, "states", ""),
    (change_the_order, "states", "metrics"),
    (claim_a_better_score, "metrics", ""),
]


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
