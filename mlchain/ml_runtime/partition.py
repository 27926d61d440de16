"""Parts of a dataset, drawn by a seed: who has the dataset and the seed has every part.

The last `test_rows` rows are no part of the draw and end every part, so that all parts, and what is
merged from them, are measured on the same rows. The n rows before them are put in the order of
`random.permutation` under the stream ("partition", 0) of the seed; part i of k takes those from
i n / k, rounded down, up to where part i + 1 begins. A part keeps the drawn order, and the column
exponents of the dataset: its numbers are the dataset's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from msgspec.structs import replace

from mlchain.errors import ConfigError
from mlchain.ml_runtime.data import Dataset
from mlchain.ml_runtime.random import make_key, permutation
from mlchain.ml_runtime.tensor import Array


def draw_rows(seed: bytes, rows: int, parts: int) -> list[Array]:
    """Return for each part the numbers of its rows, of 0 to rows - 1, in drawn order.

    Each row is in one part; sizes differ by one at most.

    Raises:
        ConfigError: fewer rows than parts.
    """
    if not 1 <= parts <= rows:
        raise ConfigError(f"{rows} rows do not make {parts} parts")
    order = permutation(make_key(seed, "partition", 0), rows)
    ends = [i * rows // parts for i in range(parts + 1)]
    return [order[start:stop] for start, stop in pairwise(ends)]


def partition(dataset: Dataset, seed: bytes, parts: int, test_rows: int) -> Iterator[Dataset]:
    """Yield the parts of a dataset in order, each followed by the `test_rows` last rows.

    Raises:
        ConfigError: as `draw_rows`.
    """
    drawn = draw_rows(seed, dataset.rows - test_rows, parts)
    kept = np.arange(dataset.rows - test_rows, dataset.rows)
    for numbers in drawn:
        rows = np.concatenate([numbers, kept])
        header = replace(dataset.header, rows=len(rows))
        yield Dataset(header, dataset.x[rows], dataset.y[rows])
