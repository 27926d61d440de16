"""Job files: a training job as people write it, in TOML.

    [job]
    name = "digits"             # 1 to 64 characters
    tier = "audited"            # economic, audited: secret samples are re-run; covered:2: every
                                # chunk by 2 validators; replicated: everything by everybody
    fee  = 2_000_000            # micro-credits, held until each segment is final

    [data]
    source        = "sklearn:digits"    # or a table's content id, or a file beside this one: .csv,
                                        # .npz, .parquet, or images as idx
    target        = "species"           # CSV: the column to predict, by default the last
    test_fraction = 0.2                 # of the shuffled rows, kept for the final score

    [model]
    kind   = "mlp"              # linear, softmax, mlp, cnn, transformer, vit, logistic, svm; or,
                                # with no optimiser and no rate: ridge, perceptron,
                                # nearest_centroid, gaussian_nb, multinomial_nb, kmeans
    hidden = [64]               # mlp and cnn: widths of hidden layers
    dropout = 0.1               # mlp, cnn, transformer, vit
    image = [28, 28, 1]         # cnn and vit: height, width, channels of a row
    channels = [8, 16]          # cnn: one convolution each, with windows of kernel x kernel
    kernel = 3
    patch = 4                   # vit: side of the patches
    width = 64                  # transformer and vit, as heads = 4 and layers = 2
    vocabulary = 256            # transformer: columns are token numbers below this
    alpha = 1                   # ridge: the penalty; multinomial_nb: added to every count
    clusters = 3                # kmeans: how many groups; with mini_batch = true for parts of data

    [training]
    optimiser = "adam"          # sgd, momentum, adam
    rate      = 0.002
    schedule  = "linear"        # constant, linear, root, step; with warmup = 100,
                                # decay_steps = 4000 and, for step, decay_factor = 0.1
    weight_decay = 0.01
    batch     = 32
    steps     = 4000            # or epochs = 90
    chunk     = 4               # steps between two committed states: what a validator re-runs
    segments  = 4               # parts paid and assigned one by one
    seed      = 7               # optional: the same model on every chain; left out, the chain draws

A mistake is answered with the file, the line, what stands there and what may stand there.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from mlchain.client.userfile import read_file
from mlchain.consensus.work.assurance import NAMES, parse_tier
from mlchain.errors import CodecError, ConfigError, InvalidTransaction

MAX_JOB_FILE_BYTES = 64 << 10
MODELS = ("linear", "softmax", "mlp", "cnn", "transformer", "vit", "logistic", "svm")
"""Models that learn by gradient."""
RULES = (
    "ridge", "perceptron", "nearest_centroid", "gaussian_nb", "multinomial_nb", "kmeans",
)  # fmt: skip
"""Models with a rule of their own, which take no optimiser and no rate."""
QUANTITIES = ("linear", "ridge")
"""Models that learn a quantity; `kmeans` groups rows, and all others learn classes."""
OPTIMISERS = ("sgd", "momentum", "adam", "adamw")
SCHEDULES = ("constant", "linear", "root", "step")
MODEL_KEYS = {
    "mlp": ("hidden", "dropout"),
    "cnn": ("hidden", "dropout", "image", "channels", "kernel"),
    "transformer": ("dropout", "width", "heads", "layers", "vocabulary"),
    "vit": ("dropout", "width", "heads", "layers", "image", "patch"),
    "ridge": ("alpha",),
    "multinomial_nb": ("alpha",),
    "kmeans": ("clusters", "mini_batch"),
}
"""What each kind of model may be given beside its kind; the others take nothing."""
SCHEDULE_KEYS = ("schedule", "warmup", "decay_steps", "decay_factor", "weight_decay")


class JobFileError(ConfigError):
    """A job file that cannot be used. `at` says where: pairs (file, path) and (line, number)."""

    def __init__(self, message: str, file: Path, line: int = 0, hint: str = "") -> None:
        super().__init__(message, hint)
        where: list[tuple[str, str | int]] = [("file", str(file))]
        self.at = (*where, ("line", line)) if line else tuple(where)


@dataclass(frozen=True, slots=True)
class JobFile:
    """A checked job file. Of `steps` and `epochs` exactly one is not 0; `fee` in micro-credits.

    `seed` is -1 when the chain is to draw the order of data. A model with a rule of its own has
    the optimiser "" and the rate 0.
    """

    path: Path
    name: str
    tier: str
    fee: int
    source: str
    target: str
    test_fraction: Decimal
    model: str
    options: dict[str, Any]
    """What else was given to the model and to the schedule of the rate, by name."""
    optimiser: str
    rate: Decimal
    momentum: Decimal
    batch: int
    steps: int
    epochs: int
    chunk: int
    segments: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Field:
    """One key: what may stand there in words, the test for it, and the value when left out."""

    allowed: str
    parse: Callable[[Any], Any]
    default: Any = None


def _integer(low: int, high: int, default: int | None = None) -> _Field:
    def parse(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    return _Field(f"a whole number, {low} to {high}", parse, default)


def _number(low: str, high: str, default: str | None = None) -> _Field:
    def parse(value: Any) -> Decimal:
        if type(value) not in (int, Decimal) or not Decimal(low) <= value <= Decimal(high):
            raise ValueError
        return Decimal(value)

    return _Field(
        f"a number, {low} to {high}", parse, None if default is None else Decimal(default)
    )


def _choice(options: tuple[str, ...], default: str | None = None) -> _Field:
    def parse(value: Any) -> str:
        if value not in options:
            raise ValueError
        return str(value)

    return _Field("one of " + ", ".join(f'"{o}"' for o in options), parse, default)


def _tier() -> _Field:
    def parse(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        try:
            return str(parse_tier(value))
        except InvalidTransaction as error:
            raise ValueError from error

    return _Field("one of " + ", ".join(f'"{name}"' for name in NAMES), parse, "audited")


def _text(most: int, default: str | None = None) -> _Field:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not 1 <= len(value) <= most or not value.isprintable():
            raise ValueError
        return value

    return _Field(f"a text of 1 to {most} characters", parse, default)


def _flag() -> _Field:
    def parse(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    return _Field("true or false", parse, False)


def _widths(least: int = 1, most: int = 4) -> _Field:
    def parse(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise ValueError
        if any(type(width) is not int or not 1 <= width <= 4096 for width in value):
            raise ValueError
        return tuple(value)

    count = f"{least} to {most}" if least < most else f"{most}"
    return _Field(f"a list of {count} whole numbers, each 1 to 4096", parse, ())


FIELDS: dict[str, dict[str, _Field]] = {
    "job": {
        "name": _text(64),
        "tier": _tier(),
        "fee": _integer(1, 10**15),
    },
    "data": {
        "source": _text(4096),
        "target": _text(256, ""),
        "test_fraction": _number("0.01", "0.9", "0.2"),
    },
    "model": {
        "kind": _choice((*MODELS, *RULES)),
        "hidden": _widths(),
        "dropout": _number("0", "0.9", "0"),
        "image": _widths(3, 3),
        "channels": _widths(),
        "kernel": _integer(1, 31, 0),
        "patch": _integer(1, 1024, 0),
        "width": _integer(1, 4096, 0),
        "heads": _integer(1, 256, 0),
        "layers": _integer(1, 64, 0),
        "vocabulary": _integer(1, 32768, 0),
        "alpha": _number("0.000001", "1000000", "1"),
        "clusters": _integer(1, 1000, 0),
        "mini_batch": _flag(),
    },
    "training": {
        "optimiser": _choice(OPTIMISERS, "adam"),
        "rate": _number("0.000001", "10", "0"),
        "momentum": _number("0", "0.999", "0.9"),
        "weight_decay": _number("0", "1", "0"),
        "schedule": _choice(SCHEDULES, "constant"),
        "warmup": _integer(0, 10_000_000, 0),
        "decay_steps": _integer(0, 10_000_000, 0),
        "decay_factor": _number("0.000001", "1", "0.1"),
        "batch": _integer(1, 4096),
        "steps": _integer(1, 10_000_000, 0),
        "epochs": _integer(1, 10_000, 0),
        "chunk": _integer(1, 100_000),
        "segments": _integer(1, 1000, 1),
        "seed": _integer(0, 2**63 - 1, -1),
    },
}
"""Every key a job file may hold, by table."""


def load_job_file(path: Path) -> JobFile:
    """Read and check a job file.

    Raises:
        JobFileError: missing, not TOML, or a value that may not stand where it stands.
    """
    try:
        text = read_file(
            path, MAX_JOB_FILE_BYTES, "examples/iris.toml shows what a job is"
        ).decode()
    except (CodecError, ConfigError) as error:
        raise JobFileError(error.message, path, hint=error.hint) from error
    except UnicodeDecodeError as error:
        raise JobFileError(f"{path}: not UTF-8 text", path) from error
    return parse_job_file(text, path)


def parse_job_file(text: str, path: Path) -> JobFile:
    """Check the text of a job file; `path` names it in errors and is where its data is looked for.

    Raises:
        JobFileError: see `load_job_file`.
    """
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise JobFileError(f"{path}: not TOML: {error}", path) from error
    reader = _Reader(text, path, document)
    values = reader.read_all()
    reader.check_together(values)
    kind, keys = values.pop("kind"), (*FIELDS["model"], *SCHEDULE_KEYS)
    read = {key: values.pop(key) for key in keys if key in values}
    options = {key: value for key, value in read.items() if key in reader.given}
    if kind in RULES:
        values["optimiser"] = ""
    return JobFile(path=path, model=kind, options=options, **values)


class _Reader:
    """The document beside its text, so that every complaint can name a line."""

    def __init__(self, text: str, path: Path, document: dict[str, Any]) -> None:
        self.lines = text.splitlines()
        self.path = path
        self.document = document
        self.given: set[str] = set()

    def read_all(self) -> dict[str, Any]:
        """Return every field's value by key (the keys of all tables are distinct)."""
        for name, table in self.document.items():
            if name not in FIELDS:
                self.refuse("", name, "tables: " + ", ".join(FIELDS))
            if not isinstance(table, dict):
                self.refuse("", name, f"[{name}] must be a table")
            for key in table:
                if key not in FIELDS[name]:
                    self.refuse(name, key, f"keys of [{name}]: " + ", ".join(FIELDS[name]))
        values: dict[str, Any] = {}
        for name, fields in FIELDS.items():
            table = self.document.get(name, {})
            for key, field in fields.items():
                if key in table:
                    self.given.add(key)
                    try:
                        values[key] = field.parse(table[key])
                    except (ValueError, ArithmeticError):
                        self.refuse(name, key, f"{key} must be {field.allowed}")
                elif field.default is None:
                    self.refuse(name, key, f"{key} must be {field.allowed}")
                else:
                    values[key] = field.default
        return values

    def check_together(self, values: dict[str, Any]) -> None:
        """Check the rules that join two keys."""
        if values["kind"] == "mlp" and not values["hidden"]:
            self.refuse("model", "hidden", "an mlp needs hidden, as in hidden = [64]")
        if values["kind"] == "kmeans" and not values["clusters"]:
            self.refuse("model", "clusters", "kmeans needs clusters, as in clusters = 3")
        self._check_rule(values["kind"])
        taken = MODEL_KEYS.get(values["kind"], ())
        for key in self.document.get("model", {}):
            if key != "kind" and key not in taken:
                takers = ", ".join(kind for kind, keys in MODEL_KEYS.items() if key in keys)
                self.refuse("model", key, f"{key} is for {takers}")
        if values["steps"] and values["epochs"]:
            self.refuse("training", "epochs", "give steps or epochs, not both")
        if not values["steps"] and not values["epochs"]:
            self.refuse("training", "steps", "give steps or epochs")
        if values["optimiser"] != "momentum" and "momentum" in self.document.get("training", {}):
            self.refuse("training", "momentum", 'only the optimiser "momentum" has one')

    def _check_rule(self, kind: str) -> None:
        """Check that what learns by gradient has a rate, and nothing else has one."""
        if kind not in RULES:
            if "rate" not in self.given:
                self.refuse(
                    "training", "rate", f"rate must be {FIELDS['training']['rate'].allowed}"
                )
            return
        for key in ("optimiser", "rate", "momentum", *SCHEDULE_KEYS):
            if key in self.given:
                self.refuse("training", key, f"{kind} learns by a rule of its own, without {key}")

    def refuse(self, table: str, key: str, allowed: str) -> None:
        """Raise the error that points at `key` of `table`."""
        line, found = self.find(table, key)
        place = (
            f"{self.path}, line {line}: {found}"
            if line
            else f"{self.path}: [{table}] {key} missing"
        )
        raise JobFileError(f"{place}\n  {allowed}", self.path, line)

    def find(self, table: str, key: str) -> tuple[int, str]:
        """Return the line (from 1) where `key` of `table` is set and its text, or (0, "").

        tomllib tells no lines for values, so this looks for `key =` under `[table]`, for
        `table.key =`, and for the header itself when `table` is "".
        """
        current = ""
        for number, line in enumerate(self.lines, 1):
            bare = line.split("#")[0].strip() if '"' not in line else line.strip()
            if bare.startswith("["):
                current = bare.strip("[]").strip()
                if table == "" and current.split(".")[0] == key:
                    return number, bare
                continue
            name = bare.partition("=")[0].strip().strip("\"'")
            if (current == table and name.split(".")[0] == key) or (
                current == "" and name == f"{table}.{key}"
            ):
                return number, bare
        return 0, ""
