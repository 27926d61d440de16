"""What the torch backend computes for every op: separate kernels, each one rounding per element.

Written so that no kernel of torch's can round otherwise than the rules say:

- One IEEE operation per kernel, so nothing is there to be contracted. `add` with `alpha` and
  `addcmul` are not used, and nothing is compiled.
- A divisor is a tensor on the device, never a Python number: by a number, torch's GPU kernel
  multiplies by the reciprocal, and a number over a tensor is a reciprocal times the number.
- Sums and products are of grids, so their order is free.
- A number becomes an integer by a conversion only of what was checked to be in range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mlchain.ml_runtime import functions, grid
from mlchain.ml_runtime.backend_torch_device import F64, I64, Device, Tensor
from mlchain.ml_runtime.op import Values
from mlchain.ml_runtime.ops.windows import window_count
from mlchain.ml_runtime.tensor import Type

Tensors = list[Tensor]


Kernel = Callable[[Device, Tensors, Values, Sequence[Type]], Sequence[Tensor]]
KERNELS: dict[str, Kernel] = {}
"""By op: (device, inputs, attributes, types of the outputs) -> outputs."""


def _single(function: Callable[..., Any]) -> Kernel:
    """Return a function (device, *inputs, *attributes) -> output as a kernel."""
    return lambda d, ins, attrs, types: (function(d, *ins, *attrs),)


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter a kernel of one output under the name of its function."""
    KERNELS[function.__name__.strip("_")] = _single(function)
    return function


def _typed(function: Kernel) -> Kernel:
    """Enter a kernel that asks for the types of its outputs, or has several."""
    KERNELS[function.__name__.strip("_")] = function
    return function


_RELATIONS = (torch.lt, torch.le, torch.eq)

ONE_LINERS: dict[str, Callable[..., Any]] = {
    "constant": lambda d, value: d.number(value),
    "widen": lambda d, x: x.to(F64),
    "add": lambda d, x, y: torch.add(x, y),
    "subtract": lambda d, x, y: torch.sub(x, y),
    "multiply": lambda d, x, y: torch.mul(x, y),
    "divide": lambda d, x, y: torch.div(x, y + 0.0),
    "scale": lambda d, x, factor: torch.mul(x, factor),
    "relu": lambda d, x: torch.clamp(x, min=0.0),
    "relu_gradient": lambda d, g, y: torch.mul(g, (y > 0).to(F64)),
    "sigmoid": lambda d, x: d.sigmoid(x),
    "exp": lambda d, x: d.exp_scaled(x, functions.LOG2E),
    "log": lambda d, x: d.log(x),
    "square_root": lambda d, x: d.sqrt(x),
    "absolute": lambda d, x: torch.abs(x),
    "floor": lambda d, x: torch.floor(x),
    "rint": lambda d, x: torch.round(x),
    "minimum": lambda d, x, y: torch.minimum(x, y),
    "maximum": lambda d, x, y: torch.maximum(x, y),
    "compare": lambda d, x, y, relation: _RELATIONS[int(relation)](x, y).to(F64),
    "select": lambda d, condition, a, b: torch.where(condition > 0, a, b),
    "quantise_rows": lambda d, x, bits: d.quantise_rows(x, int(bits)),
    "matmul": lambda d, a, b, turn_a, turn_b: torch.matmul(
        a.mT if turn_a else a, b.mT if turn_b else b
    ),
    "sum_rows": lambda d, x: x.sum(0),
    "sum_axis": lambda d, x, axis: x.sum(int(axis)),
    "sum_all": lambda d, x: x.sum(),
    "slice": lambda d, x, axis, start, stop: x.narrow(int(axis), int(start), int(stop - start)),
    "concatenate": lambda d, x, y, axis: torch.cat([x, y], int(axis)),
    "positions": lambda d, count: torch.arange(int(count), dtype=F64, device=d.name),
    "argmax": lambda d, x: torch.argmax(x, -1),
    "row_maximum": lambda d, x: torch.amax(x, -1),
    "softmax": lambda d, z: d.normalise(d.exp_rows(z)),
    "softmax_gradient": lambda d, g, p: (g - d.row_sums(g * p)) * p,
    "log_loss": lambda d, p, y: torch.neg(d.log(p.gather(1, y.unsqueeze(1)).squeeze(1))),
    "softmax_residual": lambda d, p, y, g: (p - _one_hot(d, y, p.shape[1])) * g.unsqueeze(1),
    "store": lambda d, x: d.round_state(x),
}
KERNELS.update((name, _single(function)) for name, function in ONE_LINERS.items())


# Elementwise


@_kernel
def _tanh(d: Device, x: Tensor) -> Tensor:
    e = d.exp_scaled(x, 2 * functions.LOG2E) + 1.0
    return torch.sub(d.number(1.0), torch.div(d.number(2.0), e))


