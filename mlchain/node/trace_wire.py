"""The dispute between an accuser and a worker, as questions and answers between two nodes.

The first question is a bare one: the worker answers with its claim about the whole chunk, signed.
Then the accuser sends its own claim and a message of the search (`ml_runtime.proof.search`), and
the worker answers with its message, twice at most. Each question repeats what was said before: the
worker need not remember anything.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlchain.codec import Hash, Record, Signature, Uint
from mlchain.consensus.work.commitment import MAX_SEGMENT_CHUNKS
from mlchain.ml_runtime.proof import ChunkClaim, Move
from mlchain.node.compute_wire import Moves

TRACE_PROTOCOL = "/mlchain/trace/1"
MAX_QUESTION_BYTES = 64 << 10
MAX_ANSWER_BYTES = 16 << 10


class TraceQuestion(Record, frozen=True):
    """What is your trace of the chunk at `offset`? Mine is `mine`, and these are my messages."""

    job: Hash
    segment: Uint
    attempt: Uint
    offset: Annotated[int, Meta(ge=0, le=MAX_SEGMENT_CHUNKS)]
    mine: ChunkClaim | None
    moves: Moves


class TraceAnswer(Record, frozen=True):
    """The worker's claim, signed for this place on this chain, and its answer to the last message.

    The claim's root binds it to every answer that will be accepted.
    """

    claim: ChunkClaim
    signature: Signature
    move: Move | None
