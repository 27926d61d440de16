"""State: one encoding, a digest over all of it, hostile bytes refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_factory import SEED, make_dataset, make_task

from mlchain.errors import CodecError, Trap
from mlchain.ml_runtime import State, Trainer, decode_plan, tree

DATA = make_dataset()
TASK = make_task(DATA, hidden=(4,))
PLAN = decode_plan(TASK.plan)
TRAINER = Trainer(TASK, DATA, SEED)
STATE = TRAINER.run_chunk(0, TRAINER.initial_state())


def test_a_state_is_what_its_bytes_say():
    again = State.decode(STATE.encode(), PLAN)
    assert again.encode() == STATE.encode()
    assert again.digest() == STATE.digest()
    assert TRAINER.run_chunk(1, again).digest() == TRAINER.run_chunk(1, STATE).digest()


def with_element(value: float) -> bytes:
    """The encoded state with its last element (a bias power) replaced."""
    return STATE.encode()[:-4] + np.float32(value).tobytes()


HOSTILE = {
    "nothing": b"",
    "cut": STATE.encode()[:-1],
    "longer": STATE.encode() + b"\0",
    "another shape": bytes([*STATE.encode()[:2], 9, *STATE.encode()[3:]]),
    "not a number": with_element(np.nan),
    "infinite": with_element(np.inf),
    "minus zero": with_element(-0.0),
    "too small to be a state": with_element(1e-40),
    "a signalling nan": STATE.encode()[:-4] + b"\x01\x00\x80\x7f",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_are_refused(what):
    with pytest.raises(CodecError):
        State.decode(HOSTILE[what], PLAN)


def test_the_size_is_checked_before_anything_else():
    with pytest.raises(CodecError, match="100 bytes"):
        State.decode(bytes(100), PLAN)


@given(st.data())
def test_every_bit_of_a_state_counts(data):
    raw = bytearray(STATE.encode())
    position = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[position // 8] ^= 1 << position % 8
    try:
        other = State.decode(bytes(raw), PLAN)
    except CodecError:
        return
    assert other.digest() != STATE.digest()


def test_a_state_that_left_binary32_is_not_committed():
    tensors = [t.copy() for t in STATE.tensors]
    tensors[1][0] = np.inf
    with pytest.raises(Trap):
        State(tuple(tensors)).require_finite()
    STATE.require_finite()


def test_the_root_binds_order_and_number_of_tensors():
    a, b, c = (bytes([i]) * 32 for i in range(3))
    roots = [
        tree.root(tree.STATE, x) for x in ([a], [a, b], [b, a], [a, b, c], [a, b, c, c], [a, b, b])
    ]
    roots.append(tree.root(tree.STATE, [tree.root(tree.STATE, [a, b]), c]))
    assert len(set(roots)) == len(roots)


def test_first_weights_are_uniform_within_their_limit_and_biases_zero():
    state = TRAINER.initial_state()
    by_name = dict(zip([s.name for s in PLAN.state], state.tensors, strict=True))
    weights, limit = by_name["hidden1.weights"], np.sqrt(6 / (7 + 4))
    assert np.abs(weights).max() <= limit
    assert weights.std() == pytest.approx(limit / np.sqrt(3), rel=0.3)
    assert not by_name["hidden1.bias"].any()
    assert not by_name["out.weights.m"].any()
    assert Trainer(TASK, DATA, b"\1" * 32).initial_state().digest() != state.digest()
