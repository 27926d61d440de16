"""When a proposer declares a segment HARD: with all who can attest, or a while later without."""

from __future__ import annotations

from factories import GrowingChain, make_chain

from mlchain.node import chain as node_chain
from mlchain.node.chain import PATIENCE
from mlchain.vm.families.jobs import SegmentState
from mlchain.vm.lifecycle import finality_depth


def committed(attesting: int) -> tuple[GrowingChain, bytes]:
    """A chain of four whose first segment waits for FINALISE, attested by some."""
    chain = make_chain(4, 1)
    job_id = chain.submit()
    chain.start(job_id)
    chain.commit_segment(job_id)
    for key in chain.chain.validators.keys[:attesting]:
        chain.attest(key, job_id, 0)
    return chain, job_id


def blocks_until_hard(chain: GrowingChain, job_id: bytes, absent: tuple[str, ...] = ()) -> int:
    """Count the blocks from the commit to FINALISE."""
    count = 0
    while chain.segment(job_id, 0).state != SegmentState.HARD:
        chain.grow(absent=absent)
        count += 1
        assert count < 40
    return count


LEAST = finality_depth(make_chain(4, 1).chain.validators)


def test_a_segment_that_all_attested_is_declared_hard_at_once():
    assert blocks_until_hard(*committed(4)) == LEAST


def test_a_segment_waits_some_blocks_for_the_one_that_has_not_attested(monkeypatch):
    assert blocks_until_hard(*committed(3)) == LEAST + PATIENCE
    monkeypatch.setattr(node_chain, "PATIENCE", 0)
    assert blocks_until_hard(*committed(3)) == LEAST, "the control"


def test_nobody_waits_for_a_validator_that_does_not_vote():
    chain, job_id = committed(4)
    names = {key.public: name for name, key in chain.keys.items()}
    absent = names[chain.chain.validators.keys[3]]
    chain, job_id = committed(3)
    assert blocks_until_hard(chain, job_id, (absent,)) == LEAST


def test_the_segment_is_hard_as_soon_as_the_slow_one_attested():
    chain, job_id = committed(3)
    chain.grow(LEAST + 2)
    assert chain.segment(job_id, 0).state == SegmentState.COMMITTED
    chain.attest(chain.chain.validators.keys[3], job_id, 0)
    assert blocks_until_hard(chain, job_id) <= 2
