"""The model file: a program, its parameters, and what its scores mean. Complete in itself.

A model trained on the chain and one imported from another library are the same thing here: rows of
raw features go in, and out come labels, values, clusters or transformed features. Nothing in a file
is trusted: sizes are checked before arrays are made, and every number against the type it has.

On disk: `MAGIC`, then the canonical encoding of `Model`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from mlchain import codec
from mlchain.codec import Record
from mlchain.errors import CodecError, ConfigError, NotFound, RejectedProgram
from mlchain.ml_runtime import grid
from mlchain.ml_runtime.data import FRACTION, Exponent, is_in_range, quantise_rows
from mlchain.ml_runtime.machine import Backend, NumpyBackend, Run, plan_arena, require_finite
from mlchain.ml_runtime.plan import MAX_ARENA_BYTES, MAX_FEATURES, MAX_OUTPUTS, MAX_STATE_BYTES
from mlchain.ml_runtime.program import MAX_TENSORS, Checked, Node, Program, check
from mlchain.ml_runtime.state import is_state
from mlchain.ml_runtime.tensor import Array, Type, allocate, finite, storage
from mlchain.ml_runtime.tensor import grid as grid_type

MAGIC = b"mlchain.model/1\n"
MAX_MODEL_BYTES = MAX_STATE_BYTES + (16 << 20)
ANSWERS = ("class", "value", "cluster", "features")

BLOCK_ELEMENTS = 1 << 17
"""Rows are taken in blocks whose widest tensor stays near this, so that it stays in the cache."""
MAX_BLOCK_ROWS = 1 << 10

Label = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(max_length=256)]


class Model(Record, frozen=True):
    """A model: the program of predictions (x, parameters -> scores), the parameters, the answer.

    The program reads either mantissas, x: G(16)[batch, features], made from raw features by
    `exponents`, one a feature; or the raw features themselves, x: F[batch, features], and then
    `exponents` is empty. Its result is F[batch, outputs].
    """

    predict: Program
    parameters: Annotated[tuple[bytes, ...], Meta(max_length=MAX_TENSORS)]
    """Little-endian elements of each parameter as its type is stored, in order."""
    exponents: Annotated[tuple[Exponent, ...], Meta(max_length=MAX_FEATURES)]
    outputs: Annotated[int, Meta(ge=1, le=MAX_OUTPUTS)]
    answer: Annotated[str, Meta(pattern="^(class|value|cluster|features)$")]
    """What the scores of a row are: "class" or "cluster", the first largest of them names the
    column; "value" or "features", they are the answer themselves."""
    classes: Annotated[tuple[Label, ...], Meta(max_length=MAX_OUTPUTS)]
    """Labels of the columns if the answer is a class; none: the columns' numbers. Two labels for
    one column: the second where the score is above 0, else the first."""

    @property
    def features(self) -> int:
        """Number of raw features of a row."""
        return self.predict.inputs[0].shape[1]

    def encode(self) -> bytes:
        """Return the bytes of the model file."""
        return MAGIC + codec.encode(self)

    @staticmethod
    def decode(data: bytes) -> Model:
        """Return the model whose file is `data`, examined: it is ready to predict.

        Raises:
            CodecError: no model file, too large, or not canonical.
            RejectedProgram: its parts do not fit together, or a number is none of its type.
        """
        if not data.startswith(MAGIC):
            raise CodecError("model: not a model file", "it begins with " + repr(MAGIC.decode()))
        model = codec.decode(Model, data[len(MAGIC) :], MAX_MODEL_BYTES)
        model.tensors()
        return model

    def save(self, path: str | Path) -> None:
        """Write the model file."""
        Path(path).write_bytes(self.encode())

    def check(self) -> Checked:
        """Return the checked program of a file whose parts fit together.

        Looks at types and sizes only; `tensors` looks at the numbers.

        Raises:
            RejectedProgram: says what does not fit.
        """
        checked = check(self.predict)
        if len(self.predict.outputs) != 1 or not self.predict.inputs:
            raise RejectedProgram("model: the program does not read x and give scores")
        x, *parameters = self.predict.inputs
        mantissas = grid_type(grid.PRODUCT_BITS, *x.shape)
        if len(x.shape) != 2 or x != (mantissas if self.exponents else finite(*x.shape)):
            raise RejectedProgram(f"model: x is {x}, not F[rows, features] or G(16) with exponents")
        if self.exponents and len(self.exponents) != x.shape[1]:
            raise RejectedProgram(f"model: {len(self.exponents)} exponents, not {x.shape[1]}")
        result, wanted = checked.types[self.predict.outputs[0]], finite(x.shape[0], self.outputs)
        if result != wanted:
            raise RejectedProgram(f"model: the result is {result}, not {wanted}")
        sizes = [kind.bytes for kind in parameters]
        if sizes != [len(raw) for raw in self.parameters]:
            raise RejectedProgram("model: the parameters have not the sizes that the program reads")
        if sum(sizes) > MAX_STATE_BYTES or plan_arena(checked)[1] > MAX_ARENA_BYTES:
            raise RejectedProgram("model: needs more memory than a model may")
        is_binary = self.outputs == 1 and len(self.classes) == 2
        if self.classes and (
            self.answer != "class" or not (is_binary or len(self.classes) == self.outputs)
        ):
            raise RejectedProgram("model: the labels do not belong to the columns of scores")
        return checked

    def tensors(self) -> list[Array]:
        """Return the parameters as arrays, each number of the type that it has.

        Raises:
            RejectedProgram: as `check`; or names the parameter with a number that cannot be.
        """
        self.check()
        kinds = self.predict.inputs[1:]
        arrays = []
        for i, (raw, kind) in enumerate(zip(self.parameters, kinds, strict=True)):
            array = np.frombuffer(raw, storage(kind)).reshape(kind.shape)
            if not _is_of(kind, array):
                raise RejectedProgram(f"model: parameter {i} holds a number that is not in {kind}")
            arrays.append(array)
        return arrays

    def scores(self, x: Any, backend: Backend | None = None) -> Array:
        """Return the scores of rows of raw features, rows x outputs; see `Predictor.scores`."""
        return Predictor(self, backend).scores(x)

    def answers(self, x: Any, backend: Backend | None = None) -> Array:
        """Return what the model says about rows of raw features; see `Predictor.answers`."""
        return Predictor(self, backend).answers(x)


def load_model(path: str | Path) -> Model:
    """Return the model of a file; see `Model.decode`.

    Raises:
        NotFound, ConfigError: as `read_file`.
        CodecError, RejectedProgram: as `Model.decode`, naming the file.
    """
    data = read_file(path)
    try:
        return Model.decode(data)
    except (CodecError, RejectedProgram) as error:
        raise type(error)(f"{path}: {error.message}", error.hint) from error


def read_file(path: str | Path) -> bytes:
    """Return the bytes of a file that is not larger than a model may be.

    Raises:
        NotFound: there is no such file.
        ConfigError: it cannot be read, or is too large.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_MODEL_BYTES:
            raise ConfigError(f"{file}: more than {MAX_MODEL_BYTES} bytes")
        return file.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"{file}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


