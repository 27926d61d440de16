"""Vision transformer: patches of an image as places, blocks of attention, the mean of all places.

Source: Dosovitskiy et al., arXiv:2010.11929, with the mean in place of a class token.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlchain.errors import ConfigError
from mlchain.ml_runtime.models.cnn import image_shape
from mlchain.ml_runtime.models.transformer import block, mean_of_places
from mlchain.ml_runtime.network import Network

TARGETS = ("class", "value")


def build(
    n: Network,
    x: int,
    *,
    outputs: int,
    image: Sequence[int] = (),
    patch: int = 4,
    width: int = 64,
    heads: int = 4,
    layers: int = 2,
    dropout: float = 0.0,
) -> int:
    """Return the register of the scores or predictions.

    Raises:
        ConfigError: the features are no image, patches do not fill it, sizes below 1.
    """
    b, patch, width = n.builder, int(patch), int(width)
    batch, features = b.type(x).shape
    height, columns, depth = image_shape(features, image)
    if patch < 1 or height % patch or columns % patch:
        raise ConfigError(f"patch: {patch} does not divide {height} x {columns}")
    places = (height // patch) * (columns // patch)
    x = b.reshape(x, (batch, height, columns, depth))
    x = b.emit("im2col", x, kernel_height=patch, kernel_width=patch, stride=patch)
    x = b.reshape(n.dense(x, width, "patches"), (batch, places, width))
    where = n.parameter("places", places, width, limit=0.1)
    x = n.dropout(b.emit("add", x, b.emit("widen", where)), float(dropout))
    for i in range(1, int(layers) + 1):
        x = block(n, x, int(heads), False, float(dropout), f"block{i}")
    return n.dense(mean_of_places(n, n.layer_norm(x, "norm")), outputs, "out")
