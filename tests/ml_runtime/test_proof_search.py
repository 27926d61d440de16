"""The search for the first difference: four messages, 8 KB, and nobody can lead it astray."""

from __future__ import annotations

import random
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mlchain import codec
from mlchain.errors import VerificationFailed
from mlchain.ml_runtime import tree
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.program import MAX_NODES
from mlchain.ml_runtime.proof import Search
from mlchain.ml_runtime.proof.claim import TracedJob
from mlchain.ml_runtime.proof.layout import ENTRIES, STEPS, Layout
from mlchain.ml_runtime.proof.search import ENTRY_LEVELS, STEP_LEVELS, stages
from mlchain.ml_runtime.proof.trace import ChunkTrace
from mlchain.ml_runtime.tensor import finite, grid, stored
from mlchain.ml_runtime.train import Task

MAX_MESSAGES, MAX_HASH_BYTES = 4, 8192
CHUNK = 128


def long_layout(nodes: int, tensors: int) -> Layout:
    """The layout of a step program of so many ops, which need not make sense to be laid out."""
    b = Builder()
    x, y = b.input(grid(16, 2, 2)), b.input(finite(2, 2))
    state = [b.input(stored(2)) for _ in range(tensors)]
    value = b.emit("subtract", x, y)
    while len(b.nodes) < nodes - 1:
        value = b.emit("scale", value, factor=0.5)
    loss = b.mean(value) if nodes > 5 else b.emit("constant", value=0.0)
    program = b.program([*state, loss])
    return Layout(SimpleNamespace(step=program, state=state))


