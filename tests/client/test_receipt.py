"""Checking a receipt offline: what passes, what is re-run, and what an audit says it could miss."""

from __future__ import annotations

import numpy as np
import pytest
from factories import GrowingChain, JobSpec, make_chain, make_dataset, make_genesis, nudge
from msgspec.structs import replace
from receipt_forger import Books, failed, leaf_lists, receipt_of, resign

from mlchain import codec, crypto
from mlchain.client import checks
from mlchain.client.receipt import find_in_folder, read_receipt, verify_receipt
from mlchain.consensus.work.sampling import draw_slice
from mlchain.errors import ConfigError, GenesisError, NotFound, VerificationFailed
from mlchain.ledger.content import cid_of
from mlchain.ml_runtime import Dataset, State
from mlchain.vm.families.jobs import JobState
from mlchain.vm.receipt import (
    MAX_RECEIPT_BYTES,
    Receipt,
    attach_files,
    decimal_text,
    make_receipt,
    miss_text,
)

ALL = [name for name, _ in checks.CHECKS] + ["re-run"]


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
    assert miss_text(10**9, 10**8, 100) == "2.25e-44"  # told at once, and no less than the truth
    assert miss_text(100_000, 1_000, 100) == "0.0000432"  # beyond 10,000: (99/100)^1000, a bound


@pytest.mark.parametrize(
    ("value", "text"),
    [((0, 1), "0"), ((1, 1), "1"), ((29, 30), "0.967"), ((1, 8), "0.125"), ((5, 2), "2.5"),
     ((1234567, 1), "1234567"), ((1, 3 * 10**12), "3.33e-13"), ((1, 10**12), "1.0e-12"),
     ((1, 10**400), "1.0e-400"), ((999_999, 10**6), "1"), ((1, 2**33), "1.16e-10")],
)  # fmt: skip
def test_fractions_are_printed_without_floats(value, text):
    from fractions import Fraction

    assert decimal_text(Fraction(*value)) == text


def test_a_nudge_is_the_smallest_forgery_there_is():
    state = State((np.zeros(3, np.float32) + np.float32(1),))
    assert np.count_nonzero(nudge(state).tensors[0] != state.tensors[0]) == 1
