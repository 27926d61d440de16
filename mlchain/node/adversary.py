"""Misbehaviour on request, for demonstrations and tests. A chain must be named test-… or dev-….

    skip:RATE      (worker) does not compute this share of its chunks, repeats the state instead
    lazy           (validator) attests without re-running anything, with digests made up
    wrong-answer   (validator) answers predictions wrongly, all such validators alike
    lie            (validator) accuses honest workers of fraud, then prevotes two things at once

Everything else about a misbehaving node is the real node: what catches it is the real defence.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from mlchain import crypto
from mlchain.consensus.messages import encode_message
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.dispute import ClaimKind
from mlchain.crypto import SecretKey
from mlchain.errors import ConfigError, NotFound
from mlchain.ledger.commit import NIL, Vote, VoteKind, sign_bytes
from mlchain.ledger.state import State
from mlchain.node.auditor import Auditor
from mlchain.node.examiner import Examiner
from mlchain.node.subject import Target
from mlchain.node.worker import Skips, skips_nothing
from mlchain.p2p.transport import Channel
from mlchain.vm.families.jobs import SEGMENTS, Phase, SegmentState, in_phase
from mlchain.vm.families.members import FAULTS
from mlchain.vm.families.segments import MakeClaim

if TYPE_CHECKING:
    from mlchain.node.chain import Committed
    from mlchain.node.node import Node

TEST_PREFIXES = ("test-", "dev-")
LIE = "lie"
LAZY = "lazy"
WRONG_ANSWER = "wrong-answer"
SKIP = "skip:"


def make_skips(misbehaviour: str) -> Skips:
    """Return which chunks the worker skips: a pseudo-random share, the same at every start.

    Raises:
        ConfigError: `skip:` without a rate between 0 and 1.
    """
    if not misbehaviour.startswith(SKIP):
        return skips_nothing
    try:
        rate = Fraction(misbehaviour.removeprefix(SKIP))
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"--adversary {misbehaviour}: not a number", "as in skip:0.02") from error
    if not 0 < rate <= 1:
        raise ConfigError(f"--adversary {misbehaviour}: the share must lie between 0 and 1")

    def skips(chunk: int) -> bool:
        draw = crypto.digest("mlchain/test-skip", chunk.to_bytes(8, "little"))
        return int.from_bytes(draw[:8], "little") < rate * 2**64

    return skips


def corrupt(node: Node, misbehaviour: str) -> None:
    """Make `node` misbehave as a validator, if that is asked for.

    Raises:
        ConfigError: unknown kind, a role the node does not have, or a chain that is not for tests.
    """
    if not misbehaviour:
        return
    if not node.genesis.chain_id.startswith(TEST_PREFIXES):
        raise ConfigError(f"--adversary is for tests; chain {node.genesis.chain_id} is not one")
    if misbehaviour.startswith(SKIP) and node.worker is not None:
        return
    if misbehaviour == LIE and node.keys.validator is not None:
        node.agreement.after_commit.append(lambda committed: _lie(node, committed))
        return
    if misbehaviour == LAZY and node.auditor is not None:
        _be_lazy(node.auditor)
        return
    if misbehaviour == WRONG_ANSWER and node.answerer is not None:
        node.answerer.alter = lambda answer: b'["forged"]'
        return
    raise ConfigError(
        f"--adversary {misbehaviour}: unknown, or not for this role",
        "skip:0.02 for a worker; lie, lazy or wrong-answer for a validator",
    )


class LazyExaminer(Examiner):
    """Re-runs nothing: finds every slice right, with digests out of thin air."""

    async def examine(
        self, state: State, target: Target, offsets: tuple[int, ...], key: bytes
    ) -> tuple[bytes, ...]:
        """Make up what re-running would have left behind."""
        return tuple(
            crypto.digest("mlchain/test-lazy", key, target.job_id, offset.to_bytes(8, "little"))
            for offset in offsets
        )

    async def make_digest(self, state: State, target: Target, chunk: int, key: bytes) -> bytes:
        """Look at nobody else's work either."""
        raise NotFound("not re-run")


def _be_lazy(auditor: Auditor) -> None:
    old = auditor.examiner
    auditor.examiner = LazyExaminer(old.key, old.chain, old.artifacts, old.compute, old.complain)
    if auditor.custodian is not None:
        auditor.custodian.examiner = auditor.examiner


def _lie(node: Node, committed: Committed) -> None:
    """Accuse the first segments that are committed; once that has failed, equivocate."""
    key = node.keys.validator
    assert key is not None
    if key.public not in node.chain.validators:
        return
    if any(fault.offender == key.public for _, fault in FAULTS.items(node.chain.state())):
        _equivocate(node, key, committed)
    else:
        _accuse(node)


def _equivocate(node: Node, key: SecretKey, committed: Committed) -> None:
    """Sign two prevotes for the next height."""
    height, chain_id = committed.block.header.height + 1, node.genesis.chain_id
    for block_id in (NIL, crypto.digest("mlchain/test-lie", committed.block_id)):
        signature = key.sign(sign_bytes(chain_id, VoteKind.PREVOTE, height, 0, block_id))
        vote = Vote(VoteKind.PREVOTE, height, 0, block_id, key.public, b"", signature)
        for peer in node.agreement.validator_peers:
            node.transport.send(peer, Channel.CONSENSUS, encode_message(vote))


def _accuse(node: Node) -> None:
    """Claim that the first chunk of every committed segment is forged."""
    assert node.auditor is not None and node.duties is not None
    state = node.chain.state()
    for job_id, job in in_phase(state, Phase.VERDICT):
        for index in range(job.hard, job.assigned):
            segment = SEGMENTS.get(state, job_id, index)
            if segment is None or segment.commit is None or segment.cleared:
                continue
            ticket = node.duties.ticket(segment.commit_height)
            if segment.state == SegmentState.COMMITTED and ticket is not None:
                first, _ = job.segment_range(index)
                commit, kind = commit_id(segment.commit), int(ClaimKind.FRAUD)
                node.auditor.outbox.send(MakeClaim(job_id, index, commit, first, kind, ticket))