def random_trace(layout: Layout, steps: int, seed: int, changed: int | None = None) -> ChunkTrace:
    """A trace of anything; from the entry `changed` on it is another one, as after a wrong op."""
    draw, other = random.Random(seed), random.Random(seed + 1)
    job = TracedJob(Task(b"plan", steps, steps, 1, 0), bytes(32), 1, bytes(32))
    entries = [[draw.randbytes(32) for _ in range(layout.count)] for _ in range(steps)]
    if changed is not None:
        for at in range(changed, steps * layout.count):
            entries[at // layout.count][at % layout.count] = other.randbytes(32)
    return ChunkTrace(layout, job, 0, bytes(32), tuple(entries))


def play(mine: ChunkTrace, lie: ChunkTrace) -> tuple[Search, list]:
    """Search with both sides honest about their own traces; return the accuser and all messages."""
    accuser, accused = Search(mine, lie.claim), Search(lie, mine.claim)
    moves = [accuser.begin()]
    while True:
        answer = accused.reply(moves[-1])
        assert answer is not None, "the accused sends the last list"
        moves.append(answer)
        following = accuser.reply(answer)
        if following is None:
            return accuser, moves
        moves.append(following)


@given(st.integers(1, 40), st.integers(6, 90), st.integers(1, 9), st.data())
@settings(max_examples=40, deadline=None)
def test_the_first_difference_is_found_and_all_left_of_it_can_be_opened(steps, nodes, n, data):
    layout = long_layout(nodes, n)
    at = data.draw(st.integers(0, steps * layout.count - 1))
    mine, lie = random_trace(layout, steps, 1), random_trace(layout, steps, 1, at)
    accuser, _ = play(mine, lie)
    step, place = divmod(at, layout.count)
    assert accuser.found == (step, place)
    outer, inner = accuser.known_trees()
    places = sorted({data.draw(st.integers(0, place)) for _ in range(4)} | {place})
    leaves = {p: inner[0][p] for p in places}
    top = tree.climb_to_root(ENTRIES, layout.count, leaves, tree.opening(inner, places))
    before = {s: outer[0][s] for s in (step - 1,) if s >= 0}
    way = tree.opening(outer, [*before, step])
    assert tree.climb_to_root(STEPS, steps, {**before, step: top}, way) == lie.claim.trace


def wide_trace(layout: Layout, at: int, changed: int | None) -> ChunkTrace:
    """A trace of 128 steps of which only the step `at` has entries, the others just roots."""
    entries = random_trace(layout, 1, 1, changed).entries
    job = TracedJob(Task(b"plan", CHUNK, CHUNK, 1, 0), bytes(32), 1, bytes(32))
    trace = ChunkTrace(layout, job, 0, bytes(32), entries * CHUNK)
    roots = [random.Random(i).randbytes(32) for i in range(CHUNK)]
    roots[at] = tree.seal(ENTRIES, layout.count, trace.step_tree(at)[-1][0])
    trace.__dict__["steps"] = tree.grow(STEPS, roots)
    return trace


def test_a_chunk_of_128_steps_of_4096_ops_takes_four_messages_and_under_8_kb():
    layout = long_layout(MAX_NODES, 60)
    assert layout.count > MAX_NODES
    mine, lie = (wide_trace(layout, 77, changed) for changed in (None, 3000))
    accuser, moves = play(mine, lie)
    assert accuser.found == (77, 3000)
    hashes = 32 * sum(len(m.siblings) + len(m.nodes) for m in moves)
    encoded = sum(len(codec.encode(m)) for m in moves) + len(codec.encode(mine.claim))
    print(f"{layout.count} entries: {len(moves)} messages, {hashes} B of hashes of {encoded} B")
    assert len(moves) <= MAX_MESSAGES
    assert hashes < MAX_HASH_BYTES
    assert encoded < MAX_HASH_BYTES


@given(st.integers(1, CHUNK), st.integers(2, 1 << 15))
@settings(max_examples=100, deadline=None)
def test_no_chunk_of_up_to_128_steps_takes_more_whatever_the_program(steps, entries):
    found = stages(steps, entries)
    assert len(found) in (2, 4)
    assert all(s.high - s.low <= (STEP_LEVELS if s.tags is STEPS else ENTRY_LEVELS) for s in found)
    lists = sum(1 << (s.high - s.low) for s in found)
    ways = sum(s.high - s.low for s in found[:-1])
    assert 32 * (lists + ways) < MAX_HASH_BYTES
    for before, after in pairwise(found):
        assert after.high == (before.low if before.tags is after.tags else tree.height(after.size))
    assert (found[0].high, found[-1].low) == (tree.height(steps), 0)


@given(st.integers(1, (1 << 15) - 1), st.integers(1, CHUNK - 1), st.data())
@settings(max_examples=40, deadline=None)
def test_no_proof_of_an_op_at_that_length_takes_8_kb(place, step, data):
    """An op reads up to eight registers; with the entry before and its own, ten places."""
    reads = data.draw(st.sets(st.integers(0, place - 1), max_size=8))
    entries = opened_nodes({*reads, place - 1, place}, 1 << 15)
    steps = opened_nodes({step}, CHUNK)
    values, claim, root_and_leaf = len(reads) + 1, 4, 1
    assert 32 * (entries + steps + values + claim + root_and_leaf) < MAX_HASH_BYTES


def opened_nodes(places: set[int], count: int) -> int:
    """How many nodes an opening takes, without a tree."""
    found = 0
    while count > 1:
        found += sum(p ^ 1 not in places and p ^ 1 < count for p in places)
        places, count = {p >> 1 for p in places}, -(-count // 2)
    return found


def test_the_count_of_opened_nodes_is_that_of_openings():
    levels = tree.grow(STEPS, [bytes([i]) * 32 for i in range(77)])
    for places in ({0}, {76}, {3, 4, 70}, {10, 11}):
        assert len(tree.opening(levels, places)) == opened_nodes(places, 77)


LAYOUT = long_layout(60, 3)
MINE, LIE = random_trace(LAYOUT, 20, 1), random_trace(LAYOUT, 20, 1, 7 * LAYOUT.count + 40)


def answers_of(trace: ChunkTrace) -> tuple[Search, Search]:
    return Search(MINE, trace.claim), Search(trace, MINE.claim)


def test_an_answer_that_is_not_under_the_claimed_root_is_refused():
    accuser, accused = answers_of(LIE)
    answer = accused.reply(accuser.begin())
    wrong = replace(answer, nodes=(bytes(32), *answer.nodes[1:]))
    with pytest.raises(VerificationFailed, match="does not lead to what was claimed"):
        accuser.reply(wrong)


def test_an_answer_that_skips_an_earlier_difference_is_refused():
    """The accused lies twice and leads the search to the second lie, with all hashes right."""
    accuser, accused = answers_of(LIE)
    honest = accused.reply(accuser.begin())
    second = Search(LIE, MINE.claim)
    second._take(Search(MINE, LIE.claim).begin())
    place = second._choose(0, honest.choice + 2)
    stage = second._stages[0]
    way = tree.opening(second._levels(stage), [place], stage.low, stage.high)
    with pytest.raises(VerificationFailed, match="skips an earlier difference"):
        accuser.reply(second._send(honest.choice + 2, way))


def test_an_answer_that_points_at_what_is_the_same_is_refused():
    accuser, accused = answers_of(LIE)
    accused._take(accuser.begin())
    place = accused._choose(0, 2)
    stage = accused._stages[0]
    way = tree.opening(accused._levels(stage), [place], stage.low, stage.high)
    with pytest.raises(VerificationFailed, match="points at what is the same"):
        accuser.reply(accused._send(2, way))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"choice": 99}, "outside the list"),
        ({"nodes": (bytes(32),)}, "wrong length"),
        ({"siblings": ()}, "too short"),
        ({"siblings": (bytes(32),) * 40}, "too long"),
    ],
)
def test_an_answer_of_another_form_is_refused(change, words):
    accuser, accused = answers_of(LIE)
    answer = accused.reply(accuser.begin())
    with pytest.raises(VerificationFailed, match=words):
        accuser.reply(replace(answer, **change))


def test_the_first_message_shows_no_way():
    accuser, accused = answers_of(LIE)
    with pytest.raises(VerificationFailed, match="stands under the root"):
        accused.reply(replace(accuser.begin(), choice=1))


def test_there_is_nothing_to_search_where_traces_agree_or_are_of_other_chunks():
    with pytest.raises(VerificationFailed, match="the same"):
        Search(MINE, MINE.claim)
    with pytest.raises(VerificationFailed, match="different chunks"):
        Search(MINE, replace(LIE.claim, chunk=5))
