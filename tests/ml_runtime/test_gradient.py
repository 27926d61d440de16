"""Gradients: every op's against central differences, in a world without rounding onto grids."""

from __future__ import annotations

import numpy as np
import pytest

from mlchain.errors import RejectedProgram
from mlchain.ml_runtime import NumpyBackend, make_plan
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.gradient import gradients
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.op import OPS, Call, Op
from mlchain.ml_runtime.program import Program, check
from mlchain.ml_runtime.tensor import Array, allocate, finite, grid, labels, stored

STEP = 1e-6


def copy_rows(x: Array, bits: int, out: Array) -> None:
    """Stand for `grid.quantise_rows` where nothing is to be rounded."""
    np.copyto(out, x)


def run_smoothly(program: Program, inputs: list[Array]) -> list[Array]:
    """Run in binary64 with rounding onto grids left out, so that differences mean something."""
    checked = check(program)
    registers = [np.asarray(a) for a in inputs]
    for step in checked.steps:
        ins = [registers[r] for r in step.inputs]
        outs = [allocate(checked.types[r]) for r in step.outputs]
        if step.op.name == "quantise":
            outs[0][...] = ins[0]
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("mlchain.ml_runtime.grid.quantise_rows", copy_rows)
                patch.setattr("mlchain.ml_runtime.ops.losses._MAGIC", np.array(0.0))
                step.op.forward(Call(outs, ins, step.attrs, Scratch()))
        registers.extend(outs)
    return [registers[r] for r in program.outputs]


def scalar_of(b: Builder, x: int) -> int:
    """A loss in which every element of x weighs differently."""
    kind = b.type(x)
    weights = b.input(finite(*kind.shape))
    masks.append(np.cos(np.arange(kind.elements) + 1.0).reshape(kind.shape))
    return b.emit("sum_all", b.on_grid(b.emit("multiply", x, weights), 32))


masks: list[Array] = []
r = np.random.default_rng(3)


WINDOW = {"kernel_height": 2, "kernel_width": 3, "stride": 2}


def unary(op: str, **attributes: float):
    return lambda b, x: b.emit(op, x, **attributes)


