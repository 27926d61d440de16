"""Programs as data: what the check refuses, exact gas, the arena, slices."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_factory import make_program, observe

from mlchain import codec
from mlchain.errors import CodecError, RejectedProgram
from mlchain.ml_runtime import NumpyBackend, make_plan
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import execute, plan_arena
from mlchain.ml_runtime.op import real_to_bits
from mlchain.ml_runtime.program import MAX_GAS, Node, Program, check, slice_program
from mlchain.ml_runtime.tensor import MAX_DIMENSION, digest, finite, grid, labels, stored

F22, G22, S22 = finite(2, 2), grid(16, 2, 2), stored(2, 2)
BIG = MAX_DIMENSION
NAN, MINUS_ZERO = 0x7FF8000000000000, -(2**63)


def one(kinds, op, inputs, attributes=(), outputs=None):
    return Program(tuple(kinds), (Node(op, inputs, attributes),), outputs or (len(kinds),))


def adam(**changes):
    real = {"rate": 0.1, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "decay": 0.0} | changes
    return tuple(real_to_bits(v) for v in real.values())


REJECTED = {
    "an op nobody knows": (one([F22], "exec", (0,)), "no such op"),
    "too few inputs": (one([F22], "add", (0,)), "reads 1 registers"),
    "a register of a later op": (one([F22], "relu", (2,)), "not filled yet"),
    "its own output, a cycle": (one([F22], "relu", (1,)), "not filled yet"),
    "a dangling result": (one([F22], "relu", (0,), (), (9,)), "never filled"),
    "a fifth axis": (one([labels(3, 2, 2, 2, 2)], "one_hot", (0,), (3,)), "more than 4 axes"),
    "a missing attribute": (one([F22], "scale", (0,)), "takes attributes"),
    "a spare attribute": (one([F22], "relu", (0,), (1,)), "takes attributes"),
    "a factor that is not a number": (one([F22], "scale", (0,), (NAN,)), "canonical"),
    "an infinite factor": (one([F22], "scale", (0,), (0x7FF0000000000000,)), "canonical"),
    "minus zero, a second zero": (one([F22], "scale", (0,), (MINUS_ZERO,)), "canonical"),
    "shapes that differ": (one([F22, finite(3, 2)], "multiply", (0, 1)), "last axes"),
    "a row of another length": (one([F22, finite(3)], "add", (0, 1)), "last axes"),
    "state where numbers are meant": (one([S22], "relu", (0,)), "widen"),
    "numbers where state is meant": (one([F22], "widen", (0,)), "takes state"),
    "a product off the grid": (one([F22, G22], "matmul", (0, 1), (0, 0)), "two grids"),
    "a product of vectors": (one([grid(16, 2)] * 2, "matmul", (0, 1), (0, 0)), "takes matrices"),
    "inner dimensions": (one([G22, grid(16, 3, 2)], "matmul", (0, 1), (0, 0)), "inner"),
    "a flag of two": (one([G22, G22], "matmul", (0, 1), (2, 0)), "flags"),
    "a product too wide": (
        one([grid(16, 1, 2**23 + 1), grid(16, 2**23 + 1, 1)], "matmul", (0, 1), (0, 0)),
        "54 bits of 53",
    ),
    "operands too wide": (one([grid(28, 2, 2)] * 2, "matmul", (0, 1), (0, 0)), "55 bits"),
    "a sum too long": (one([grid(48, 65, 1)], "sum_rows", (0,)), "54 bits of 53"),
    "a sum too long of all": (one([grid(48, 65)], "sum_all", (0,)), "54 bits of 53"),
    "a sum off the grid": (one([F22], "sum_all", (0,)), "takes a grid"),
    "a grid of one bit": (one([F22], "quantise", (0,), (1,)), "1 bits"),
    "a grid of 49 bits": (one([F22], "quantise", (0,), (49,)), "49 bits"),
    "a grid input of 60 bits": (one([grid(60, 2)], "sum_all", (0,)), "input 0"),
    "an exponent out of range": (one([F22], "saturate", (0,), (16, 501)), "exponent 501"),
    "labels beyond the columns": (
        one([F22, labels(3, 2)], "log_loss", (0, 1)),
        "beyond the columns",
    ),
    "labels of other rows": (one([F22, labels(2, 3)], "log_loss", (0, 1)), "one label per row"),
    "too many classes": (one([finite(1, 8193)], "softmax", (0,)), "54 bits of 53"),
    "a matrix spread": (one([F22, F22], "spread", (0, 1)), "scalar"),
    "adam without betas below one": (
        one([S22, S22, S22, F22, stored(2)], "adam", (0, 1, 2, 3, 4), adam(beta2=1.0)),
        "outside",
    ),
    "adam without epsilon": (
        one([S22, S22, S22, F22, stored(2)], "adam", (0, 1, 2, 3, 4), adam(epsilon=0.0)),
        "epsilon",
    ),
    "momentum of one": (
        one([S22, S22, F22], "momentum", (0, 1, 2), tuple(map(real_to_bits, (0.1, 1.0, 0.0)))),
        "outside",
    ),
    "state of another shape": (
        one([S22, finite(3)], "sgd", (0, 1), (real_to_bits(0.1), 0)),
        "differ in shape",
    ),
    "a tensor without end": (one([finite(BIG, BIG, BIG)], "relu", (0,)), "elements"),
    "an output without end": (
        one([grid(2, BIG // 64, 1), grid(2, 1, BIG // 64)], "matmul", (0, 1), (0, 0)),
        "elements",
    ),
}


@pytest.mark.parametrize("what", REJECTED)
def test_the_check_refuses(what):
    program, reason = REJECTED[what]
    with pytest.raises(RejectedProgram, match=reason) as caught:
        check(program)
    if not caught.value.message.startswith(("input", "outputs")):
        assert f"op 0 ({program.nodes[0].op})" in caught.value.message


def test_products_at_the_bound_of_53_bits_pass_and_are_exact():
    kinds = [grid(16, 1, 2**23), grid(16, 2**23, 1)]
    assert check(one(kinds, "matmul", (0, 1), (0, 0))).types[-1] == finite(1, 1)
    k = 2**15  # one bit short of the bound with 20-bit operands, small enough to run
    largest = np.full((1, k), 2.0**19)
    program = one([grid(20, 1, k), grid(20, k, 1)], "matmul", (0, 1), (0, 0))
    (product,) = execute(program, [largest, largest.reshape(k, 1)], NumpyBackend())
    assert int(product[0, 0]) == k * 2**38


def test_huge_programs_are_refused_before_anything_is_allocated():
    program = one([finite(BIG, BIG), finite(BIG, BIG)], "add", (0, 1))
    tracemalloc.start()
    try:
        with pytest.raises(RejectedProgram):
            execute(program, [], NumpyBackend())
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_program_that_passes_the_most_gas_is_refused():
    side = 2**13
    kinds = (grid(16, side, side),) * 2
    products = tuple(Node("matmul", (0, 1), (0, 0)) for _ in range(600))
    assert 600 * side**3 // 32 > MAX_GAS
    with pytest.raises(RejectedProgram, match="gas"):
        check(Program(kinds, products, (2,)))


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_program_has_one_encoding(seed):
    program, _ = make_program(seed)
    data = codec.encode(program)
    assert codec.decode(Program, data) == program
    with pytest.raises(CodecError):
        codec.decode(Program, data + b"\0")


def test_gas_is_what_the_formulas_say():
    plan = make_plan("softmax", features=6, classes=3, optimiser="sgd", batch=4)
    n, k, c = 4, 6, 3
    simple, rounding = 3000, 6000
    product = 4000 + n * k * c // 32 + (n * k + k * c) // 2 + n * c
    transposed = 4000 + n * k * c // 32 + (n * k + n * c) // 2 + k * c
    expected = [
        ("quantise", rounding + k * c),
        ("matmul", product),
        ("widen", simple + c),
        ("add", simple + n * c + 8 * n),
        ("softmax", 30000 + 10 * n * c + 50 * n),
        ("log_loss", 24000 + 10 * n),
        ("quantise", rounding + n),
        ("sum_all", simple + n),
        ("scale", simple + 1),
        ("constant", simple + 1),
        ("scale", simple + 1),
        ("spread", simple + n),
        ("softmax_residual", 9000 + n * c + 5 * n),
        ("quantise", rounding + n * c),
        ("sum_rows", simple + n * c + 16 * n),
        ("quantise", rounding + n * c),
        ("matmul", transposed),
        ("sgd", 6000 + 3 * k * c),
        ("sgd", 6000 + 3 * c),
    ]
    assert [node.op for node in plan.step.nodes] == [name for name, _ in expected]
    assert check(plan.step).gas == sum(gas for _, gas in expected)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_tensors_that_live_at_one_time_never_share_memory(seed):
    checked = check(make_program(seed, 25)[0])
    offsets, size = plan_arena(checked)
    results = checked.program.outputs
    assert all(r not in offsets for r in results)
    last = {r: i for i, step in enumerate(checked.steps) for r in step.inputs}
    for i, step in enumerate(checked.steps):
        filled = [r for s in checked.steps[: i + 1] for r in s.outputs]
        live = [r for r in filled if r in offsets and (last.get(r, -1) > i or r in step.outputs)]
        if not step.op.in_place:
            live += [r for r in step.inputs if r in offsets]
        spans = sorted({(offsets[r], offsets[r] + checked.types[r].bytes, r) for r in live})
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        assert all(end <= size for _, end, _ in spans)


def test_the_arena_reuses_memory():
    plan = make_plan("mlp", features=64, classes=10, hidden=(64, 64, 64), batch=32)
    checked = check(plan.step)
    offsets, size = plan_arena(checked)
    assert size < sum(checked.types[r].bytes for r in offsets) / 2


@given(st.integers(0, 10**6), st.data())
@settings(max_examples=60, deadline=None)
def test_any_part_of_a_run_can_be_run_again_alone(seed, data):
    program, inputs = make_program(seed)
    checked = check(program)
    everything = Program(program.inputs, program.nodes, tuple(range(len(checked.types))))
    trace, trap = observe(everything, inputs, NumpyBackend())
    if trap:
        return
    start = data.draw(st.integers(0, len(program.nodes) - 1))
    stop = data.draw(st.integers(start + 1, len(program.nodes)))
    part = slice_program(checked, start, stop)
    if not part.outputs:
        return
    registers = execute(everything, inputs, NumpyBackend())
    reads = sorted(
        {r for s in checked.steps[start:stop] for r in s.inputs}
        - {r for s in checked.steps[start:stop] for r in s.outputs}
    )
    again: list[bytes] = []
    execute(part, [registers[r] for r in reads], NumpyBackend(), again)
    before = sum(len(s.outputs) for s in checked.steps[:start])
    assert again == trace[before : before + len(again)]


def test_equal_computations_are_written_once():
    b = Builder()
    x = b.input(F22)
    assert b.emit("relu", x) == b.emit("relu", x)
    assert b.emit("scale", x, factor=2.0) != b.emit("scale", x, factor=3.0)


def test_results_may_repeat_and_may_be_inputs():
    program = Program((F22,), (Node("relu", (0,), ()),), (0, 1, 1))
    x = np.array([[1.0, -1.0], [2.0, -2.0]])
    same, first, second = execute(program, [x], NumpyBackend())
    assert same.tolist() == x.tolist()
    assert first.tolist() == second.tolist() == [[1, 0], [2, 0]]


def test_digests_ignore_the_sign_of_zero_and_the_payload_of_nan():
    kind = finite(2)
    other_nan = np.array([0x7FF8000000000001, 0], np.uint64).view(np.float64)
    assert digest(kind, np.array([0.0, 1.0])) == digest(kind, np.array([-0.0, 1.0]))
    assert digest(kind, np.array([np.nan, -0.0])) == digest(kind, other_nan)
    assert digest(kind, np.array([0.0, 1.0])) != digest(finite(1, 2), np.array([[0.0, 1.0]]))
