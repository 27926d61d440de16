"""Transformer over tokens: embeddings, blocks of causal attention, the class of what comes next.

Features are token numbers, one column a place: a dataset made with `tokens=True`. Each
place sees itself and those before it; the head reads the last place, or the mean of all.
"""

from __future__ import annotations

from mlchain.errors import ConfigError
from mlchain.ml_runtime.data import FRACTION
from mlchain.ml_runtime.grid import SUM_BITS
from mlchain.ml_runtime.network import Network

TARGETS = ("class", "value")
POOLS = ("last", "mean")
MAX_VOCABULARY = 1 << FRACTION


def build(
    n: Network,
    x: int,
    *,
    outputs: int,
    vocabulary: int = 256,
    width: int = 64,
    heads: int = 4,
    layers: int = 2,
    pool: str = "last",
    dropout: float = 0.0,
) -> int:
    """Return the register of the scores or predictions.

    Raises:
        ConfigError: sizes below 1, a width that heads do not divide, no such pool.
    """
    b = n.builder
    vocabulary, width, heads, layers = map(int, (vocabulary, width, heads, layers))
    if not 1 <= vocabulary <= MAX_VOCABULARY:
        raise ConfigError(f"vocabulary: {vocabulary}", f"a whole number, 1 to {MAX_VOCABULARY}")
    if pool not in POOLS:
        raise ConfigError(f"pool: no {pool!r}", "one of " + ", ".join(POOLS))
    batch, length = b.type(x).shape
    tokens = b.emit("index", x, count=vocabulary, exponent=FRACTION)
    table = n.parameter("tokens", vocabulary, width, limit=0.1)
    places = n.parameter("places", length, width, limit=0.1)
    x = b.emit("gather", b.emit("widen", table), tokens)
    x = n.dropout(b.emit("add", x, b.emit("widen", places)), float(dropout))
    for i in range(1, layers + 1):
        x = block(n, x, heads, True, float(dropout), f"block{i}")
    x = n.layer_norm(x, "norm")
    if pool == "last":
        x = b.emit("slice", x, axis=1, start=length - 1, stop=length)
    else:
        x = mean_of_places(n, x)
    return n.dense(b.reshape(x, (batch, width)), outputs, "out")


def mean_of_places(n: Network, x: int) -> int:
    """Emit the mean over axis 1."""
    b = n.builder
    total = b.emit("sum_axis", b.on_grid(x, SUM_BITS), axis=1)
    return b.emit("scale", total, factor=1 / b.type(x).shape[1])


def block(n: Network, x: int, heads: int, causal: bool, dropout: float, name: str) -> int:
    """Emit x + attention(norm(x)), then the same with a layer of 4 times the width and gelu.

    x is batch x places x width. Source: Vaswani et al., arXiv:1706.03762; norms come first, as in
    Xiong et al., arXiv:2002.04745.
    """
    b = n.builder
    width = b.type(x).shape[2]
    inner = n.attention(n.layer_norm(x, f"{name}.norm1"), heads, causal, name)
    x = b.emit("add", x, n.dropout(inner, dropout))
    wide = n.dense(n.layer_norm(x, f"{name}.norm2"), 4 * width, f"{name}.wide")
    inner = n.dense(b.emit_all("gelu", wide)[0], width, f"{name}.narrow")
    return b.emit("add", x, n.dropout(inner, dropout))
