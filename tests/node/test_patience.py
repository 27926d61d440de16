"""When an honest validator lets a segment become HARD: with all who vote, or a while later.

A worker sees who asks for which chunk. It could serve at once the few whose slices are clean, and
keep waiting the one that would find the forgery, while colluders make up the quorum.
"""

from __future__ import annotations

import pytest
from factories import GrowingChain, make_chain

from mlchain import codec
from mlchain.consensus.actions import Verdict
from mlchain.node.chain import PATIENCE_MS, PRESENCE, Chain
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


def test_a_segment_waits_for_one_that_votes_and_has_not_attested():
    chain, job_id = committed(3)
    chain.grow(LEAST + PRESENCE + 5)
    assert chain.segment(job_id, 0).state == SegmentState.COMMITTED


def test_after_its_patience_the_chain_goes_on_without():
    chain, job_id = committed(3)
    chain.grow(LEAST)
    chain.now_ms += 2 * PATIENCE_MS
    assert blocks_until_hard(chain, job_id) == 1


def test_a_proposer_that_does_not_wait_is_not_voted_for(monkeypatch: pytest.MonkeyPatch):
    chain, _ = committed(3)
    chain.grow(LEAST)
    time_ms = chain.store.head.time_ms + 1
    with monkeypatch.context() as without_the_rule:
        without_the_rule.setattr(Chain, "_is_ripe", lambda *_: True)
        block, block_id = chain.chain.build(time_ms, chain.last_commit)
        assert [ref.index for ref in block.body.finalise] == [0]
        data = codec.encode(block)
        assert chain.chain.check(block_id, data, time_ms)[0] == Verdict.VALID, "the control"
    verdict, reason = chain.chain.check(block_id, data, time_ms)
    assert verdict == Verdict.UNWANTED and "before its time" in reason


def test_nobody_waits_for_a_validator_whose_votes_we_do_not_see():
    chain, job_id = committed(3)
    names = {key.public: name for name, key in chain.keys.items()}
    absent = names[chain.chain.validators.keys[3]]
    assert blocks_until_hard(chain, job_id, (absent,)) > PRESENCE - LEAST


def test_the_segment_is_hard_as_soon_as_the_slow_one_attested():
    chain, job_id = committed(3)
    chain.grow(LEAST + 2)
    assert chain.segment(job_id, 0).state == SegmentState.COMMITTED
    chain.attest(chain.chain.validators.keys[3], job_id, 0)
    assert blocks_until_hard(chain, job_id) <= 2
