"""Twins of ops/windows.py: pixel by pixel, sums in the normative order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from math import prod

from mlchain.ml_runtime.oracle.arithmetic import Numbers, Operands, twin

Shape = tuple[int, ...]


def _windows(images: Shape, window: tuple[int, int, int]) -> Iterator[tuple[Shape, list[int]]]:
    """Yield for every window and channel its (n, row, column, channel) and the places of x in it.

    Places stand in the order row after row of the window.
    """
    n, height, width, channels = images
    kh, kw, stride = window
    rows, columns = (height - kh) // stride + 1, (width - kw) // stride + 1
    for at in product(range(n), range(rows), range(columns), range(channels)):
        image, row, column, channel = at
        yield (
            at,
            [
                ((image * height + row * stride + i) * width + column * stride + j) * channels
                + channel
                for i, j in product(range(kh), range(kw))
            ],
        )


def _window(o: Operands) -> tuple[int, int, int]:
    kh, kw, stride = (int(v) for v in o.attrs[-3:])
    return kh, kw, stride


def _images_of(o: Operands) -> Iterator[tuple[int, list[int]]]:
    """Yield the windows of a pooling's image, numbered in C order."""
    images = o.shapes[0] if len(o.attrs) == 3 else o.out
    return ((k, places) for k, (_, places) in enumerate(_windows(images, _window(o))))


@twin("im2col")
def _im2col(o: Operands) -> tuple[Numbers, ...]:
    out, x = [0.0] * prod(o.out), o.ins[0]
    for place, source in _columns(o.shapes[0], o):
        out[place] = x[source]
    return (out,)


@twin("col2im")
def _col2im(o: Operands) -> tuple[Numbers, ...]:
    channels = o.out[3]
    out, g = [0.0] * prod(o.out), o.ins[0]
    kh, kw, _ = _window(o)
    by_place: list[list[tuple[int, int]]] = [[] for _ in range(kh * kw)]
    for place, target in _columns(o.out, o):
        by_place[place // channels % (kh * kw)].append((place, target))
    for pairs in by_place:
        for place, target in pairs:
            out[target] = out[target] + g[place]
    return (out,)


def _columns(images: Shape, o: Operands) -> Iterator[tuple[int, int]]:
    """Yield the place of every element of the rows of windows, and that of its pixel."""
    kh, kw, _ = _window(o)
    channels = images[3]
    for k, (at, places) in enumerate(_windows(images, _window(o))):
        row, channel = k // channels, at[3]
        for index, source in enumerate(places):
            yield (row * kh * kw + index) * channels + channel, source


@twin("max_pool")
def _max_pool(o: Operands) -> tuple[Numbers, ...]:
    x = o.ins[0]
    windows = ([x[i] for i in places] for _, places in _images_of(o))
    return ([math.nan if any(v != v for v in w) else max(w) for w in windows],)


@twin("max_pool_gradient")
def _max_pool_gradient(o: Operands) -> tuple[Numbers, ...]:
    g, x, y = o.ins
    adds: list[tuple[int, int, float]] = []
    for k, (_, places) in enumerate(_windows(o.out, _window(o))):
        first = next((n for n, i in enumerate(places) if x[i] == y[k]), -1)
        adds += [(n, i, g[k] * float(n == first)) for n, i in enumerate(places)]
    return (_added(adds, prod(o.out)),)


@twin("average_pool")
def _average_pool(o: Operands) -> tuple[Numbers, ...]:
    x, out = o.ins[0], []
    kh, kw, _ = _window(o)
    for _, (first, *others) in _images_of(o):
        total = x[first]
        for i in others:
            total = total + x[i]
        out.append(total * (1.0 / (kh * kw)))
    return (out,)


@twin("average_pool_gradient")
def _average_pool_gradient(o: Operands) -> tuple[Numbers, ...]:
    g = o.ins[0]
    kh, kw, _ = _window(o)
    adds = [
        (n, i, g[k] * (1.0 / (kh * kw)))
        for k, places in _images_of(o)
        for n, i in enumerate(places)
    ]
    return (_added(adds, prod(o.out)),)


def _added(adds: list[tuple[int, int, float]], size: int) -> Numbers:
    """Return the sums of (place in a window, pixel, value), places in ascending order."""
    out = [0.0] * size
    for _, pixel, value in sorted(adds, key=lambda add: add[0]):
        out[pixel] = out[pixel] + value
    return out
