"""Twins of ops/updates.py."""

from __future__ import annotations

from mlchain.errors import Trap
from mlchain.ml_runtime.oracle.arithmetic import Numbers, Operands, divide, sqrt, state, twin


def _decayed(g: float, p: float, decay: float) -> float:
    return g + p * decay if decay else g


@twin("store")
def _store(o: Operands) -> tuple[Numbers, ...]:
    return ([state(x) for x in o.ins[0]],)


@twin("sgd")
def _sgd(o: Operands) -> tuple[Numbers, ...]:
    rate, decay = o.attrs
    return ([state(p - _decayed(g, p, decay) * rate) for p, g in zip(*o.ins, strict=True)],)


@twin("momentum")
def _momentum(o: Operands) -> tuple[Numbers, ...]:
    rate, mu, decay = o.attrs
    velocity = [v * mu + _decayed(g, p, decay) for p, v, g in zip(*o.ins, strict=True)]
    moved = [state(p - v * rate) for p, v in zip(o.ins[0], velocity, strict=True)]
    return moved, [state(v) for v in velocity]


@twin("adam_powers")
def _adam_powers(o: Operands) -> tuple[Numbers, ...]:
    return ([state(p * beta) for p, beta in zip(o.ins[0], o.attrs, strict=True)],)


@twin("adam")
def _adam(o: Operands) -> tuple[Numbers, ...]:
    rate, beta1, beta2, epsilon, decay = o.attrs
    power1, power2 = o.ins[4]
    if not (0 <= power1 < 1 and 0 <= power2 < 1):
        raise Trap("adam: a bias power is outside [0, 1)")
    step, unbias = rate / (1 - power1), 1 / (1 - power2)
    new: tuple[Numbers, Numbers, Numbers] = ([], [], [])
    for p, m, v, g in zip(*o.ins[:4], strict=True):
        g = _decayed(g, p, decay)
        v = v * beta2 + (g * g) * (1 - beta2)
        m = m * beta1 + g * (1 - beta1)
        p = p - divide(m, sqrt(v * unbias) + epsilon) * step
        for values, value in zip(new, (p, m, v), strict=True):
            values.append(state(value))
    return new
