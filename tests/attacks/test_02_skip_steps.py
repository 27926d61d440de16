"""Row 2: a worker skips single steps, a few in every chunk, and serves what comes out."""

from __future__ import annotations

import pytest
from attacks.lessons import CHUNKS, accuracy, honest, skip_steps, wrong_chunks


@pytest.mark.parametrize("every, wrong", [(2, CHUNKS), (4, CHUNKS), (16, CHUNKS // 4), (160, 1)])
def test_each_chunk_with_a_skipped_step_is_wrong(every, wrong):
    """Leaves are of whole chunks: to save a step is to forge a chunk, which row 1 counts."""
    assert wrong_chunks(skip_steps(every)) == wrong


def test_honest_chunks_are_all_right():
    assert wrong_chunks(honest()) == 0
    assert wrong_chunks(skip_steps(10**6)) == 0, "the harness itself skips nothing"


def test_control_whoever_looks_at_the_result_alone_is_content():
    assert accuracy(skip_steps(4)[-1]) >= accuracy(honest()[-1]) - 0.05
