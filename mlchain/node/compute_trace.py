"""Traces in the ML process: a worker answers for a chunk, a validator searches where it differs.

Each question carries all messages so far, so the process may die and another go on. The last trace
is kept, since the questions about one dispute follow one another.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlchain import codec
from mlchain.errors import VerificationFailed
from mlchain.ml_runtime import Backend, State, Task, Trainer
from mlchain.ml_runtime.proof import Accused, Accuser, ChunkClaim, Move, SignedClaim, Tracer
from mlchain.ml_runtime.proof.accuse import Answer
from mlchain.node.compute_wire import AnswerClaim, MakeProof, Searched

NOBODY = bytes(32)


@dataclass
class Traces:
    """The last trace of one ML process."""

    _key: tuple[bytes, int, bytes] | None = None
    _accuser: Accuser | None = None

    def answer(self, trainer: Trainer, backend: Backend, request: AnswerClaim) -> Searched:
        """Say what our trace of a chunk is, and answer the accuser's messages."""
        mine = self._trace(trainer, backend, request).mine
        move: Move | None = None
        if request.theirs is not None:
            accused = Accused(mine, request.theirs)
            for theirs in request.moves:
                move = accused.answer(theirs)
        return Searched(mine.claim, move, b"")

    def prove(self, trainer: Trainer, backend: Backend, request: MakeProof) -> Searched:
        """Return the next message to the accused, or the proof once its answers suffice."""
        accuser = self._trace(trainer, backend, request)
        accuser.accused = SignedClaim(request.theirs, request.party, b"")
        answers = iter(request.moves)

        def next_answer(move: Move) -> Move:
            answer = next(answers, None)
            if answer is None:
                raise _Pending(move)
            return answer

        asked: Answer = next_answer
        try:
            proof = accuser.prove(asked)
        except _Pending as pending:
            return Searched(accuser.mine.claim, pending.move, b"")
        return Searched(accuser.mine.claim, None, codec.encode(proof))

    def _trace(
        self, trainer: Trainer, backend: Backend, request: AnswerClaim | MakeProof
    ) -> Accuser:
        state = State.decode(request.state, trainer.plan)
        key = request.identity, request.index, state.digest()
        if self._accuser is None or self._key != key:
            task: Task = trainer.task
            tracer = Tracer(task, trainer.dataset, trainer.seed, backend)
            nothing = ChunkClaim(NOBODY, request.index, NOBODY, b"", 0, 0, NOBODY)
            self._accuser = Accuser(tracer, state, SignedClaim(nothing, NOBODY, b""))
            self._key = key
        return self._accuser


class _Pending(VerificationFailed):
    """The accused's answer to `move` is not there yet."""

    def __init__(self, move: Move) -> None:
        super().__init__("waiting for an answer")
        self.move = move
