"""A training job's whole computation as data: programs, state, batch. Nothing in it is trusted.

A plan is what a job submits. It holds the step program (x, y, state -> state', loss), the program
of predictions (x, parameters -> scores) and how state begins. `make_plan` writes one from a model
and an optimiser; a node only ever checks and runs it, so it needs no code for the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Annotated, Any

from msgspec import Meta

from mlchain import codec
from mlchain.codec import Name, Record
from mlchain.errors import CodecError, ConfigError, RejectedProgram
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.gradient import gradients
from mlchain.ml_runtime.machine import plan_arena
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.network import Network
from mlchain.ml_runtime.op import bits_to_real, real_to_bits
from mlchain.ml_runtime.optim import OPTIMISERS, Optimiser, StateInput
from mlchain.ml_runtime.program import MAX_TENSORS, Program, Word, check
from mlchain.ml_runtime.tensor import Shape, Type, finite, labels, stored
from mlchain.ml_runtime.tensor import grid as grid_type

MAX_PLAN_BYTES = 1 << 20
MAX_STATE_BYTES = 1 << 30
MAX_ARENA_BYTES = 4 << 30
MAX_BATCH = 1 << 20
MAX_FEATURES = 1 << 20
MAX_OUTPUTS = 1 << 13


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
    """A training computation. `target` is "class" or "value", `outputs` classes or columns."""

    model: Name
    target: Annotated[str, Meta(pattern="^(class|value)$")]
    features: Annotated[int, Meta(ge=1, le=MAX_FEATURES)]
    outputs: Annotated[int, Meta(ge=1, le=MAX_OUTPUTS)]
    batch: Annotated[int, Meta(ge=1, le=MAX_BATCH)]
    state: Annotated[tuple[StateSpec, ...], Meta(min_length=1, max_length=MAX_TENSORS)]
    step: Program
    predict: Program
    """Reads x and the leading tensors of the state."""

    @property
    def metric(self) -> str:
        """What `Trainer.evaluate` measures: "accuracy" or "mean squared error"."""
        return "accuracy" if self.target == "class" else "mean squared error"

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
    if plan.target == "class":
        return x, labels(plan.outputs, plan.batch)
    return x, finite(plan.batch, plan.outputs)


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
        arena = plan_arena(checked)[1]
        if arena > MAX_ARENA_BYTES:
            raise RejectedProgram(f"needs {arena} bytes of memory, at most {MAX_ARENA_BYTES}")
    except RejectedProgram as error:
        raise RejectedProgram(f"{part}: {error.message}", error.hint) from error
    return checked.gas, arena


def make_plan(
    model: str,
    *,
    features: int,
    classes: int = 0,
    outputs: int = 0,
    optimiser: str = "adam",
    batch: int = 32,
    **options: Any,
) -> Plan:
    """Write the plan of a model of this package.

    Give `classes` to learn labels or `outputs` to learn values. `options` go to the model
    (hidden, activation) and the optimiser (rate, momentum, beta1, beta2, epsilon, weight_decay);
    reals may be decimal text and become the nearest binary64 once, here.

    Raises:
        ConfigError: no such model, optimiser or option, or a target the model does not learn.
        RejectedProgram: the plan would not pass `check_plan`.
    """
    target, columns = ("class", classes) if classes else ("value", outputs)
    if bool(classes) == bool(outputs) or columns < 1 or features < 1 or batch < 1:
        raise ConfigError("plan: give features, batch, and either classes or outputs, at least 1")
    module = _lookup("model", MODELS, model)
    update = _lookup("optimiser", OPTIMISERS, optimiser)
    if target not in module.TARGETS:
        raise ConfigError(f"{model}: does not learn a {target}", f"learns {module.TARGETS}")
    shares = _share_options(options, module.build, update)
    try:
        plan = _write_plan(model, target, features, columns, batch, module.build, update, *shares)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"plan: an option is not a number it can be: {error}") from error
    plan = decode_plan(plan.encode())  # the bounds of every field are the decoder's
    check_plan(plan)
    return plan


def _write_plan(
    model: str,
    target: str,
    features: int,
    columns: int,
    batch: int,
    build: Callable[..., int],
    update: Optimiser,
    for_build: dict[str, Any],
    for_update: dict[str, Any],
) -> Plan:
    b, p = Builder(), Builder()
    kind = grid_type(grid.PRODUCT_BITS, batch, features)
    x = b.input(kind)
    y = b.input(labels(columns, batch) if target == "class" else finite(batch, columns))
    network = Network(b)
    scores = build(network, x, outputs=columns, **for_build)
    loss = _loss(b, scores, y, target)
    grads = gradients(b, loss, [p.register for p in network.parameters])
    done = update(b, network.parameters, grads, **for_update)
    specs = tuple(_spec(b, s) for s in (*network.parameters, *done.slots))
    step = b.program([*done.results, loss])
    predict = p.program([build(Network(p), p.input(kind), outputs=columns, **for_build)])
    return Plan(model, target, features, columns, batch, specs, step, predict)


def _loss(b: Builder, scores: int, y: int, target: str) -> int:
    if target == "class":
        return b.mean(b.emit("log_loss", b.emit("softmax", scores), y))
    error = b.emit("subtract", scores, y)
    return b.mean(b.emit("multiply", error, error))


def _spec(b: Builder, s: StateInput) -> StateSpec:
    return StateSpec(s.name, b.type(s.register).shape, s.init, real_to_bits(s.limit))


def _lookup(what: str, table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise ConfigError(f"{what}: no {name!r}", "one of " + ", ".join(table))
    return table[name]


def _share_options(options: dict[str, Any], *takers: Any) -> list[dict[str, Any]]:
    """Give every option to the taker that names it as a keyword with a default."""
    shares: list[dict[str, Any]] = [{} for _ in takers]
    known: list[str] = []
    for share, taker in zip(shares, takers, strict=True):
        for name, parameter in signature(taker).parameters.items():
            if parameter.default is not Parameter.empty:
                known.append(name)
                if name in options:
                    share[name] = options[name]
    for name in options:
        if name not in known:
            raise ConfigError(f"plan: no option {name!r}", "options: " + ", ".join(known))
    return shares
