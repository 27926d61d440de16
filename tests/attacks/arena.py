"""Real training, real forgeries, real slices, thousands of jobs: how often is a cheat caught?

One small model is trained honestly once, and a few times by workers that forge whole chunks: they
repeat the state instead of computing it, and go on from there. Every simulated job then has its own
id, commit, height and tickets, so that its slices are drawn as on the chain; a drawn chunk is
re-executed from the state its worker serves. Re-executing is remembered by (chunk, digest of the
start): it is a function of them, which is the point of the whole system.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import comb

from factories import make_dataset, make_key

from mlchain.consensus.work.assurance import Tier, slice_size
from mlchain.consensus.work.commitment import segment_root
from mlchain.consensus.work.sampling import draw_slice, miss_probability
from mlchain.consensus.work.tickets import TICKETS, hash_down
from mlchain.crypto import digest
from mlchain.ml_runtime import State, Task, Trainer, make_plan

CHAIN = "test-arena"
CHUNKS = 500
HEIGHTS = 4000
WORKER = make_key("worker-0").public


def faults(validators: int) -> int:
    """f: how many of `validators` may collude."""
    return (validators - 1) // 3


@cache
def trainer() -> Trainer:
    plan = make_plan("softmax", features=4, classes=3, optimiser="sgd", batch=8, rate="0.5")
    task = Task(plan.encode(), CHUNKS, 1, 45, 15)
    return Trainer(task, make_dataset(), digest("test-order"))


_replayed: dict[tuple[int, bytes], bytes] = {}


def replay(chunk: int, before: State, start: bytes) -> bytes:
    """The digest after re-executing `chunk` from a state whose digest is `start`."""
    place = chunk, start
    if place not in _replayed:
        _replayed[place] = trainer().run_chunk(chunk, before).digest()
    return _replayed[place]


@dataclass(frozen=True)
class Run:
    """What a worker serves: the states before, between and after its chunks, and their digests."""

    forged: frozenset[int]
    states: tuple[State, ...]
    digests: tuple[bytes, ...]

    def is_right(self, chunk: int) -> bool:
        """Re-execute one chunk from the state that is served, and compare."""
        return replay(chunk, self.states[chunk], self.digests[chunk]) == self.digests[chunk + 1]


@cache
def run(forged: frozenset[int] = frozenset()) -> Run:
    """Train; the `forged` chunks are not computed, the state before them is repeated."""
    states = [trainer().initial_state()]
    for chunk in range(CHUNKS):
        before = states[-1]
        states.append(before if chunk in forged else trainer().run_chunk(chunk, before))
    return Run(forged, tuple(states), tuple(state.digest() for state in states))


def forge(count: int, lineage: int = 0) -> Run:
    """A run that forges `count` chunks, drawn blindly; a few lineages are enough."""
    drawn = draw_slice(digest("test-forger", bytes([lineage])), bytes(32), CHUNKS, count)
    return run(frozenset(drawn))


@cache
def commit_root(job: int, digests: tuple[bytes, ...]) -> bytes:
    """The leaf root that the worker of simulated job number `job` commits to."""
    job_id = digest("test-job", job.to_bytes(8, "little"))
    return segment_root(CHAIN, job_id, 0, 0, WORKER, 0, digests[1:])


@cache
def tickets(validator: int) -> tuple[bytes, ...]:
    """The ticket of every height, from the registered tip up."""
    chain = [make_key(f"validator-{validator}").derive(TICKETS)]
    for _ in range(HEIGHTS):
        chain.append(hash_down(chain[-1], 1))
    return tuple(reversed(chain))


@cache
def size_of(validators: int, chunks: int = CHUNKS) -> int:
    """The slice that tier `audited` gives each of `validators`."""
    return slice_size(Tier("audited"), chunks, chunks, validators)


def finders(work: Run, job: int, honest: range, size: int) -> list[int]:
    """The honest validators whose slice of job number `job` shows that `work` is not right.

    The job's commit stands in the block of height `job` + 1; the tickets are those of that height.
    """
    root = commit_root(job, work.digests)
    found = []
    for validator in honest:
        drawn = draw_slice(tickets(validator)[job + 1], root, CHUNKS, size)
        if not all(work.is_right(chunk) for chunk in drawn):
            found.append(validator)
    return found


@cache
def survey(validators: int, forged: int, jobs: int, size: int) -> tuple[int, ...]:
    """How many of the 2f+1 honest validators find the forgery, in each of `jobs` jobs."""
    honest = range(faults(validators), validators)
    work = [forge(forged, lineage) if forged else run() for lineage in range(4)]
    return tuple(len(finders(work[job % 4], job, honest, size)) for job in range(jobs))


@dataclass(frozen=True)
class Tally:
    """In how many of `jobs` something happened, beside what the formula predicts."""

    jobs: int
    hits: int
    predicted: Fraction

    @property
    def rate(self) -> float:
        return self.hits / self.jobs

    @property
    def sigmas(self) -> float:
        """How far the measured rate lies from the predicted one, in standard deviations."""
        p = float(self.predicted)
        return (self.rate - p) / max((p * (1 - p) / self.jobs) ** 0.5, 0.5 / self.jobs)


def detection(validators: int, forged: int, jobs: int, size: int = 0) -> Tally:
    """How often anybody honest finds a forgery while f of the validators look away."""
    size = size or size_of(validators)
    found = survey(validators, forged, jobs, size)
    honest = validators - faults(validators)
    miss = miss_probability(CHUNKS, size, forged) ** honest
    return Tally(jobs, sum(1 for count in found if count), 1 - miss)


def outvoted(validators: int, forged: int, jobs: int) -> Tally:
    """How often 2f+1 attest all the same: f liars and those with a lucky slice."""
    size, f = size_of(validators), faults(validators)
    found, honest = survey(validators, forged, jobs, size), validators - f
    lucky = miss_probability(CHUNKS, size, forged)
    predicted = sum(
        (
            comb(honest, k) * lucky**k * (1 - lucky) ** (honest - k)
            for k in range(f + 1, honest + 1)
        ),
        Fraction(0),
    )
    return Tally(jobs, sum(1 for count in found if honest - count > f), predicted)
