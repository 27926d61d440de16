"""Update rules: gradient and old state in, new state out, every element rounded to binary32.

State is never changed in place, so that any op can be run again from its inputs. A decay of 0
leaves its term out.
"""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

import numpy as np

from mlchain.errors import Trap
from mlchain.ml_runtime.functions import constant
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
from mlchain.ml_runtime.tensor import Array, Type, finite, stored

MAX_BETA = 1 - 2.0**-20
"""Largest decay of a moment: its binary32 power stays below 1, so nothing divides by zero."""


def _require_update(state: Types, gradient: Types) -> None:
    require(all(t.kind == "S" for t in state), "takes state")
    require_real(*gradient)
    require(len({t.shape for t in (*state, *gradient)}) == 1, "state and gradient differ in shape")


def _require_beta(*betas: float) -> None:
    require(all(0 <= b <= MAX_BETA for b in betas), "a moment's decay is outside [0, 1 - 2^-20]")


def _require_factor(factor: Type) -> None:
    require(factor == finite(), "takes one number as the factor of the rate")


class _Update(Op):
    """An update whose first attribute is its rate."""

    def rate(self, c: Call) -> float:
        """Return the rate of this step."""
        return c.attrs[0]


class _Scheduled(_Update):
    """Mixed into an update: the last input is a number that the rate is multiplied by."""

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_factor(ins[-1])
        return super().infer(ins[:-1], attrs)

    def rate(self, c: Call) -> float:
        return c.attrs[0] * float(c.ins[-1])


def _decayed(g: Array, p: Array, decay: Array, out: Array) -> Array:
    """Return g + decay * p, in `out`, or g itself without decay."""
    if not decay:
        return g
    out[...] = p
    np.multiply(out, decay, out)
    np.add(g, out, out)
    return out


@register
class Store(Op):
    """A real tensor as state, rounded: the next value that a rule without gradients found."""

    name, arity = "store", 1
    source = "MLRT-1 rule 7"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        return (stored(*ins[0].shape),)

    def forward(self, c: Call) -> None:
        for (x,), (new,), (w, *_) in c.blocks:
            np.copyto(w, x)
            round_state(w, new)


@register
class Sgd(_Update):
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
        rate, decay = constant(self.rate(c)), c.constants[1]
        for (p, g, *_), (new_p,), (w, u, *_) in c.blocks:
            np.multiply(_decayed(g, p, decay, w), rate, w)
            u[...] = p
            np.subtract(u, w, u)
            round_state(u, new_p)


@register
class Momentum(_Update):
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
        rate, (_, mu, decay) = constant(self.rate(c)), c.constants
        for (p, v, g, *_), (new_p, new_v), (w, u, s, _) in c.blocks:
            w[...] = v
            np.multiply(w, mu, w)
            np.add(w, _decayed(g, p, decay, u), w)
            np.multiply(w, rate, u)
            s[...] = p
            np.subtract(s, u, s)
            round_state(s, new_p)
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
class Adam(_Update):
    """Adam over (p, m, v, g, powers), the powers already those of this step.

    g = g + decay p; m' = beta1 m + (1-beta1) g; v' = beta2 v + (1-beta2) g^2;
    p' = p - (rate / (1-beta1^t)) (m' / (sqrt(v' (1 / (1-beta2^t))) + epsilon)).
    """

    name, arity = "adam", 5
    decoupled = False
    """Whether decay shrinks the weights by themselves instead of adding to the gradient."""
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
        _, beta1, beta2, epsilon, decay = c.constants
        power1, power2 = c.ins[4].tolist()
        if not (0 <= power1 < 1 and 0 <= power2 < 1):
            raise Trap("adam: a bias power is outside [0, 1)")
        rate = self.rate(c)
        step, unbias = constant(rate / (1 - power1)), constant(1 / (1 - power2))
        shrink = constant(rate * c.attrs[4])
        rest1, rest2 = constant(1 - c.attrs[1]), constant(1 - c.attrs[2])
        for (p, m, v, g, *_), (new_p, new_m, new_v), (u, w, s, _) in c.blocks:
            if not self.decoupled:
                g = _decayed(g, p, decay, s)
            u[...] = v
            np.multiply(u, beta2, u)
            np.multiply(g, g, w)
            np.multiply(w, rest2, w)
            np.add(u, w, u)
            np.multiply(u, unbias, w)
            round_state(u, new_v)
            np.sqrt(w, w)
            np.add(w, epsilon, w)
            u[...] = m
            np.multiply(u, beta1, u)
            np.multiply(g, rest1, s)
            np.add(u, s, u)
            np.divide(u, w, w)
            round_state(u, new_m)
            np.multiply(w, step, w)
            u[...] = p
            if self.decoupled:
                np.multiply(u, shrink, s)
                np.subtract(u, s, u)
            np.subtract(u, w, u)
            round_state(u, new_p)


@register
class AdamW(Adam):
    """Adam without decay in g; p' = (p - (rate decay) p) - what Adam subtracts."""

    name = "adamw"
    decoupled = True
    source = "Loshchilov, Hutter, arXiv:1711.05101, algorithm 2; MLRT-1 rule 7"


@register
class ScheduledSgd(_Scheduled, Sgd):
    """sgd with rate times the factor it reads last."""

    name, arity = "scheduled_sgd", 3


@register
class ScheduledMomentum(_Scheduled, Momentum):
    """momentum with rate times the factor it reads last."""

    name, arity = "scheduled_momentum", 4


@register
class ScheduledAdam(_Scheduled, Adam):
    """adam with rate times the factor it reads last."""

    name, arity = "scheduled_adam", 6


@register
class ScheduledAdamW(_Scheduled, AdamW):
    """adamw with rate times the factor it reads last."""

    name, arity = "scheduled_adamw", 6