@_kernel
def _erf(d: Device, x: Tensor) -> Tensor:
    z = torch.abs(x)
    t = torch.div(d.number(2.0), z + 2.0)
    p = t * functions.ERF[-1]
    for coefficient in functions.ERF[-2:0:-1]:
        p = (p + coefficient) * t
    p = (p + functions.ERF[0]) - z * z
    p = d.exp_scaled(p, functions.LOG2E) * t
    return torch.copysign(torch.sub(d.number(1.0), p), x)


@_typed
def _gelu(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    (x,) = ins
    s = d.sigmoid(((x * x) * functions.GELU_CUBE) * x + x, functions.GELU_FACTOR)
    return x * s, s


@_kernel
def _gelu_gradient(d: Device, g: Tensor, x: Tensor, s: Tensor) -> Tensor:
    z = (x * x) * functions.GELU_CUBE_SLOPE
    z = (z + functions.GELU_SLOPE) * x
    z = z * torch.sub(d.number(1.0), s)
    return g * ((z + 1.0) * s)


# Onto grids, exact sums and products


@_kernel
def _quantise(d: Device, x: Tensor, bits: float) -> Tensor:
    x = x.to(F64)
    peak = torch.linalg.vector_norm(x, float("inf"))
    d.require(peak < grid.PEAK_TRAP, "quantise: a value is not finite or reaches 2^500")
    magic = d.rounder(peak, int(bits))
    return (x + magic) - magic


@_kernel
def _saturate(d: Device, x: Tensor, bits: float, exponent: float) -> Tensor:
    x = x.to(F64)
    peak = torch.linalg.vector_norm(x, float("inf"))
    d.require(peak < float("inf"), "saturate: a value is not finite")
    limit, magic = grid.fixed_grid(int(bits), int(exponent))
    return (torch.clamp(x, -limit, limit) + magic) - magic


@_kernel
def _scatter_add(d: Device, g: Tensor, index: Tensor, rows: float) -> Tensor:
    rest = g.shape[index.dim() :]
    out = torch.zeros(int(rows), rest.numel(), dtype=F64, device=g.device)
    out.index_add_(0, index.reshape(-1), g.reshape(index.numel(), rest.numel()))
    return out.reshape(int(rows), *rest)


# Moving elements


@_typed
def _spread(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    return (ins[0].expand(types[0].shape),)


@_typed
def _reshape(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    return (ins[0].reshape(types[0].shape),)


@_typed
def _transpose(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    return (ins[0].permute([int(a) for a in attrs[: ins[0].dim()]]),)


@_typed
def _pad(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    (x,), (axis, before, _) = ins, attrs
    out = torch.zeros(types[0].shape, dtype=x.dtype, device=x.device)
    out.narrow(int(axis), int(before), x.shape[int(axis)]).copy_(x)
    return (out,)


@_typed
def _repeat(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    return (ins[0].unsqueeze(int(attrs[0])).expand(types[0].shape),)


@_kernel
def _one_hot(d: Device, y: Tensor, classes: float) -> Tensor:
    out = torch.zeros(*y.shape, int(classes), dtype=F64, device=y.device)
    return out.scatter_(-1, y.unsqueeze(-1), 1.0)


@_kernel
def _index(d: Device, x: Tensor, count: float, exponent: float) -> Tensor:
    y = torch.round(x * 2.0**exponent)
    good = (y >= 0) & (y < count)
    d.require(good.all(), "index: a number is no index of the table")
    return torch.where(good, y, d.number(0.0)).to(I64)


@_kernel
def _gather(d: Device, table: Tensor, index: Tensor) -> Tensor:
    taken = table.index_select(0, index.reshape(-1))
    return taken.reshape(*index.shape, *table.shape[1:])


# Rows


@_kernel
def _causal_softmax(d: Device, z: Tensor) -> Tensor:
    later = torch.ones(z.shape[-2:], dtype=torch.bool, device=z.device).triu(1)
    z = z.masked_fill(later, -float("inf"))
    return d.normalise(d.exp_rows(z).masked_fill(later, 0.0))


@_kernel
def _logistic_loss(d: Device, s: Tensor, t: Tensor) -> Tensor:
    tail = d.log(d.exp_scaled(torch.neg(torch.abs(s)), functions.LOG2E) + 1.0)
    return (torch.clamp(s, min=0.0) - s * t) + tail


@_typed
def _layer_norm(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    (x,), n = ins, d.number(float(ins[0].shape[-1]))
    y = x - torch.div(d.row_sums(x), n)
    variance = torch.div(d.row_sums(y * y), n)
    r = torch.div(d.number(1.0), d.sqrt(variance + attrs[0]))
    return y * r, r.squeeze(-1)


@_kernel
def _layer_norm_gradient(d: Device, g: Tensor, y: Tensor, r: Tensor) -> Tensor:
    n = d.number(float(g.shape[-1]))
    mean = torch.div(d.row_sums(g), n)
    product = y * torch.div(d.row_sums(g * y), n)
    return ((g - mean) - product) * r.unsqueeze(-1)


# Windows of images


def _places(images: Tensor, counts: tuple[int, int], window: Values) -> list[Tensor]:
    """For every place of a window the pixels there: n x counts x channels."""
    kh, kw, stride = (int(v) for v in window)
    down, right = ((count - 1) * stride + 1 for count in counts)
    return [
        images[:, i : i + down : stride, j : j + right : stride]
        for i in range(kh)
        for j in range(kw)
    ]


@_typed
def _im2col(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    kh, kw, stride = (int(v) for v in attrs)
    view = ins[0].unfold(1, kh, stride).unfold(2, kw, stride)  # n, rows, columns, channels, kh, kw
    return (view.permute(0, 1, 2, 4, 5, 3).reshape(types[0].shape),)


@_typed
def _col2im(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    shape, window = types[0].shape, attrs[2:]
    counts = window_count(shape, window)
    out = torch.zeros(shape, dtype=F64, device=ins[0].device)
    g = ins[0].reshape(shape[0], *counts, int(window[0] * window[1]), shape[3])
    for place, view in enumerate(_places(out, counts, window)):
        view.add_(g[:, :, :, place])
    return (out,)


@_typed
def _max_pool(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    out, *others = _places(ins[0], types[0].shape[1:3], attrs)  # type: ignore[arg-type]
    for view in others:
        out = torch.maximum(out, view)
    return (out,)


@_typed
def _max_pool_gradient(
    d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]
) -> Sequence[Tensor]:
    g, x, y = ins
    counts = tuple(y.shape[1:3])
    out = torch.zeros(types[0].shape, dtype=F64, device=x.device)
    free = torch.ones(y.shape, dtype=torch.bool, device=x.device)
    for source, target in zip(_places(x, counts, attrs), _places(out, counts, attrs), strict=True):
        here = (source == y) & free
        free = free & ~here
        target.add_(g * here.to(F64))
    return (out,)


@_typed
def _average_pool(
    d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]
) -> Sequence[Tensor]:
    out, *others = _places(ins[0], types[0].shape[1:3], attrs)  # type: ignore[arg-type]
    for view in others:
        out = out + view
    return (out * (1.0 / (attrs[0] * attrs[1])),)


@_typed
def _average_pool_gradient(
    d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]
) -> Sequence[Tensor]:
    counts, shared = tuple(ins[0].shape[1:3]), ins[0] * (1.0 / (attrs[2] * attrs[3]))
    out = torch.zeros(types[0].shape, dtype=F64, device=shared.device)
    for view in _places(out, counts, attrs[2:]):
        view.add_(shared)
    return (out,)


# Updates. Those that are scheduled read a factor of the rate as their last input.


def _decayed(g: Tensor, p: Tensor, decay: float) -> Tensor:
    return g + p.to(F64) * decay if decay else g


def _rate(d: Device, rate: float, factor: Tensors) -> Tensor:
    return factor[0] * rate if factor else d.number(rate)


def _sgd(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    (p, g, *factor), (rate, decay) = ins, attrs
    return (d.round_state(p.to(F64) - _decayed(g, p, decay) * _rate(d, rate, factor)),)


def _momentum(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    (p, v, g, *factor), (rate, mu, decay) = ins, attrs
    w = v.to(F64) * mu + _decayed(g, p, decay)
    return d.round_state(p.to(F64) - w * _rate(d, rate, factor)), d.round_state(w)


@_typed
def _adam_powers(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
    betas = torch.stack([d.number(float(beta)) for beta in attrs])
    return (d.round_state(ins[0].to(F64) * betas),)


def _adam(decoupled: bool) -> Kernel:
    def adam(d: Device, ins: Tensors, attrs: Values, types: Sequence[Type]) -> Sequence[Tensor]:
        (p, m, v, g, powers, *factor), (rate, beta1, beta2, epsilon, decay) = ins, attrs
        powers, p, one = powers.to(F64), p.to(F64), d.number(1.0)
        good = ((powers >= 0) & (powers < 1)).all()
        d.require(good, "adam: a bias power is outside [0, 1)")
        rest, speed = torch.sub(one, powers), _rate(d, rate, factor)
        step, unbias = torch.div(speed, rest[0]), torch.div(one, rest[1])
        g = g if decoupled else _decayed(g, p, decay)
        w = v.to(F64) * beta2 + (g * g) * (1 - beta2)
        u = m.to(F64) * beta1 + g * (1 - beta1)
        change = torch.div(u, d.sqrt(w * unbias) + epsilon) * step
        p = p - p * (speed * decay) if decoupled else p
        return d.round_state(p - change), d.round_state(u), d.round_state(w)

    return adam


for _prefix in ("", "scheduled_"):
    KERNELS[f"{_prefix}sgd"], KERNELS[f"{_prefix}momentum"] = _sgd, _momentum
    KERNELS[f"{_prefix}adam"], KERNELS[f"{_prefix}adamw"] = _adam(False), _adam(True)
