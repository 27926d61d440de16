"""Optimisers: what each keeps beside the parameters, and the update ops it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.tensor import stored


@dataclass(frozen=True, slots=True)
class StateInput:
    """A tensor of the state: its name, its register in the step program, its first value.

    `init` is "zeros", "ones" or "uniform"; `limit` bounds the uniform one: [-limit, limit).
    """

    name: str
    register: int
    init: str
    limit: float


@dataclass(frozen=True, slots=True)
class Update:
    """What an optimiser added: further state, and the register of every tensor's next value."""

    slots: list[StateInput]
    results: list[int]


Optimiser = Callable[..., Update]
"""(builder, parameters, their gradients, factor of the rate or None, its options) -> Update."""


def _slot(b: Builder, owner: StateInput, suffix: str) -> StateInput:
    register = b.input(b.type(owner.register))
    return StateInput(f"{owner.name}.{suffix}", register, "zeros", 0.0)


def _emit(b: Builder, name: str, *reads: int, factor: int | None, **attributes: float) -> list[int]:
    """Emit an update, the scheduled form of it if the rate has a factor."""
    if factor is None:
        return list(b.emit_all(name, *reads, **attributes))
    return list(b.emit_all(f"scheduled_{name}", *reads, factor, **attributes))


def _decay(b: Builder, parameter: StateInput, weight_decay: float) -> float:
    """Weights decay; biases, which are vectors, do not."""
    return float(weight_decay) if len(b.type(parameter.register).shape) > 1 else 0.0


def sgd(
    b: Builder,
    parameters: Sequence[StateInput],
    grads: Sequence[int],
    factor: int | None,
    *,
    rate: float = 0.1,
    weight_decay: float = 0.0,
) -> Update:
    """Plain stochastic gradient descent."""
    results = [
        register
        for p, g in zip(parameters, grads, strict=True)
        for register in _emit(
            b,
            "sgd",
            p.register,
            g,
            factor=factor,
            rate=float(rate),
            decay=_decay(b, p, weight_decay),
        )
    ]
    return Update([], results)


def momentum(
    b: Builder,
    parameters: Sequence[StateInput],
    grads: Sequence[int],
    factor: int | None,
    *,
    rate: float = 0.05,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> Update:
    """Gradient descent with Polyak's momentum."""
    slots = [_slot(b, p, "v") for p in parameters]
    pairs = [
        _emit(
            b,
            "momentum",
            p.register,
            v.register,
            g,
            factor=factor,
            rate=float(rate),
            mu=float(momentum),
            decay=_decay(b, p, weight_decay),
        )
        for p, v, g in zip(parameters, slots, grads, strict=True)
    ]
    return Update(slots, [pair[0] for pair in pairs] + [pair[1] for pair in pairs])


def adam(
    b: Builder,
    parameters: Sequence[StateInput],
    grads: Sequence[int],
    factor: int | None,
    *,
    rate: float = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> Update:
    """Adam; its two bias powers are state like everything else."""
    numbers = (rate, beta1, beta2, epsilon, weight_decay)
    return _adam("adam", b, parameters, grads, factor, *map(float, numbers))


def adamw(
    b: Builder,
    parameters: Sequence[StateInput],
    grads: Sequence[int],
    factor: int | None,
    *,
    rate: float = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
) -> Update:
    """Adam with weight decay apart from the gradient."""
    numbers = (rate, beta1, beta2, epsilon, weight_decay)
    return _adam("adamw", b, parameters, grads, factor, *map(float, numbers))


def _adam(
    op: str,
    b: Builder,
    parameters: Sequence[StateInput],
    grads: Sequence[int],
    factor: int | None,
    rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
) -> Update:
    firsts = [_slot(b, p, "m") for p in parameters]
    seconds = [_slot(b, p, "v") for p in parameters]
    powers = StateInput("powers", b.input(stored(2)), "ones", 0.0)
    now = b.emit("adam_powers", powers.register, beta1=beta1, beta2=beta2)
    rows = [
        _emit(
            b,
            op,
            p.register,
            m.register,
            v.register,
            g,
            now,
            factor=factor,
            rate=rate,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            decay=_decay(b, p, weight_decay),
        )
        for p, m, v, g in zip(parameters, firsts, seconds, grads, strict=True)
    ]
    results = [row[i] for i in range(3) for row in rows]
    return Update([*firsts, *seconds, powers], [*results, now])


OPTIMISERS: dict[str, Optimiser] = {
    "adam": adam,
    "adamw": adamw,
    "momentum": momentum,
    "sgd": sgd,
}