class Predictor:
    """A model made ready once, to be asked many times. Not for two threads at a time.

    Where every op of the program treats rows one by one, they are taken in blocks as large as the
    cache likes; a row's bits do not depend on that. Any other program runs with its own batch.
    """

    def __init__(self, model: Model, backend: Backend | None = None) -> None:
        """Examine `model`. Raises RejectedProgram as `Model.tensors`."""
        self.model = model
        self._tensors = model.tensors()
        self._backend = backend or NumpyBackend()
        checked = check(model.predict)
        batch = model.predict.inputs[0].shape[0]
        self._is_free = is_row_by_row(checked)
        widest = max((t.elements for t in _varying(checked)), default=1)
        rows = BLOCK_ELEMENTS * batch // max(widest, 1)
        self._block = 1 << (min(max(rows, 1), MAX_BLOCK_ROWS).bit_length() - 1)
        self._labels = np.array(model.classes) if model.classes else None
        self._bound: dict[int, tuple[Array, Array, Run]] = {}

    def scores(self, x: Any) -> Array:
        """Return the scores of rows of raw features, rows x outputs.

        Raises:
            ConfigError: another number of features, or a number that is not finite (for a model
                with exponents: that is not 0 or of magnitude 2^-100 to 2^100).
            Trap: a score is not finite.
        """
        model, rows = self.model, np.asarray(x, np.float64)
        if rows.ndim != 2 or rows.shape[1] != model.features:
            raise ConfigError(f"predict: x has to be rows of {model.features} numbers")
        if model.exponents:
            if not is_in_range(rows):
                raise ConfigError("predict: a number is not 0 or of magnitude 2^-100 to 2^100")
            rows = quantise_rows(rows, model.exponents) * 2.0**-FRACTION
        out = np.empty((len(rows), model.outputs))
        start = 0
        while start < len(rows):
            start += self._fill(rows[start:], out[start:])
        return out

    def answers(self, x: Any) -> Array:
        """Return what the model says about each row: a label, a value, a cluster, or features.

        Labels, values of one column and clusters are a vector; everything else rows x outputs.
        Raises as `scores`.
        """
        model, scores = self.model, self.scores(x)
        if model.answer == "features" or (model.answer == "value" and model.outputs > 1):
            return scores
        if model.answer == "value":
            return scores[:, 0]
        if model.outputs == 1 and len(model.classes) == 2:
            columns = (scores[:, 0] > 0).astype(np.int64)
        else:
            columns = scores.argmax(axis=1)
        return columns if self._labels is None else self._labels[columns]

    def _fill(self, rows: Array, out: Array) -> int:
        """Compute the first block of `rows` into `out`; return how many rows that were."""
        x, scores, run = self._bind(len(rows))
        count = min(len(x), len(rows))
        x[:count] = rows[:count]
        # a row of zeros might trap where no row of the caller's does
        x[count:] = rows[count - 1] if self._is_free else 0.0
        with np.errstate(all="ignore"):
            total = np.add.reduce(x, axis=None)  # one pass, though finite numbers may overflow it
        if not (math.isfinite(total) or math.isfinite(grid.peak(x))):
            raise ConfigError("predict: a number is not finite", "fill in missing values first")
        run()
        require_finite([scores])
        out[:count] = scores[:count]
        return count

    def _bind(self, rows: int) -> tuple[Array, Array, Run]:
        """Return x, scores and the program over them, for a block that suits so many rows."""
        program = self.model.predict
        size = program.inputs[0].shape[0]
        if self._is_free:
            size = min(self._block, 1 << (rows - 1).bit_length())
        found = self._bound.get(size)
        if found is None:
            program = with_batch(program, size)
            x, scores = allocate(program.inputs[0]), np.empty((size, self.model.outputs))
            run = self._backend.bind(program, [x, *self._tensors], [scores])
            found = self._bound[size] = x, scores, run
        return found


