"""A training job's whole computation as data: programs, state, batch. Nothing in it is trusted.

A plan is what a job submits. It holds the step program (x, y, state -> state', loss), the program
of predictions (x, parameters -> scores) and how state begins. `planner` writes one; a node only
ever checks and runs it, so it needs no code for the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mlchain import codec
from mlchain.codec import Name, Record
from mlchain.errors import CodecError, RejectedProgram
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.custody import exposed_bytes
from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.machine import plan_arena
from mlchain.ml_runtime.op import bits_to_real
from mlchain.ml_runtime.program import MAX_TENSORS, Program, Word, check
from mlchain.ml_runtime.tensor import Shape, Type, finite, labels, stored
from mlchain.ml_runtime.tensor import grid as grid_type

MAX_PLAN_BYTES = 1 << 20
MAX_STATE_BYTES = 1 << 30
MAX_ARENA_BYTES = 4 << 30
MAX_BATCH = 1 << 20
MAX_FEATURES = 1 << 20
MAX_OUTPUTS = 1 << 13


METRICS = {
    "class": "accuracy",
    "value": "mean squared error",
    "cluster": "mean squared distance",
}
"""By target: what a state is worth."""


class StateSpec(Record, frozen=True):
    """A tensor of the state: name, shape, first value.

    `init` "uniform" draws from [-limit, limit), `limit` being the bit pattern of a binary64;
    "zeros" and "ones" have limit 0.
    """

    name: Name
    shape: Shape
    init: Annotated[str, Meta(pattern="^(zeros|ones|uniform)$")]
    limit: Word


class Plan(Record, frozen=True):
    """A training computation.

    `target`, `outputs`: "class" and the classes, "value" and the columns, "cluster" and the groups.
    """

    model: Name
    target: Annotated[str, Meta(pattern="^(class|value|cluster)$")]
    features: Annotated[int, Meta(ge=1, le=MAX_FEATURES)]
    outputs: Annotated[int, Meta(ge=1, le=MAX_OUTPUTS)]
    batch: Annotated[int, Meta(ge=1, le=MAX_BATCH)]
    state: Annotated[tuple[StateSpec, ...], Meta(min_length=1, max_length=MAX_TENSORS)]
    step: Program
    predict: Program
    """Reads x and the leading tensors of the state."""

    @property
    def metric(self) -> str:
        """What `Trainer.evaluate` measures."""
        return METRICS[self.target]

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(self)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan takes: gas (about nanoseconds) and bytes. Known before anything runs."""

    gas_per_step: int
    gas_predict_row: int
    state_bytes: int
    arena_bytes: int
    """Working memory of whoever re-runs a step and shows that it did."""


def decode_plan(data: bytes) -> Plan:
    """Return the plan of canonical bytes.

    Raises:
        RejectedProgram: malformed or larger than MAX_PLAN_BYTES.
    """
    try:
        return codec.decode(Plan, data, MAX_PLAN_BYTES)
    except CodecError as error:
        # This text stands in receipts, which all nodes hash; the decoder's depends on its version.
        raise RejectedProgram("plan: too large, or not the canonical encoding of one") from error


def input_types(plan: Plan) -> tuple[Type, Type]:
    """Return the types of x and y in the step program."""
    x = grid_type(grid.PRODUCT_BITS, plan.batch, plan.features)
    return x, target_type(plan.target, plan.outputs, plan.batch)


def target_type(target: str, outputs: int, batch: int) -> Type:
    """Return the type of y. Who groups rows is shown each row's place in the batch, no label."""
    if target == "value":
        return finite(batch, outputs)
    return labels(outputs if target == "class" else batch, batch)


def check_plan(plan: Plan) -> Cost:
    """Return the cost of `plan` if every node can run it and gets the same bits.

    Raises:
        RejectedProgram: names the program and the op, and says what is wrong.
    """
    x, y = input_types(plan)
    state = tuple(stored(*s.shape) for s in plan.state)
    state_bytes = sum(t.bytes for t in state)
    if state_bytes > MAX_STATE_BYTES:
        raise RejectedProgram(f"state: {state_bytes} bytes, at most {MAX_STATE_BYTES}")
    for spec in plan.state:
        limit = bits_to_real(spec.limit)
        if not (0 < limit <= 2.0**20 if spec.init == "uniform" else limit == 0):
            raise RejectedProgram(f"state {spec.name}: limit {limit} of {spec.init}")
    parameters = state[: len(plan.predict.inputs) - 1]
    step, step_arena = _check_part("step", plan.step, (x, y, *state), (*state, finite()))
    predict, predict_arena = _check_part(
        "predict", plan.predict, (x, *parameters), (finite(plan.batch, plan.outputs),)
    )
    return Cost(
        step, -(-predict // plan.batch), state_bytes, max(step_arena, predict_arena) + Scratch.BYTES
    )


def _check_part(
    part: str, program: Program, inputs: tuple[Type, ...], outputs: tuple[Type, ...]
) -> tuple[int, int]:
    """Return gas and arena bytes of one program whose inputs and outputs must be these."""
    try:
        if program.inputs != inputs:
            raise RejectedProgram(f"inputs are not {', '.join(map(str, inputs))}")
        checked = check(program)
        found = tuple(checked.types[r] for r in program.outputs)
        if found != outputs:
            raise RejectedProgram(f"outputs are not {', '.join(map(str, outputs))}")
        arena = plan_arena(checked)[1] + (exposed_bytes(checked) if part == "step" else 0)
        if arena > MAX_ARENA_BYTES:
            raise RejectedProgram(f"needs {arena} bytes of memory, at most {MAX_ARENA_BYTES}")
    except RejectedProgram as error:
        raise RejectedProgram(f"{part}: {error.message}", error.hint) from error
    return checked.gas, arena
