"""Writing plans: a model of this package, the data it is for, and the way it learns.

A model learns in one of two ways, and its file says which. By gradient: it defines `build`, and a
loss and an optimiser are added here. By a rule of its own: it defines `fit`, which writes the
whole step, and `predict`. See `models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature
from types import ModuleType
from typing import Any

from mlchain.errors import ConfigError
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.gradient import gradients
from mlchain.ml_runtime.losses import DEFAULT_LOSSES, LOSSES, Loss
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.network import Network
from mlchain.ml_runtime.op import real_to_bits
from mlchain.ml_runtime.optim import OPTIMISERS, Optimiser, StateInput
from mlchain.ml_runtime.plan import Plan, StateSpec, check_plan, decode_plan, target_type
from mlchain.ml_runtime.program import Program
from mlchain.ml_runtime.schedule import rate_factor
from mlchain.ml_runtime.tensor import grid as grid_type

DEFAULT_OPTIMISER = "adam"
SIZES = {"class": "classes", "value": "outputs", "cluster": "clusters"}
"""By target: the argument of `make_plan` that asks for it, and says how many."""


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What a plan is for: the target, and the dimensions of x and y."""

    target: str
    features: int
    columns: int
    batch: int

    def x(self, b: Builder) -> int:
        """Declare x, the first input of both programs."""
        return b.input(grid_type(grid.PRODUCT_BITS, self.batch, self.features))

    def y(self, b: Builder) -> int:
        """Declare y, the second input of the step."""
        return b.input(target_type(self.target, self.columns, self.batch))


@dataclass(frozen=True, slots=True)
class _Written:
    """The state, the builder that knows its types, and the two programs."""

    state: Sequence[StateInput]
    b: Builder
    step: Program
    predict: Program


def make_plan(
    model: str,
    *,
    features: int,
    classes: int = 0,
    outputs: int = 0,
    clusters: int = 0,
    optimiser: str = "",
    loss: str = "",
    batch: int = 32,
    **options: Any,
) -> Plan:
    """Write the plan of a model of this package.

    Give `classes` to learn labels, `outputs` to learn values, or `clusters` to group rows without
    looking at their labels. `options` go to the model (hidden, activation), the optimiser (rate,
    momentum, beta1, beta2, epsilon, weight_decay) and the schedule of its rate (schedule, warmup,
    decay_steps, decay_factor); reals may be decimal text and become the
    nearest binary64 once, here. A model that learns by gradient takes `optimiser` ("adam" if left
    out) and `loss` (its own if left out); one with a rule of its own takes neither.

    Raises:
        ConfigError: no such model, optimiser, loss or option, or a target the model does not learn.
        RejectedProgram: the plan would not pass `check_plan`.
    """
    given = {"class": classes, "value": outputs, "cluster": clusters}
    targets = [name for name, columns in given.items() if columns]
    if len(targets) != 1 or given[targets[0]] < 1 or features < 1 or batch < 1:
        raise ConfigError(
            "plan: give features, batch, and one of classes, outputs and clusters, at least 1"
        )
    module, target = _lookup("model", MODELS, model), targets[0]
    if target not in module.TARGETS:
        raise ConfigError(f"{model}: does not learn a {target}", f"learns {module.TARGETS}")
    sizes = _Sizes(target, features, given[target], batch)
    if learns_by_gradient(module):
        update = _lookup("optimiser", OPTIMISERS, optimiser or DEFAULT_OPTIMISER)
        loss = loss or getattr(module, "LOSS", DEFAULT_LOSSES[target])
        measure = _lookup("loss", LOSSES[target], loss)
        shares = _share_options(options, module.build, update, rate_factor)
        write = partial(_by_gradient, sizes, module, update, measure, *shares)
    elif optimiser or loss:
        raise ConfigError(f"{model}: learns by a rule of its own", "give no optimiser and no loss")
    else:
        write = partial(
            _by_rule, sizes, module, *_share_options(options, module.fit, module.predict)
        )
    try:
        written = write()
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"plan: an option is not a number it can be: {error}") from error
    specs = tuple(_spec(written.b, s) for s in written.state)
    plan = Plan(model, target, features, sizes.columns, batch, specs, written.step, written.predict)
    plan = decode_plan(plan.encode())  # the bounds of every field are the decoder's
    check_plan(plan)
    return plan


def learns_by_gradient(module: ModuleType) -> bool:
    """Whether a model of the folder `models` leaves the step to a loss and an optimiser."""
    return hasattr(module, "build")


def _by_gradient(
    sizes: _Sizes,
    module: ModuleType,
    update: Optimiser,
    measure: Loss,
    for_build: dict[str, Any],
    for_update: dict[str, Any],
    for_rate: dict[str, Any],
) -> _Written:
    b, p = Builder(), Builder()
    network, x, y = Network(b, training=True), sizes.x(b), sizes.y(b)
    scores = module.build(network, x, outputs=sizes.columns, **for_build)
    loss = measure(b, scores, y)
    grads = gradients(b, loss, [s.register for s in network.parameters])
    factor = rate_factor(network, **for_rate)
    done = update(b, network.parameters, grads, factor, **for_update)
    asked = module.build(Network(p), sizes.x(p), outputs=sizes.columns, **for_build)
    state = [*network.parameters, *done.slots, *network.aids]
    b.reorder_inputs([x, y, *(s.register for s in state)])
    step = b.program([*done.results, *network.aids_after(), loss])
    return _Written(state, b, step, p.program([asked]))


def _by_rule(
    sizes: _Sizes, module: ModuleType, for_fit: dict[str, Any], for_predict: dict[str, Any]
) -> _Written:
    b, p = Builder(), Builder()
    network, asking, x, y = Network(b), Network(p), sizes.x(b), sizes.y(b)
    loss = module.fit(network, x, y, outputs=sizes.columns, **for_fit)
    asked = module.predict(asking, sizes.x(p), outputs=sizes.columns, **for_predict)
    state = network.parameters
    read = [_spec(p, s) for s in asking.parameters]
    assert read == [_spec(b, s) for s in state[: len(read)]], (
        "predict reads what fit declares first"
    )
    return _Written(state, b, b.program([*network.results(), loss]), p.program([asked]))


def _spec(b: Builder, s: StateInput) -> StateSpec:
    return StateSpec(s.name, b.type(s.register).shape, s.init, real_to_bits(s.limit))


def _lookup(what: str, table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise ConfigError(f"{what}: no {name!r}", "one of " + ", ".join(table))
    return table[name]


def _share_options(options: dict[str, Any], *takers: Any) -> list[dict[str, Any]]:
    """Give every option to each taker that names it as a keyword with a default."""
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
            hint = "options: " + ", ".join(dict.fromkeys(known)) if known else "it has no options"
            raise ConfigError(f"plan: no option {name!r}", hint)
    return shares