def with_batch(program: Program, rows: int) -> Program:
    """Return the program for another number of rows of x.

    A reshape writes its first dimension out; that of what depends on x grows with the rows.

    Raises:
        RejectedProgram: the program is refused, or a reshape joins several rows into one.
    """
    x, *parameters = program.inputs
    batch, nodes, depends = x.shape[0], [], {0}
    for node, step in zip(program.nodes, check(program).steps, strict=True):
        if depends.intersection(step.inputs):
            depends.update(step.outputs)
            if node.op == "reshape":
                first, *others = node.attributes
                if first % batch:
                    raise RejectedProgram("reshape: joins rows of the batch")
                node = Node(node.op, node.inputs, (first // batch * rows, *others))
        nodes.append(node)
    resized = Type(x.kind, x.bound, (rows, *x.shape[1:]))
    return Program((resized, *parameters), tuple(nodes), program.outputs)


def is_row_by_row(checked: Checked) -> bool:
    """Whether each row of the result depends on its own row of x alone, as the ops declare it.

    Such a program may be given any number of rows, and must still pass the check with one.
    """
    program, split = checked.program, {0}
    for step in checked.steps:
        flags = [r in split for r in step.inputs]
        if not any(flags):
            continue
        kinds = tuple(checked.types[r] for r in step.inputs)
        try:
            if step.op.sharding(flags, step.attrs, kinds) != "rows":
                return False
        except RejectedProgram:
            return False
        split.update(step.outputs)
    try:
        alone = check(with_batch(program, 1))
    except RejectedProgram:
        return False
    result = program.outputs[0]
    wanted = (1, *checked.types[result].shape[1:])
    return result in split and alone.types[result].shape == wanted


def _varying(checked: Checked) -> list[Type]:
    """Return the types of x and of all that ops fill: what grows with the batch."""
    first = checked.program.inputs[0]
    return [first, *checked.types[len(checked.program.inputs) :]]


def _is_of(kind: Type, array: Array) -> bool:
    """Whether the elements of an array are possible elements of its type."""
    if kind.kind == "I":
        return bool(array.min() >= 0 and array.max() < kind.bound)
    if kind.kind == "S":
        return is_state(array)
    if kind.kind in "GR":
        return grid.is_on_grid(array, kind.bound, by_rows=kind.kind == "R")
    return kind.kind == "F" and not math.isnan(grid.peak(array))
