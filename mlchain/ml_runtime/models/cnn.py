"""Convolutional net: for each of `channels` a convolution, relu and pooling; then `hidden`."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from mlchain.errors import ConfigError
from mlchain.ml_runtime.network import Network

TARGETS = ("class", "value")
POOLINGS = {"max": "max_pool", "average": "average_pool"}


def image_shape(features: int, image: Sequence[int]) -> tuple[int, int, int]:
    """Return height, width and channels of rows that are images; without `image` square and grey.

    Raises:
        ConfigError: the features are no such image.
    """
    side = isqrt(features)
    sizes = [int(size) for size in image] or [side, side, 1]
    if len(sizes) != 3 or min(sizes) < 1 or sizes[0] * sizes[1] * sizes[2] != features:
        raise ConfigError(
            f"image: {sizes} is not {features} features", "give image = height, width, channels"
        )
    return sizes[0], sizes[1], sizes[2]


def build(
    n: Network,
    x: int,
    *,
    outputs: int,
    image: Sequence[int] = (),
    channels: Sequence[int] = (8, 16),
    kernel: int = 3,
    pooling: str = "max",
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
) -> int:
    """Return the register of the scores or predictions.

    A pooling halves height and width where both are at least 2.

    Raises:
        ConfigError: the features are no image, a layer is empty, an even kernel, no such pooling.
    """
    b, kernel = n.builder, int(kernel)
    batch, features = b.type(x).shape
    sizes = [int(v) for v in (*channels, *hidden)]
    if kernel < 1 or kernel % 2 == 0 or min(sizes, default=1) < 1:
        raise ConfigError(
            f"cnn: kernel {kernel}, layers {sizes}", "an odd kernel, layers of 1 or more"
        )
    if pooling not in POOLINGS:
        raise ConfigError(f"pooling: no {pooling!r}", "one of " + ", ".join(POOLINGS))
    x = b.reshape(x, (batch, *image_shape(features, image)))
    for i, width in enumerate(map(int, channels), 1):
        x = b.emit("relu", n.convolve(x, width, kernel, f"conv{i}"))
        if min(b.type(x).shape[1:3]) >= 2:
            x = b.emit(POOLINGS[pooling], x, kernel_height=2, kernel_width=2, stride=2)
    _, height, columns, depth = b.type(x).shape
    x = n.dropout(b.reshape(x, (batch, height * columns * depth)), float(dropout))
    for i, width in enumerate(map(int, hidden), 1):
        x = n.dropout(b.emit("relu", n.dense(x, width, f"hidden{i}")), float(dropout))
    return n.dense(x, outputs, "out")
