"""Running chunks of a finished job again, from the nearest state at hand, leaf by leaf.

Chunks are counted from the start of the job; position p is the moment before chunk p. A receipt
carries states at segment ends only, so a chunk in between is reached by running the chunks before
it, and each of those is compared as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from mlchain.consensus.work.commitment import SegmentCommit
from mlchain.consensus.work.sampling import draw_slice
from mlchain.errors import Trap, VerificationFailed
from mlchain.ml_runtime import State, Trainer

Progress = Callable[[int, int], None]
"""Told (chunks run, chunks to run) after each chunk."""

FindEnd = Callable[[int], bytes | None]
"""Gives the encoded state at the end of a segment, None if it is not at hand."""


class Rerun:
    """A job's chunks and the digests they must end in.

    `leaves` are the end digests of all chunks, checked against the committed roots before.
    """

    def __init__(
        self,
        trainer: Trainer,
        commits: Sequence[SegmentCommit],
        leaves: Sequence[bytes],
        find_end: FindEnd,
    ) -> None:
        self.compared: dict[int, None] = {}
        """The chunks that were run and found equal."""
        self.differs: int | None = None
        """The chunk that was run and found to be another."""
        self._trainer = trainer
        self._commits = commits
        self._leaves = leaves
        self._find_end = find_end
        self._trap = commits[-1].trap
        self._ends = list(accumulate(commit.count for commit in commits))
        self._known: dict[int, int] = {}  # position of a state at hand -> its segment
        self._final: State | None = None

    @property
    def chunks(self) -> int:
        """Chunks of the job; of a trapped one, up to the chunk that traps."""
        return len(self._leaves) + bool(self._trap)

    def check_boundaries(self) -> int:
        """Compare the initial state and all ends at hand with their digests; return how many.

        Raises:
            CodecError: not a state of this job.
            VerificationFailed: another state than the committed one.
        """
        if self._trainer.initial_state().digest() != self._commits[0].start:
            raise VerificationFailed("segment 0 does not start from the initial state")
        for index, (commit, position) in enumerate(zip(self._commits, self._ends, strict=True)):
            data = self._find_end(index)
            if data is None:
                continue
            if State.decode(data, self._trainer.plan).digest() != commit.end:
                raise VerificationFailed(f"the end state of segment {index} has another digest")
            self._known[position] = index
        return 1 + len(self._known)

    def draw(self, seed: bytes, job_id: bytes, count: int | None) -> tuple[int, ...]:
        """Return `count` chunks (None: all), drawn from `seed`."""
        size = self.chunks if count is None else min(count, self.chunks)
        return draw_slice(seed, job_id, self.chunks, size)

    def run(self, drawn: Sequence[int], on_chunk: Progress = lambda done, total: None) -> None:
        """Run the drawn chunks, those on the way to them, and the one that trapped.

        Raises:
            VerificationFailed: names the first chunk that differs.
        """
        wanted = sorted({*drawn, self.chunks - 1} if self._trap else drawn)
        spans: list[list[int]] = []
        for chunk in wanted:
            start = self._nearest(chunk)
            if spans and start <= spans[-1][1]:
                spans[-1][1] = chunk + 1  # go on from where we are
            else:
                spans.append([start, chunk + 1])
        done, total = 0, sum(stop - start for start, stop in spans)
        for start, stop in spans:
            state = self._state_at(start)
            for chunk in range(start, stop):
                state = self._run_chunk(chunk, state)
                done += 1
                on_chunk(done, total)

    def final_state(self) -> State:
        """Return the state after the last whole chunk, computed if it is not at hand.

        Raises:
            VerificationFailed: a chunk on the way differs.
        """
        last = len(self._leaves)
        if self._final is None:
            state = self._state_at(start := self._nearest(last))
            for chunk in range(start, last):
                state = self._run_chunk(chunk, state)
            self._final = state
        return self._final

    def _nearest(self, chunk: int) -> int:
        return max((p for p in self._known if p <= chunk), default=0)

    def _state_at(self, position: int) -> State:
        if position not in self._known:
            return self._trainer.initial_state()
        data = self._find_end(self._known[position])
        if data is None:
            raise VerificationFailed("a file went away during the audit")
        return State.decode(data, self._trainer.plan)

    def _run_chunk(self, chunk: int, state: State) -> State:
        traps_at = self._trap - 1 if chunk == len(self._leaves) else None
        try:
            state = self._trainer.run_chunk(chunk, state)
        except Trap as trap:
            if trap.step != traps_at:
                raise VerificationFailed(f"chunk {chunk} traps at step {trap.step}") from trap
            self.compared[chunk] = None
            return state
        if traps_at is not None:
            raise VerificationFailed(f"chunk {chunk} does not trap at step {traps_at}")
        found, expected = state.digest(), self._leaves[chunk]
        if found != expected:
            self.differs = chunk
            raise VerificationFailed(
                f"chunk {chunk} was committed as {expected.hex()[:16]}, "
                f"re-running it gives {found.hex()[:16]}"
            )
        self.compared[chunk] = None
        return state
