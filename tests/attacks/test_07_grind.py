"""Row 7: a worker tries many commits until the slices miss what it forged.

Here the job is small, so that a commit is cheap to try: 64 chunks, one of them forged, and slices
that miss it once in about 1,200 draws. In the control the draw is a function of the commit, as in a
scheme where "the root is the challenge"; then the worker sees the draw before it commits. In the
second it is a function of the certificate, whose proposer is the worker's friend.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, count

from factories import make_key

from mlchain.consensus.work.assurance import Tier, slice_size
from mlchain.consensus.work.commitment import segment_root
from mlchain.consensus.work.sampling import draw_slice, miss_probability
from mlchain.consensus.work.tickets import TICKETS, hash_down
from mlchain.crypto import digest

CHUNKS, VALIDATORS, HONEST = 64, 4, 3
SIZE = slice_size(Tier("audited"), CHUNKS, CHUNKS, VALIDATORS)
FORGED = 40
TRIES = 2**12
MISS = float(miss_probability(CHUNKS, SIZE, 1) ** HONEST)
JOB, WORKER = digest("test-job"), make_key("worker-0").public
STATES = tuple(digest("test-state", bytes([i])) for i in range(CHUNKS))


@cache
def root_of(attempt: int) -> bytes:
    """The commit with the `attempt`-th way to forge the chunk: any state will do for it."""
    fake = digest("test-fake", attempt.to_bytes(8, "little"))
    states = (*STATES[:FORGED], fake, *STATES[FORGED + 1 :])
    return segment_root("test-grind", JOB, 0, 0, WORKER, 0, states)


def is_missed(seeds: list[bytes], root: bytes, size: int = SIZE) -> bool:
    """Whether no honest validator draws the forged chunk."""
    return all(FORGED not in draw_slice(seed, root, CHUNKS, size) for seed in seeds)


def public_seeds(root: bytes) -> list[bytes]:
    """The broken scheme: everybody's slice follows from the commit."""
    return [digest("test-public", root, bytes([v])) for v in range(HONEST)]


@cache
def elements(validator: int) -> tuple[bytes, ...]:
    """A validator's whole ticket chain, from its tip up."""
    secret = make_key(f"validator-{validator}").derive(TICKETS)
    chain = [secret]
    for _ in range(TRIES + 1):
        chain.append(hash_down(chain[-1], 1))
    return tuple(reversed(chain))


def tickets(height: int) -> list[bytes]:
    return [elements(validator)[height] for validator in range(HONEST)]


def within_noise(hits: int) -> bool:
    expected = TRIES * MISS
    return abs(hits - expected) <= 3 * expected**0.5


def test_control_a_seed_from_the_commit_is_ground_away_in_seconds():
    root = next(r for r in map(root_of, count()) if is_missed(public_seeds(r), r))
    assert is_missed(public_seeds(root), root), "and it will be missed when the chain looks"
    attempts = next(i for i in count() if root_of(i) == root)
    assert attempts < 4 / MISS, "cheaper than one training"
    assert not is_missed(tickets(1), root), "the same commit, drawn from by secret tickets"


def test_control_a_seed_from_the_certificate_is_chosen_by_its_proposer():
    """Of ten votes it includes any seven or more: 176 draws for one commit, and it takes the best.

    A beacon made of the votes' elements is chosen so, too: it draws orders and turns, never slices.
    """
    validators, quorum, blocks = 10, 7, 24
    size = slice_size(Tier("audited"), CHUNKS, CHUNKS, validators)
    sizes = range(quorum, validators + 1)
    choices = [chosen for n in sizes for chosen in combinations(range(validators), n)]

    def seeds(block: int, chosen: tuple[int, ...]) -> list[bytes]:
        seed = digest("test-certificate", bytes([block]), bytes(chosen))
        return [digest("test-public", seed, bytes([v])) for v in range(quorum)]

    miss = float(miss_probability(CHUNKS, size, 1)) ** quorum
    chance = 1 - (1 - miss) ** len(choices)
    hits = sum(
        any(is_missed(seeds(block, chosen), root_of(0), size) for chosen in choices)
        for block in range(blocks)
    )
    assert len(choices) == 176 and chance > 100 * miss
    assert abs(hits - blocks * chance) < 3 * (blocks * chance * (1 - chance)) ** 0.5
    assert hits > 10 * blocks * miss, "of which less than one was to be expected in all blocks"


def test_with_tickets_a_try_is_as_good_as_any_other():
    """The worker commits blindly, TRIES times, each in another block."""
    hits = sum(is_missed(tickets(1 + i), root_of(i)) for i in range(TRIES))
    assert within_noise(hits), (hits, TRIES * MISS)


def test_known_old_tickets_do_not_help():
    """Grinding against all that is public, the last tickets shown, leaves the next draw blind."""
    chosen = [root_of(i) for i in range(TRIES) if is_missed(tickets(1), root_of(i))]
    assert chosen, "there is something to choose from"
    trials = [(root, 2 + i) for i in range(TRIES // len(chosen)) for root in chosen]
    hits = sum(is_missed(tickets(height), root) for root, height in trials)
    assert within_noise(hits), (hits, len(trials) * MISS)


def test_one_secret_ticket_is_enough():
    """f colluders lend theirs: the worker grinds those away, the honest ones stay blind."""
    hits = sum(is_missed(tickets(1 + i)[:1], root_of(i)) for i in range(TRIES))
    alone = float(miss_probability(CHUNKS, SIZE, 1))
    assert abs(hits - TRIES * alone) < 3 * (TRIES * alone * (1 - alone)) ** 0.5
