"""Update rules: gradient and old state in, new state out, every element rounded to binary32.

State is never changed in place, so that any op can be run again from its inputs. A decay of 0
leaves its term out.
"""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlchain.errors import Trap
from mlchain.ml_runtime.functions import BLOCK
from mlchain.ml_runtime.grid import round_state
from mlchain.ml_runtime.op import (
    Call,
    Op,
    Types,
    Values,
    most_elements,
    reals,
    register,
    require,
    require_real,
)
from mlchain.ml_runtime.tensor import Array, stored

MAX_BETA = 1 - 2.0**-20
"""Largest decay of a moment: its binary32 power stays below 1, so nothing divides by zero."""


def _require_update(state: Types, gradient: Types) -> None:
    require(all(t.kind == "S" for t in state), "takes state")
    require_real(*gradient)
    require(len({t.shape for t in (*state, *gradient)}) == 1, "state and gradient differ in shape")


def _require_beta(*betas: float) -> None:
    require(all(0 <= b <= MAX_BETA for b in betas), "a moment's decay is outside [0, 1 - 2^-20]")


def _blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, flat[0].size, BLOCK):
        yield tuple(a[start : start + BLOCK] for a in flat)


def _decayed(g: Array, p: Array, decay: float, out: Array) -> Array:
    """Return g + decay * p, in `out`, or g itself without decay."""
    if not decay:
        return g
    np.multiply(p, decay, out=out, dtype=np.float64)
    np.add(g, out, out=out)
    return out


@register
class Sgd(Op):
    """p' = p - rate (g + decay p)."""

    name, arity = "sgd", 2
    attributes = reals("rate", "decay")
    source = "Robbins, Monro (1951); MLRT-1 rule 7"

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_update(ins[:1], ins[1:])
        return (stored(*ins[0].shape),)

    def gas(self, ins: Types, outs: Types) -> int:
        return 6000 + 3 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        rate, decay = c.attrs
        for p, g, new_p in _blocks(*c.ins, *c.outs):
            w = c.scratch[0, : p.size]
            np.multiply(_decayed(g, p, decay, w), rate, out=w)
            np.subtract(p, w, out=w)
            round_state(w, new_p)


@register
class Momentum(Op):
    """v' = mu v + (g + decay p); p' = p - rate v' (v' before rounding)."""

    name, arity = "momentum", 3
    attributes = reals("rate", "mu", "decay")
    source = "Polyak (1964); MLRT-1 rule 7"

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_update(ins[:2], ins[2:])
        _require_beta(attrs[1])
        return (stored(*ins[0].shape),) * 2

    def gas(self, ins: Types, outs: Types) -> int:
        return 6000 + 3 * most_elements(ins, outs)

    def forward(self, c: Call) -> None:
        rate, mu, decay = c.attrs
        for p, v, g, new_p, new_v in _blocks(*c.ins, *c.outs):
            w, u = c.scratch[0, : p.size], c.scratch[1, : p.size]
            g = _decayed(g, p, decay, u)
            np.multiply(v, mu, out=w, dtype=np.float64)
            np.add(w, g, out=w)
            np.multiply(w, rate, out=u)
            np.subtract(p, u, out=u)
            round_state(u, new_p)
            round_state(w, new_v)


@register
class AdamPowers(Op):
    """(beta1^t, beta2^t) -> (beta1^(t+1), beta2^(t+1)): the bias corrections, carried as state."""

    name, arity = "adam_powers", 1
    attributes = reals("beta1", "beta2")
    source = "Kingma, Ba, arXiv:1412.6980, section 3; MLRT-1 rule 7"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require(ins[0] == stored(2), "takes state of two powers")
        _require_beta(*attrs)
        return (stored(2),)

    def forward(self, c: Call) -> None:
        round_state(c.ins[0].astype(np.float64) * np.array(c.attrs), c.outs[0])


@register
class Adam(Op):
    """Adam over (p, m, v, g, powers), the powers already those of this step.

    g = g + decay p; m' = beta1 m + (1-beta1) g; v' = beta2 v + (1-beta2) g^2;
    p' = p - (rate / (1-beta1^t)) (m' / (sqrt(v' (1 / (1-beta2^t))) + epsilon)).
    """

    name, arity = "adam", 5
    attributes = reals("rate", "beta1", "beta2", "epsilon", "decay")
    source = "Kingma, Ba, arXiv:1412.6980, algorithm 1; MLRT-1 rule 7"

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_update(ins[:3], ins[3:4])
        require(ins[4] == stored(2), "takes state of two powers")
        _require_beta(attrs[1], attrs[2])
        require(attrs[3] >= 2.0**-100, "epsilon is below 2^-100")
        return (stored(*ins[0].shape),) * 3

    def gas(self, ins: Types, outs: Types) -> int:
        return 12000 + 8 * most_elements(ins[:4], outs)

    def forward(self, c: Call) -> None:
        rate, beta1, beta2, epsilon, decay = c.attrs
        power1, power2 = float(c.ins[4][0]), float(c.ins[4][1])
        if not (0 <= power1 < 1 and 0 <= power2 < 1):
            raise Trap("adam: a bias power is outside [0, 1)")
        step, unbias = rate / (1 - power1), 1 / (1 - power2)
        rest1, rest2 = 1 - beta1, 1 - beta2
        for p, m, v, g, new_p, new_m, new_v in _blocks(*c.ins[:4], *c.outs):
            u, w, s = (row[: p.size] for row in c.scratch[:3])
            g = _decayed(g, p, decay, s)
            np.multiply(v, beta2, out=u, dtype=np.float64)
            np.multiply(g, g, out=w)
            np.multiply(w, rest2, out=w)
            np.add(u, w, out=u)
            np.multiply(u, unbias, out=w)
            round_state(u, new_v)
            np.sqrt(w, out=w)
            np.add(w, epsilon, out=w)
            np.multiply(g, rest1, out=s)
            np.multiply(m, beta1, out=u, dtype=np.float64)
            np.add(u, s, out=u)
            np.divide(u, w, out=w)
            round_state(u, new_m)
            np.multiply(w, step, out=w)
            np.subtract(p, w, out=w)
            round_state(w, new_p)
