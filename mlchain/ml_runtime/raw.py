"""A model that reads features as people have them: what was done to them becomes part of it.

Whoever trains scales features and targets first, since a step program sees numbers on a grid near
1. `on_raw_features` puts that in front of the program of predictions, and what it takes to undo
the scaling of targets behind it: one file that needs no notes beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.errors import ConfigError
from mlchain.ml_runtime.grid import PRODUCT_BITS
from mlchain.ml_runtime.importers.writer import Writer
from mlchain.ml_runtime.model import Label, Model
from mlchain.ml_runtime.program import check
from mlchain.ml_runtime.tensor import Array


def on_raw_features(
    model: Model,
    shift: Array,
    spread: Array,
    *,
    classes: Sequence[Label] = (),
    score_shift: float = 0.0,
    score_factor: float = 1.0,
) -> Model:
    """Return the model that reads x where `model` reads (x - shift) / spread, column by column.

    Scores s of values and clusters come out as s * score_factor + score_shift; those of classes
    stay, and `classes` are their labels. Up to that the scores are those of `model` on the scaled
    rows, bit for bit: its exponents become part of the spread, and its rounding to 16 bits an op.

    Raises:
        ConfigError: the model reads raw features already.
    """
    if not model.exponents:
        raise ConfigError("model: it reads raw features already")
    checked = check(model.predict)
    x, *kinds = model.predict.inputs
    w = Writer(model.features, x.shape[0])
    spread = np.ldexp(spread, np.array(model.exponents))
    scaled = w.settle(w.x.then("subtract", shift).then("divide", spread))
    place = {0: w.emit("saturate", scaled, bits=PRODUCT_BITS, exponent=0)}
    for i, (kind, array) in enumerate(zip(kinds, model.tensors(), strict=True), 1):
        place[i] = w.parameter(kind, array)
    for step in checked.steps:
        named = dict(zip(step.op.attributes, step.attrs, strict=True))
        made = w.b.emit_all(step.op.name, *(place[r] for r in step.inputs), **named)
        place.update(zip(step.outputs, made, strict=True))
    scores = place[model.predict.outputs[0]]
    if model.answer != "class" and (score_shift, score_factor) != (0.0, 1.0):
        scores = w.emit("multiply", scores, w.numbers(np.full(model.outputs, score_factor)))
        scores = w.emit("add", scores, w.numbers(np.full(model.outputs, score_shift)))
    return w.model(scores, model.answer, classes if model.answer == "class" else ())
