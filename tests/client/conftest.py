"""Receipts that several test modules examine; made once, for they never change."""

from __future__ import annotations

import pytest
from factories import GrowingChain, make_chain
from receipt_forger import receipt_of

from mlchain.vm.receipt import Receipt


@pytest.fixture(scope="session")
def honest() -> tuple[GrowingChain, Receipt]:
    chain = make_chain(4, 2)
    return chain, receipt_of(chain, chain.run_job())


@pytest.fixture(scope="session")
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
