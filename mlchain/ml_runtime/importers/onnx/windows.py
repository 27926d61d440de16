"""Operators over images and signals: convolution and pooling, as windows and exact products."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from mlchain.ml_runtime.importers.onnx.moving import padded
from mlchain.ml_runtime.importers.onnx.rules import Result, rule
from mlchain.ml_runtime.importers.onnx.trace import MINUS_INFINITY, Trace
from mlchain.ml_runtime.importers.onnx.values import Call, Tensor, require_size
from mlchain.ml_runtime.tensor import Array


@dataclass(frozen=True, slots=True)
class Window:
    """Kernel, stride, padding before and after, dilation: of height and width."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    dilations: tuple[int, int]


def _pair(c: Call, values: tuple[int, ...], spatial: int, filler: int) -> tuple[int, int]:
    if len(values) != spatial or min(values) < 0:
        raise c.refuse(f"{list(values)} for {spatial} axes")
    return (filler, values[0]) if spatial == 1 else (values[0], values[1])


def window_of(c: Call, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """Return the window of a node over n x channels x height x width, or x length."""
    spatial = len(shape) - 2
    if spatial not in (1, 2) or shape[0] != 1:
        raise c.refuse(f"takes n x channels x height x width, not {list(shape)}")
    ones = (1,) * spatial
    sizes = _pair(c, kernel, spatial, 1)
    strides = _pair(c, c.integers("strides", ones), spatial, 1)
    dilations = _pair(c, c.integers("dilations", ones), spatial, 1)
    if min(*sizes, *strides, *dilations) < 1 or c.attribute("ceil_mode", 0):
        raise c.refuse("an empty window, or ceil_mode")
    pads = c.integers("pads", (0,) * (2 * spatial))
    before = _pair(c, pads[:spatial], spatial, 0)
    after = _pair(c, pads[spatial:], spatial, 0)
    auto = c.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        extents = (shape[-2] if spatial == 2 else 1, shape[-1])
        totals = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(extents, sizes, strides, dilations, strict=True)
        ]
        less = tuple(total // 2 for total in totals)
        more = tuple(total - total // 2 for total in totals)
        before, after = (less, more) if auto == "SAME_UPPER" else (more, less)  # type: ignore[assignment]
    elif auto not in ("NOTSET", "VALID"):
        raise c.refuse(f"auto_pad {auto}")
    return Window(sizes, strides, before, after, dilations)


class _Images:
    """A tensor as n x height x width x channels, padded for a window."""

    def __init__(self, t: Trace, c: Call, x: Tensor, window: Window) -> None:
        self.shape = x.shape
        channels = x.shape[1]
        height, width = (1, x.shape[2]) if len(x.shape) == 3 else x.shape[2:]
        images = t.transpose(t.reshape(x, (1, channels, height, width)), (0, 2, 3, 1))
        for axis in (0, 1):
            images = padded(t, c, images, axis + 1, window.before[axis], window.after[axis])
        _, self.height, self.width, self.channels = images.shape
        self.images, self.inner = images, (height, width)
        self.register = t.rows(images, *images.shape)

    def back(self, t: Trace, register: int, channels: int, counts: tuple[int, int]) -> Tensor:
        """Return n x height x width x channels as ONNX has it."""
        moved = t.transpose(t.place(register, (1, *counts, channels)), (0, 3, 1, 2))
        spatial = counts if len(self.shape) == 4 else counts[1:]
        return t.reshape(moved, (1, channels, *spatial))


def _stride(c: Call, window: Window, kernel: tuple[int, int], images: _Images) -> int:
    """Return the one stride of both axes; an axis of one window takes any that adds none."""
    spare = [n - k for k, n in zip(kernel, (images.height, images.width), strict=True)]
    if min(spare) < 0:
        raise c.refuse(f"a window of {kernel} in images of {images.height} x {images.width}")
    moving = {s for s, more in zip(window.strides, spare, strict=True) if s <= more}
    stride = max(moving, default=max(spare) + 1)
    if any((more // stride) != more // s for s, more in zip(window.strides, spare, strict=True)):
        raise c.refuse(f"strides {window.strides}; they have to be equal")
    return stride


def _counts(images: _Images, kernel: tuple[int, int], stride: int) -> tuple[int, int]:
    return (images.height - kernel[0]) // stride + 1, (images.width - kernel[1]) // stride + 1


def _inside(images: _Images, window: Window) -> tuple[Array, Array]:
    """Return 1 for every line and column of the image, 0 for those of its padding."""
    lines = []
    for size, before, inner in zip(
        (images.height, images.width), window.before, images.inner, strict=True
    ):
        line = np.zeros(size)
        line[before : before + inner] = 1.0
        lines.append(line)
    return lines[0], lines[1]


@rule("Conv")
def _conv(t: Trace, c: Call) -> Result:
    x, weights = c.tensor(0), c.array(1).astype(np.float64)
    if weights.ndim != len(x.shape):
        raise c.refuse(f"weights {list(weights.shape)} for {list(x.shape)}")
    window = window_of(c, x.shape, c.integers("kernel_shape", weights.shape[2:]))
    if tuple(weights.shape[2:]) != tuple(c.integers("kernel_shape", weights.shape[2:])):
        raise c.refuse("kernel_shape is not that of the weights")
    images = _Images(t, c, x, window)
    kernel = _dense(c, weights, images.channels, window)
    size = kernel.shape[1:3]
    stride = _stride(c, window, size, images)
    counts = _counts(images, size, stride)
    require_size((*counts, *size, images.channels), c.where)
    window_rows = t.builder.emit(
        "im2col", images.register, kernel_height=size[0], kernel_width=size[1], stride=stride
    )
    terms = prod(kernel.shape[1:])
    columns = t.place(window_rows, (prod(counts), terms))
    out = t.product(columns, kernel.reshape(len(kernel), terms))
    if c.has(2):
        out = t.meet("add", out, c.array(2), out.shape)
    return images.back(t, t.rows(out, 1, *counts, len(kernel)), len(kernel), counts)


def _dense(c: Call, weights: Array, channels: int, window: Window) -> Array:
    """Return weights as outputs x height x width x all channels, with zeros between and beside."""
    outputs, per_group = weights.shape[:2]
    groups = c.attribute("group", 1)
    if groups < 1 or per_group * groups != channels or outputs % groups:
        raise c.refuse(f"{groups} groups of {per_group} channels, images of {channels}")
    height, width = ((k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True))
    require_size((outputs, height, width, channels), c.where)
    dense = np.zeros((outputs, height, width, channels))
    source = weights.reshape(outputs, per_group, *window.kernel).transpose(0, 2, 3, 1)
    each = outputs // groups
    for g in range(groups):
        rows, columns = slice(g * each, (g + 1) * each), slice(g * per_group, (g + 1) * per_group)
        dense[rows, :: window.dilations[0], :: window.dilations[1], columns] = source[rows]
    return dense


@rule("MaxPool", "AveragePool")
def _pool(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    if len([name for name in c.node.outputs if name]) > 1:
        raise c.refuse("outputs beside the first are not supported")
    window = window_of(c, x.shape, c.integers("kernel_shape"))
    if window.dilations != (1, 1):
        raise c.refuse("dilations are not supported")
    images = _Images(t, c, x, window)
    kernel = window.kernel
    stride = _stride(c, window, kernel, images)
    counts = _counts(images, kernel, stride)
    attributes = {"kernel_height": kernel[0], "kernel_width": kernel[1], "stride": stride}
    is_padded = any((*window.before, *window.after))
    register = images.register
    if c.node.op == "MaxPool":
        if is_padded:
            rows, columns = _inside(images, window)
            inside = rows[:, None] * columns[None, :]
            edge = np.where(inside > 0, 0.0, MINUS_INFINITY)[:, :, None]
            x = t.meet("add", images.images, edge, images.images.shape)
            register = t.rows(x, *x.shape)
        return images.back(
            t, t.builder.emit("max_pool", register, **attributes), images.channels, counts
        )
    out = t.place(
        t.builder.emit("average_pool", register, **attributes), (1, *counts, images.channels)
    )
    if is_padded and not c.attribute("count_include_pad", 0):
        found = [
            np.array([line[i * stride : i * stride + size].sum() for i in range(count)])
            for line, size, count in zip(_inside(images, window), kernel, counts, strict=True)
        ]
        shares = prod(kernel) / np.maximum(found[0][:, None] * found[1][None, :], 1.0)
        out = t.meet("multiply", out, shares[:, :, None], out.shape)
    return images.back(t, t.rows(out, *out.shape), images.channels, counts)


@rule("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(t: Trace, c: Call) -> Result:
    x = c.tensor(0)
    if len(x.shape) < 3:
        raise c.refuse(f"takes n x channels x height x width, not {list(x.shape)}")
    *lead, size = t.last(x, range(2, len(x.shape))).shape
    flat = t.reshape(x, (*x.shape[:2], size))
    shape = (*x.shape[:2], *[1] * (len(x.shape) - 2))
    if c.node.op == "GlobalMaxPool":
        found = t.builder.emit("row_maximum", t.rows(flat, prod(lead), size))
        return t.place(found, shape)
    return t.emit("scale", t.reshape(t.sum_last(flat), shape), factor=1 / size)
