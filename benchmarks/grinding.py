"""Grinding the draw of slices: 2^16 commits by the worker, against tickets and two controls.

Used by detection.py. The worker may change the state it claims for a forged chunk as it likes; each
change is another commit. It keeps the commits that pass all tickets it knows: those of the
colluders for the next height, and the last one that an honest validator has shown. In the first
control everybody's slice follows from the commit, in the second from the certificate of the block,
whose proposer chooses among the quorums that have signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, count
from math import comb

from factories import make_key

from mlchain.consensus.work.assurance import Tier, slice_size
from mlchain.consensus.work.commitment import chunk_leaf, segment_root
from mlchain.consensus.work.sampling import draw_slice, miss_probability
from mlchain.consensus.work.tickets import TICKETS, hash_down
from mlchain.crypto import digest
from mlchain.ledger import merkle

CHAIN = "test-grinding"
CHUNKS, FORGED = 30_000, 300
WORKER = make_key("worker-0").public
JOB = digest("test-job")
TRIES = 1 << 16
HEIGHTS = TRIES + 8


def faults(validators: int) -> int:
    return (validators - 1) // 3


@cache
def size_of(validators: int, chunks: int) -> int:
    """The slice that tier `audited` gives each of `validators`."""
    return slice_size(Tier("audited"), chunks, chunks, validators)


@cache
def tickets(validator: int) -> tuple[bytes, ...]:
    """The ticket of every height, from the registered tip up."""
    chain = [make_key(f"validator-{validator}").derive(TICKETS)]
    for _ in range(HEIGHTS):
        chain.append(hash_down(chain[-1], 1))
    return tuple(reversed(chain))


def forged_chunks(lineage: int, chunks: int, forged: int) -> frozenset[int]:
    """The chunks that a worker forges, drawn blindly."""
    return frozenset(draw_slice(digest("test-forger", bytes([lineage])), bytes(32), chunks, forged))


WRONG = forged_chunks(0, CHUNKS, FORGED)


def commits() -> Iterator[bytes]:
    """Leaf roots that differ in the state claimed for one forged chunk; only its path is hashed."""
    at = min(WRONG)
    states = [digest("test-state", i.to_bytes(4, "little")) for i in range(CHUNKS)]
    leaves = [chunk_leaf(CHAIN, JOB, 0, 0, WORKER, i, state) for i, state in enumerate(states)]
    siblings = merkle.list_proof(leaves, at)
    for attempt in count():
        states[at] = digest("test-fake", attempt.to_bytes(8, "little"))
        leaf = chunk_leaf(CHAIN, JOB, 0, 0, WORKER, at, states[at])
        root = climb(leaf, at, siblings)
        if not attempt:
            assert root == segment_root(CHAIN, JOB, 0, 0, WORKER, 0, tuple(states))
        yield root


def climb(leaf: bytes, place: int, siblings: tuple[bytes, ...]) -> bytes:
    """The root over CHUNKS leaves, from one of them: what `verify_list_proof` compares."""
    node, width, way = merkle._hash_item(leaf), CHUNKS, iter(siblings)
    while width > 1:
        if place ^ 1 < width:
            other = next(way)
            node = merkle._hash_pair(other + node if place & 1 else node + other)
        width, place = (width + 1) // 2, place // 2
    return merkle._seal(CHUNKS, node)


def misses(seed: bytes, root: bytes, size: int) -> bool:
    """Whether the slice of whoever owns `seed` holds nothing forged."""
    return WRONG.isdisjoint(draw_slice(seed, root, CHUNKS, size))


@dataclass(frozen=True)
class Counted:
    """How often something happened in so many trials, and its chance by the formula."""

    hits: int
    trials: int
    predicted: float

    @property
    def rate(self) -> float:
        return self.hits / self.trials

    @property
    def sigma(self) -> float:
        """One standard deviation of the rate if the formula is right."""
        return max((self.predicted * (1 - self.predicted) / self.trials) ** 0.5, 0.5 / self.trials)

    @property
    def is_near(self) -> bool:
        return abs(self.rate - self.predicted) <= 3 * self.sigma


def grind(tries: int) -> tuple[Counted, Counted]:
    """Evasion of one honest slice, and of all 2f+1, by the best of `tries` commits; n = 4, f = 1.

    The commits kept are tried at as many later heights as make `tries` trials.
    """
    size, colluder, honest = size_of(4, CHUNKS), 0, (1, 2, 3)
    made = commits()
    kept = [
        root
        for root in (next(made) for _ in range(tries))
        if misses(tickets(colluder)[2], root, size) and misses(tickets(honest[0])[1], root, size)
    ]
    assert kept, "there is something to choose from"
    heights = range(2, 2 + tries // len(kept))
    one = every = 0
    for height in heights:
        for root in kept:
            if misses(tickets(honest[0])[height], root, size):
                one += 1
                every += all(misses(tickets(v)[height], root, size) for v in honest[1:])
    trials = len(heights) * len(kept)
    miss = float(miss_probability(CHUNKS, size, FORGED))
    return Counted(one, trials, miss), Counted(every, trials, miss ** len(honest))


def evades(seed: bytes, root: bytes, validators: int) -> bool:
    """Whether slices that all follow from one public `seed` hold nothing forged."""
    size = size_of(validators, CHUNKS)
    honest = range(faults(validators), validators)
    return all(misses(digest("test-public", seed, bytes([v])), root, size) for v in honest)


def from_the_commit(tries: int) -> tuple[int, Counted]:
    """Control: the seed is the commit's root. Return the try that evaded (0: none), the chance."""
    at = next(
        (
            i
            for i, root in zip(range(1, tries + 1), commits(), strict=False)
            if evades(root, root, 4)
        ),
        0,
    )
    return at, Counted(at > 0, 1, 1 - (1 - public_miss(4)) ** tries)


def public_miss(validators: int) -> float:
    size = size_of(validators, CHUNKS)
    return float(miss_probability(CHUNKS, size, FORGED)) ** (validators - faults(validators))


def from_the_certificate(validators: int, blocks: int) -> Counted:
    """Control: the seed is the hash of the certificate, its proposer has all votes and chooses."""
    quorum = validators - faults(validators)
    keys = [make_key(f"validator-{v}") for v in range(validators)]
    hits, root = 0, next(commits())
    for block in range(blocks):
        votes = [key.sign(digest("test-block", block.to_bytes(4, "little"))) for key in keys]
        quorums = (
            chosen
            for size in range(quorum, validators + 1)
            for chosen in combinations(range(validators), size)
        )
        hits += any(
            evades(digest("test-certificate", bytes(q), *(votes[v] for v in q)), root, validators)
            for q in quorums
        )
    tries = sum(comb(validators, size) for size in range(quorum, validators + 1))
    return Counted(hits, blocks, 1 - (1 - public_miss(validators)) ** tries)
