"""A trace is the same everywhere, binds each digest to its place, ends in the chunk's state."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_factory import SEED, make_dataset, make_program, make_task, observe
from ml_models import data_for, task_for
from proof_lab import Lab

from mlchain import crypto
from mlchain.errors import Trap, VerificationFailed
from mlchain.ml_runtime import NumpyBackend, Oracle, ShardedBackend, tree
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.program import Program, check
from mlchain.ml_runtime.proof import Tracer, traced_job
from mlchain.ml_runtime.proof.layout import op_program
from mlchain.ml_runtime.tensor import allocate, digest, finite, normalised

TAGS = tree.Tags("test/node", "test/root")


@pytest.mark.parametrize("model", MODELS)
def test_a_trace_is_the_same_on_every_backend_and_for_any_number_of_shards(model):
    target = MODELS[model].TARGETS[0]
    data = data_for(target, model=model)
    task = task_for(data, model, target, steps=4, chunk=2)
    claims = []
    for backend in (NumpyBackend(), Oracle(), ShardedBackend(1), ShardedBackend(3)):
        tracer = Tracer(task, data, SEED, backend)
        start = tracer.trainer.run_chunk(0, tracer.trainer.initial_state())
        claims.append(tracer.trace(1, start).claim)
    assert claims == claims[:1] * 4


def test_a_trace_ends_in_the_state_that_training_ends_in():
    lab = Lab()
    for chunk in range(lab.task.chunks):
        claim = lab.honest(chunk).claim
        assert (claim.start, claim.end) == (
            lab.start(chunk).digest(),
            lab.start(chunk + 1).digest(),
        )
        assert claim.steps == len(lab.task.chunk_steps(chunk))
        assert claim.trap == 0


def test_a_leaf_binds_step_op_place_and_digest():
    layout = Lab().tracer.layout
    value = bytes(32)
    leaves = [layout.leaf(s, p, value) for s in (0, 1) for p in range(layout.count)]
    assert len(set(leaves)) == 2 * layout.count
    assert layout.leaf(0, 0, b"") != layout.leaf(0, 0, value)


def test_the_last_entries_are_the_tree_of_the_state_s_digest():
    lab = Lab()
    trace, layout = lab.honest(0), lab.tracer.layout
    after = trace.entries[0][layout.after : layout.after + layout.tensors]
    assert trace.entries[0][layout.last] == tree.root(tree.STATE, after)
    for rule, value in zip(layout.rules, trace.entries[0], strict=True):
        if rule.kind == "pair":
            pair = [trace.entries[0][r] for r in rule.reads]
            assert value == crypto.digest(tree.STATE.node, *pair)


def test_a_job_is_bound_to_its_rows_seed_and_task():
    lab, other = Lab(), make_dataset(classes=4)
    jobs = [
        traced_job(lab.task, lab.dataset, SEED),
        traced_job(lab.task, other, SEED),
        traced_job(lab.task, lab.dataset, bytes(32)),
        traced_job(make_task(lab.dataset, steps=9), lab.dataset, SEED),
    ]
    assert len({repr(job) for job in jobs}) == 4


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_op_alone_on_its_operands_gives_what_it_gave_in_the_program(seed):
    """What re-execution rests on: the sign of zero and the payload of NaN decide nothing."""
    program, inputs = make_program(seed)
    checked = check(program)
    digests, trap = observe(program, inputs, NumpyBackend())
    filled = len(program.inputs) + len(digests)
    wanted = tuple(range(filled))
    ops = [s for s in checked.steps if s.outputs[-1] < filled]
    whole = Program(program.inputs, program.nodes[: len(ops)], wanted)
    arrays = [allocate(checked.types[r]) for r in wanted]
    NumpyBackend().bind(whole, inputs, arrays)()
    values = [normalised(checked.types[r], a) for r, a in zip(wanted, arrays, strict=True)]
    for number in range(len(ops) + bool(trap and len(ops) < len(checked.steps))):
        step = checked.steps[number]
        reads = [values[r] for r in sorted(dict.fromkeys(step.inputs))]
        outs = [allocate(checked.types[r]) for r in step.outputs]
        found: list[bytes] = []
        try:
            NumpyBackend().bind(op_program(checked, number), reads, outs, found)()
        except Trap:
            assert number == len(ops)
            continue
        assert found == [digest(checked.types[r], values[r]) for r in step.outputs]


def test_every_nan_is_one_value_and_so_are_the_two_zeros():
    kind = finite(4)
    bits = [0x7FF0000000000001, 0xFFF8000000000123, 0x8000000000000000, 0x3FF0000000000000]
    array = np.array(bits, np.uint64).view(np.float64)  # the first is a NaN that signals
    assert digest(kind, array) == digest(kind, np.array([np.nan, np.nan, 0.0, 1.0]))


@given(st.integers(1, 70), st.data())
def test_an_opening_of_any_places_leads_to_the_root(count, data):
    leaves = [crypto.digest("leaf", bytes([i])) for i in range(count)]
    places = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=6))
    levels = tree.grow(TAGS, leaves)
    way = tree.opening(levels, places)
    opened = {p: leaves[p] for p in places}
    assert tree.climb_to_root(TAGS, count, opened, way) == tree.root(TAGS, leaves)
    assert len(way) <= len(places) * tree.height(count)
    for wrong in (way[:-1] if way else [bytes(32)], [*way, bytes(32)]):
        with pytest.raises(VerificationFailed):
            tree.climb_to_root(TAGS, count, opened, wrong)
    other = {**opened, min(places): bytes(32)}
    assert tree.climb_to_root(TAGS, count, other, way) != tree.root(TAGS, leaves)


def test_a_place_outside_the_tree_is_refused():
    with pytest.raises(VerificationFailed, match="outside"):
        tree.climb_to_root(TAGS, 4, {4: bytes(32)}, [])
    with pytest.raises(VerificationFailed, match="outside"):
        tree.climb_to_root(TAGS, 4, {}, [])


def test_trees_of_two_kinds_do_not_mix():
    leaves = [random.Random(i).randbytes(32) for i in range(5)]
    assert tree.root(TAGS, leaves) != tree.root(tree.STATE, leaves)
    assert tree.root(TAGS, leaves) != tree.root(TAGS, [*leaves, leaves[-1]])