CASES = {
    "add": ([(3, 2), (3, 2)], lambda b, x, y: b.emit("add", x, y)),
    "add a row": ([(3, 2), (2,)], lambda b, x, y: b.emit("add", x, y)),
    "add a vector to a stack": ([(2, 3, 2), (2,)], lambda b, x, y: b.emit("add", x, y)),
    "subtract a matrix from a stack": (
        [(2, 3, 2), (3, 2)],
        lambda b, x, y: b.emit("subtract", x, y),
    ),
    "multiply by a row": ([(2, 3, 2), (2,)], lambda b, x, y: b.emit("multiply", x, y)),
    "multiply by a number": ([(3, 2), ()], lambda b, x, y: b.emit("multiply", x, y)),
    "reshape": ([(2, 3, 2)], lambda b, x: b.reshape(x, (6, 2))),
    "transpose": ([(2, 3, 2, 4)], lambda b, x: b.transpose(x, 2, 0, 3, 1)),
    "slice": ([(3, 4)], unary("slice", axis=1, start=1, stop=3)),
    "pad": ([(3, 2)], unary("pad", axis=1, before=1, after=2)),
    "concatenate": ([(2, 3), (2, 2)], lambda b, x, y: b.emit("concatenate", x, y, axis=1)),
    "sum_axis": ([(2, 3, 2)], lambda b, x: b.emit("sum_axis", b.on_grid(x, 32), axis=1)),
    "sum_rows": ([(3, 2)], lambda b, x: b.emit("sum_rows", b.on_grid(x, 32))),
    "repeat": ([(3, 2)], unary("repeat", axis=1, count=4)),
    "matmul of stacks": ([(2, 3, 4), (2, 4, 2)], lambda b, x, y: b.matmul(x, y)),
    "matmul of stacks, left transposed": (
        [(2, 4, 3), (2, 4, 2)],
        lambda b, x, y: b.matmul(x, y, True),
    ),
    "matmul of stacks of stacks, right transposed": (
        [(2, 2, 3, 4), (2, 2, 5, 4)],
        lambda b, x, y: b.matmul(x, y, False, True),
    ),
    "matmul of stacks, both transposed": (
        [(2, 4, 3), (2, 2, 4)],
        lambda b, x, y: b.matmul(x, y, True, True),
    ),
    "subtract": ([(3, 2), (3, 2)], lambda b, x, y: b.emit("subtract", x, y)),
    "multiply": ([(3, 2), (3, 2)], lambda b, x, y: b.emit("multiply", x, y)),
    "a square, read twice": ([(3, 2)], lambda b, x: b.emit("multiply", x, x)),
    "scale": ([(3, 2)], unary("scale", factor=-2.5)),
    "relu": ([(3, 2)], unary("relu")),
    "tanh": ([(3, 2)], unary("tanh")),
    "sigmoid": ([(3, 2)], unary("sigmoid")),
    "quantise": ([(3, 2)], unary("quantise", bits=16)),
    "matmul": ([(3, 4), (4, 2)], lambda b, x, y: b.matmul(x, y)),
    "matmul, left transposed": ([(4, 3), (4, 2)], lambda b, x, y: b.matmul(x, y, True)),
    "matmul, right transposed": ([(3, 4), (2, 4)], lambda b, x, y: b.matmul(x, y, False, True)),
    "matmul, both transposed": ([(4, 3), (2, 4)], lambda b, x, y: b.matmul(x, y, True, True)),
    "sum_all": ([(3, 2)], lambda b, x: b.emit("sum_all", b.on_grid(x, 32))),
    "mean": ([(3, 2)], lambda b, x: b.mean(x)),
    "divide": ([(3, 2), (3, 2)], lambda b, x, y: b.emit("divide", x, y)),
    "divide, by a row": ([(3, 2), (2,)], lambda b, x, y: b.emit("divide", x, y)),
    "divide, by a number": ([(3, 2), ()], lambda b, x, y: b.emit("divide", x, y)),
    "square_root": ([(3, 2)], lambda b, x: b.emit("square_root", b.emit("multiply", x, x))),
    "absolute": ([(3, 2)], unary("absolute")),
    "logistic_loss": ([(3, 2)], lambda b, x: b.emit("logistic_loss", x, hot_of(b, x))),
    "minimum": ([(3, 2), (3, 2)], lambda b, x, y: b.emit("minimum", x, y)),
    "maximum": ([(3, 2), (2,)], lambda b, x, y: b.emit("maximum", x, y)),
    "row_maximum": ([(3, 4)], unary("row_maximum")),
    "select": (
        [(3, 2), (2,)],
        lambda b, x, y: b.emit("select", b.emit("compare", x, y, relation=0), x, y),
    ),
    "erf": ([(3, 2)], unary("erf")),
    "exp": ([(3, 2)], unary("exp")),
    "log": ([(3, 2)], lambda b, x: b.emit("log", b.emit("exp", x))),
    "gelu": ([(3, 2)], lambda b, x: b.emit_all("gelu", x)[0]),
    "softmax": ([(2, 3, 4)], unary("softmax")),
    "causal_softmax": ([(2, 3, 3)], unary("causal_softmax")),
    "layer_norm": ([(3, 5)], lambda b, x: b.emit_all("layer_norm", x, epsilon=1e-5)[0]),
    "gather": ([(3, 2)], lambda b, x: b.emit("gather", x, classes_of(b))),
    "scatter_add": (
        [(3, 2)],
        lambda b, x: b.emit("scatter_add", b.on_grid(x, 32), classes_of(b), rows=3),
    ),
    "im2col": ([(2, 4, 5, 2)], unary("im2col", **WINDOW)),
    "col2im": ([(8, 12)], unary("col2im", height=4, width=5, **WINDOW)),
    "max_pool": ([(2, 4, 5, 2)], unary("max_pool", **WINDOW)),
    "average_pool": ([(2, 4, 5, 2)], unary("average_pool", **WINDOW)),
    "dropout": (
        [(5, 4)],
        lambda b, x: b.emit("dropout", x, noise_of(b), clock_of(b), index=1, keep=40000),
    ),
    "softmax and log_loss": (
        [(3, 2)],
        lambda b, x: b.emit("log_loss", b.emit("softmax", x), classes_of(b)),
    ),
}


def hot_of(b: Builder, x: int) -> int:
    return b.emit("compare", x, b.emit("scale", x, factor=0.5), relation=0)


def noise_of(b: Builder) -> int:
    masks.append(np.float32([0.1, -0.2, 0.3, 0.4]))
    return b.input(stored(4))


def clock_of(b: Builder) -> int:
    masks.append(np.float32(7))
    return b.input(stored())


