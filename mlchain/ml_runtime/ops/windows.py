"""Windows over images of n x height x width x channels: im2col, col2im and pooling.

A window is kernel_height x kernel_width pixels, `stride` apart; pixels beyond the last whole
window are left out. Where several numbers meet in one place they are added in the order of the
place in the window, row after row: that order is normative, as these sums are not exact.
"""
# ruff: noqa: D102 (the base class says what each method is)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from mlchain.ml_runtime.builder import Builder, Emitted
from mlchain.ml_runtime.op import (
    Call,
    Op,
    Types,
    Values,
    integers,
    most_elements,
    register,
    require,
    require_real,
)
from mlchain.ml_runtime.ops.layout import moved
from mlchain.ml_runtime.tensor import MAX_DIMENSION, Array, Type, finite

Grads = list[tuple[int, int]]
WINDOW = ("kernel_height", "kernel_width", "stride")
_CHUNK = 1 << 15
"""Elements worked on together, so that they stay in the cache."""


def window_count(shape: Sequence[int], window: Values) -> tuple[int, int]:
    """Return how many windows fit an image's height and width.

    Raises:
        RejectedProgram: none does, or the window is none.
    """
    (height, width), (kh, kw, stride) = shape[1:3], (int(v) for v in window)
    require(1 <= kh <= height and 1 <= kw <= width, f"a window of {kh} x {kw} in {list(shape)}")
    require(1 <= stride <= MAX_DIMENSION, f"stride {stride}")
    return (height - kh) // stride + 1, (width - kw) // stride + 1


def _require_images(kind: Type) -> None:
    require(len(kind.shape) == 4, "takes images: n x height x width x channels")


def _parts(images: Array, counts: tuple[int, int], window: Values) -> Iterator[Array]:
    """Yield for every place of a window the view of the pixels there: n x counts x channels."""
    kh, kw, stride = (int(v) for v in window)
    down, right = ((count - 1) * stride + 1 for count in counts)
    for i, j in product(range(kh), range(kw)):
        yield images[:, i : i + down : stride, j : j + right : stride]


