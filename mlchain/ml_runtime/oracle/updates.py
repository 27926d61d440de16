"""Twins of ops/updates.py."""

from __future__ import annotations

from collections.abc import Callable

from mlchain.errors import Trap
from mlchain.ml_runtime.oracle.arithmetic import Numbers, Operands, divide, sqrt, state, twin

Update = Callable[[Operands, float], tuple[Numbers, ...]]


def scheduled(name: str) -> Callable[[Update], Update]:
    """Enter the twins of an update and of its scheduled form, given as a function of the rate."""

    def enter(update: Update) -> Update:
        twin(name)(lambda o: update(o, o.attrs[0]))
        twin(f"scheduled_{name}")(lambda o: update(o, o.attrs[0] * o.ins[-1][0]))
        return update

    return enter


def _decayed(g: float, p: float, decay: float) -> float:
    return g + p * decay if decay else g


@twin("store")
def _store(o: Operands) -> tuple[Numbers, ...]:
    return ([state(x) for x in o.ins[0]],)


@scheduled("sgd")
def _sgd(o: Operands, rate: float) -> tuple[Numbers, ...]:
    decay = o.attrs[1]
    return ([state(p - _decayed(g, p, decay) * rate) for p, g in zip(*o.ins[:2], strict=True)],)


@scheduled("momentum")
def _momentum(o: Operands, rate: float) -> tuple[Numbers, ...]:
    _, mu, decay = o.attrs
    rows = zip(*o.ins[:3], strict=True)
    velocity = [v * mu + _decayed(g, p, decay) for p, v, g in rows]
    moved = [state(p - v * rate) for p, v in zip(o.ins[0], velocity, strict=True)]
    return moved, [state(v) for v in velocity]


@twin("adam_powers")
def _adam_powers(o: Operands) -> tuple[Numbers, ...]:
    return ([state(p * beta) for p, beta in zip(o.ins[0], o.attrs, strict=True)],)


@scheduled("adam")
def _adam(o: Operands, rate: float) -> tuple[Numbers, ...]:
    return _adam_step(o, rate, False)


@scheduled("adamw")
def _adamw(o: Operands, rate: float) -> tuple[Numbers, ...]:
    return _adam_step(o, rate, True)


def _adam_step(o: Operands, rate: float, decoupled: bool) -> tuple[Numbers, ...]:
    _, beta1, beta2, epsilon, decay = o.attrs
    power1, power2 = o.ins[4]
    if not (0 <= power1 < 1 and 0 <= power2 < 1):
        raise Trap("adam: a bias power is outside [0, 1)")
    step, unbias = rate / (1 - power1), 1 / (1 - power2)
    new: tuple[Numbers, Numbers, Numbers] = ([], [], [])
    for p, m, v, g in zip(*o.ins[:4], strict=True):
        g = g if decoupled else _decayed(g, p, decay)
        v = v * beta2 + (g * g) * (1 - beta2)
        m = m * beta1 + g * (1 - beta1)
        p = p - p * (rate * decay) if decoupled else p
        p = p - divide(m, sqrt(v * unbias) + epsilon) * step
        for values, value in zip(new, (p, m, v), strict=True):
            values.append(state(value))
    return new