def classes_of(b: Builder) -> int:
    masks.append(np.array([0, 1, 1]))
    return b.input(labels(2, 3))


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_central_differences(case):
    shapes, write = CASES[case]
    masks.clear()
    b = Builder()
    wrt = [b.input(finite(*shape)) for shape in shapes]
    loss = scalar_of(b, write(b, *wrt))
    grads = gradients(b, loss, wrt)
    values = [np.array(r.normal(size=shape) + 0.1) for shape in shapes]
    loss_program, grad_program = b.program([loss]), b.program(grads)

    def loss_at(point: list[Array]) -> float:
        return float(run_smoothly(loss_program, [*point, *masks])[0])

    computed = run_smoothly(grad_program, [*values, *masks])
    for which, gradient in enumerate(computed):
        for index in np.ndindex(gradient.shape):
            up, down = ([v.copy() for v in values] for _ in range(2))
            up[which][index] += STEP
            down[which][index] -= STEP
            slope = (loss_at(up) - loss_at(down)) / (2 * STEP)
            assert gradient[index] == pytest.approx(slope, rel=1e-5, abs=1e-7), (which, index)


def test_every_op_with_a_gradient_is_among_the_cases():
    names = {name for name, op in OPS.items() if type(op).gradient is not Op.gradient}
    seen = {name.split(",")[0].split(" ")[0] for name in CASES} | {"multiply", "log_loss"}
    assert names - seen == {"constant", "widen", *STEPS}  # nothing to give; the test below


STEPS = {"argmax", "compare", "index", "one_hot", "positions"}


def test_a_mask_lets_the_gradient_through_where_it_is_1_and_has_none_itself():
    b = Builder()
    x = b.input(finite(2, 2))
    first = b.emit("one_hot", b.emit("argmax", x), classes=2)
    mask = b.emit(
        "compare", b.emit("positions", count=2), b.emit("constant", value=1.0), relation=0
    )
    chosen = b.emit("multiply", x, b.emit("select", mask, first, b.emit("constant", value=0.0)))
    (grad,) = gradients(b, b.emit("sum_all", b.on_grid(chosen, 32)), [x])
    (slope,) = execute(b.program([grad]), [np.array([[3.0, 1], [1, 3]])], NumpyBackend())
    assert slope.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("target", ["class", "value"])
def test_gradients_on_grids_are_those_of_real_numbers_up_to_rounding(activation, target):
    """A whole network: what the machine computes against what smooth arithmetic would."""
    sizes = {"classes": 3} if target == "class" else {"outputs": 3}
    plan = make_plan(
        "mlp", features=5, hidden=(6,), activation=activation, optimiser="sgd", batch=8, **sizes
    )
    program = plan.step
    gradient_registers = tuple(n.inputs[1] for n in program.nodes if n.op == "sgd")
    program = Program(program.inputs, program.nodes, gradient_registers)
    x = np.round(r.normal(size=(8, 5)) * 2**10) / 2**10
    y = np.arange(8) % 3 if target == "class" else r.normal(size=(8, 3))
    state = [np.float32(r.normal(size=s.shape)) for s in plan.state]
    exact = execute(program, [x, y, *state], NumpyBackend())
    smooth = run_smoothly(program, [x, y, *state])
    assert len(exact) == 4
    for a, c in zip(exact, smooth, strict=True):
        assert np.abs(a - c).max() < 2e-4 * max(1.0, np.abs(c).max())
        assert np.abs(c).max() > 1e-3


def test_a_loss_that_ignores_a_register_has_no_gradient_by_it():
    b = Builder()
    x, y = b.input(finite(2)), b.input(finite(2))
    loss = b.mean(x)
    with pytest.raises(RejectedProgram, match="does not depend"):
        gradients(b, loss, [y])


def test_log_loss_of_what_is_no_softmax_is_refused():
    b = Builder()
    x, y = b.input(finite(3, 2)), b.input(labels(2, 3))
    with pytest.raises(RejectedProgram, match="after softmax"):
        gradients(b, b.mean(b.emit("log_loss", x, y)), [x])


def test_log_loss_after_softmax_needs_no_gradient_of_the_softmax():
    b = Builder()
    x, y = b.input(finite(3, 2)), b.input(labels(2, 3))
    gradients(b, b.mean(b.emit("log_loss", b.emit("softmax", x), y)), [x])
    assert "softmax_residual" in [n.op for n in b.nodes]
    assert "softmax_gradient" not in [n.op for n in b.nodes]


def test_an_update_has_no_gradient():
    b = Builder()
    p, g = b.input(stored(2)), b.input(finite(2))
    moved = b.emit("widen", b.emit("sgd", p, g, rate=0.1, decay=0.0))
    with pytest.raises(RejectedProgram, match="no gradient"):
        gradients(b, b.mean(moved), [p])


def test_a_grid_input_needs_no_second_rounding():
    b = Builder()
    x, w = b.input(grid(16, 3, 2)), b.input(stored(2, 2))
    b.matmul(x, w)
    assert [n.op for n in b.nodes] == ["quantise", "matmul"]