def _cost(images: Type, windows: Type, places: int, call: int, each: int, factor: int = 1) -> int:
    """Return the gas of a pass over every place of a window: calls, numbers, short runs of them.

    `windows` are one number for each window and channel; `call` and `each` are the gas of one
    chunk and of one number.
    """
    step = max(1, _CHUNK * images.shape[0] // (images.elements * factor))
    chunks = -(-images.shape[0] // step)
    runs = windows.elements // (windows.shape[3] if windows.shape[3] > 1 else windows.shape[2])
    return 8000 + images.elements + places * (call * chunks + each * windows.elements + 10 * runs)


def _chunks(images: Array, share: int = 1) -> list[slice]:
    """Cut images into chunks for the cache, each of that share of _CHUNK."""
    step = max(1, _CHUNK * len(images) // (images.size * share))
    return [slice(at, at + step) for at in range(0, len(images), step)]


@register
class Im2col(Op):
    """Every window as a row: places of the window row after row, channels innermost."""

    name, arity = "im2col", 1
    attributes = integers(*WINDOW)
    source = "Chellapilla, Puri, Simard (2006); moves elements: MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        _require_images(ins[0])
        rows, columns = window_count(ins[0].shape, attrs)
        n, _, _, channels = ins[0].shape
        return moved(ins[0], (n * rows * columns, int(attrs[0] * attrs[1]) * channels))

    def cost(self, ins: Types, outs: Types, attrs: Values) -> int:
        runs = outs[0].elements // (int(attrs[1]) * ins[0].shape[3])
        return 8000 + most_elements(ins, outs) + 6 * runs

    def forward(self, c: Call) -> None:
        x = c.ins[0]
        kh, kw, stride = (int(v) for v in c.attrs)
        rows, columns = window_count(x.shape, c.attrs)
        n, h, w, ch = x.strides
        view = np.lib.stride_tricks.as_strided(
            x,
            (len(x), rows, columns, kh, kw, x.shape[3]),
            (n, h * stride, w * stride, h, w, ch),
            writeable=False,
        )
        np.copyto(c.outs[0].reshape(view.shape), view)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        _, height, width, _ = b.type(node.inputs[0]).shape
        window = dict(zip(WINDOW, node.attrs, strict=True))
        return [(node.inputs[0], b.emit("col2im", g, height=height, width=width, **window))]


@register
class Col2im(Op):
    """Rows of im2col added where their windows overlap, in the order of the place in a window."""

    name, arity = "col2im", 1
    attributes = integers("height", "width", *WINDOW)
    source = "MLRT-1 rule 4; adjoint of im2col"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        require(len(ins[0].shape) == 2, "takes rows of windows")
        require(all(1 <= v <= MAX_DIMENSION for v in attrs[:2]), f"images of {attrs[:2]}")
        height, width = (int(v) for v in attrs[:2])
        rows, columns = window_count((1, height, width, 1), attrs[2:])
        (n, images), (channels, rest) = (
            divmod(ins[0].shape[0], rows * columns),
            divmod(ins[0].shape[1], int(attrs[2] * attrs[3])),
        )
        require(n > 0 and images == rest == 0 and channels > 0, f"{ins[0]} are no such windows")
        return (finite(n, height, width, channels),)

    def cost(self, ins: Types, outs: Types, attrs: Values) -> int:
        places = int(attrs[2] * attrs[3])
        counts = window_count(outs[0].shape, attrs[2:])
        windows = finite(outs[0].shape[0], *counts, outs[0].shape[3])
        return _cost(outs[0], windows, places, 2000, 3, places)

    def forward(self, c: Call) -> None:
        out = c.outs[0]
        kh, kw, _ = window = [int(v) for v in c.attrs[2:]]
        counts = window_count(out.shape, window)
        g = c.ins[0].reshape(len(out), *counts, kh * kw, out.shape[3])
        for part in _chunks(out, 4):
            out[part].fill(0.0)
            row = np.empty((len(out[part]), *counts, out.shape[3]))
            for place, view in enumerate(_parts(out[part], counts, window)):
                np.copyto(row, g[part, :, :, place])  # longer runs: the sum is twice as quick
                np.add(view, row, out=view)

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        window = dict(zip(WINDOW, node.attrs[2:], strict=True))
        return [(node.inputs[0], b.emit("im2col", g, **window))]


class _Pool(Op):
    """What pooling shares."""

    arity = 1
    attributes = integers(*WINDOW)

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        _require_images(ins[0])
        n, _, _, channels = ins[0].shape
        return (finite(n, *window_count(ins[0].shape, attrs), channels),)

    def cost(self, ins: Types, outs: Types, attrs: Values) -> int:
        return _cost(ins[0], outs[0], int(attrs[0] * attrs[1]), 2000, 1)


@register
class MaxPool(_Pool):
    """The largest number of every window and channel."""

    name = "max_pool"
    source = "MLRT-1 rule 4"

    def forward(self, c: Call) -> None:
        (x,), (out,) = c.ins, c.outs
        for part in _chunks(x):
            views = _parts(x[part], out.shape[1:3], c.attrs)
            np.copyto(out[part], next(views))
            for view in views:
                np.maximum(out[part], view, out=out[part])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        window = dict(zip(WINDOW, node.attrs, strict=True))
        x, y = node.inputs[0], node.outputs[0]
        return [(x, b.emit("max_pool_gradient", g, x, y, **window))]


@register
class MaxPoolGradient(Op):
    """g at the first place of its window where x equals y, from (g, x, y); 0 elsewhere."""

    name, arity = "max_pool_gradient", 3
    attributes = integers(*WINDOW)
    source = "adjoint of max_pool; MLRT-1 rules 4 and 8"

    def infer(self, ins: Types, attrs: Values) -> Types:
        g, x, y = ins
        require_real(*ins)
        _require_images(x)
        n, _, _, channels = x.shape
        pooled = (n, *window_count(x.shape, attrs), channels)
        require(g.shape == y.shape == pooled, "g and y are not the windows of x")
        return (finite(*x.shape),)

    def cost(self, ins: Types, outs: Types, attrs: Values) -> int:
        return _cost(ins[1], ins[2], int(attrs[0] * attrs[1]), 8000, 8)

    def forward(self, c: Call) -> None:
        (g, x, y), (out,) = c.ins, c.outs
        for part in _chunks(x):
            out[part].fill(0.0)
            free, row = np.ones(y[part].shape, bool), np.empty(y[part].shape)
            places = zip(
                _parts(x[part], y.shape[1:3], c.attrs),
                _parts(out[part], y.shape[1:3], c.attrs),
                strict=True,
            )
            for source, target in places:
                np.copyto(row, source)
                here = np.equal(row, y[part])
                np.logical_and(here, free, out=here)
                np.greater(free, here, out=free)
                np.multiply(g[part], here, out=row)
                np.add(target, row, out=target)


@register
class AveragePool(_Pool):
    """The sum of every window in the order of its places, times 1 / their number."""

    name = "average_pool"
    source = "MLRT-1 rule 4"

    def forward(self, c: Call) -> None:
        (x,), (out,) = c.ins, c.outs
        share = 1.0 / (c.attrs[0] * c.attrs[1])
        for part in _chunks(x):
            views = _parts(x[part], out.shape[1:3], c.attrs)
            np.copyto(out[part], next(views))
            for view in views:
                np.add(out[part], view, out=out[part])
            np.multiply(out[part], share, out=out[part])

    def gradient(self, b: Builder, node: Emitted, g: int) -> Grads:
        _, height, width, _ = b.type(node.inputs[0]).shape
        window = dict(zip(WINDOW, node.attrs, strict=True))
        spread = b.emit("average_pool_gradient", g, height=height, width=width, **window)
        return [(node.inputs[0], spread)]


@register
class AveragePoolGradient(Op):
    """g times 1 / (places of a window) added to every pixel of its window, place after place."""

    name, arity = "average_pool_gradient", 1
    attributes = integers("height", "width", *WINDOW)
    source = "adjoint of average_pool; MLRT-1 rule 4"

    def infer(self, ins: Types, attrs: Values) -> Types:
        require_real(*ins)
        _require_images(ins[0])
        require(all(1 <= v <= MAX_DIMENSION for v in attrs[:2]), f"images of {attrs[:2]}")
        n, rows, columns, channels = ins[0].shape
        height, width = (int(v) for v in attrs[:2])
        counts = window_count((n, height, width, channels), attrs[2:])
        require(counts == (rows, columns), "g is not the windows of such images")
        return (finite(n, height, width, channels),)

    def cost(self, ins: Types, outs: Types, attrs: Values) -> int:
        return _cost(outs[0], ins[0], int(attrs[2] * attrs[3]), 2000, 1)

    def forward(self, c: Call) -> None:
        (g,), (out,) = c.ins, c.outs
        share = 1.0 / (c.attrs[2] * c.attrs[3])
        for part in _chunks(out):
            out[part].fill(0.0)
            shared = g[part] * share
            for view in _parts(out[part], g.shape[1:3], c.attrs[2:]):
                np.add(view, shared, out=view)
