"""`mlchain model`: look into model files, and bring models in from other formats and out again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from mlchain.cli import options
from mlchain.cli.command import Group
from mlchain.cli.model_registry import list_, register
from mlchain.cli.output import Output
from mlchain.web.answers import Amount
from mlchain.web.model_answers import RegistryRow

if TYPE_CHECKING:
    from mlchain.ml_runtime.model import Model

FORMATS = {
    ".onnx": ("mlchain.ml_runtime.importers.onnx", "from_onnx", "to_onnx"),
}
"""Suffix of a foreign file: module, its function (bytes, result, answer) -> Model, and its function
Model -> bytes."""

_FILE = click.Path(path_type=Path, dir_okay=False)
_MAX_SHOWN = 12


@click.group(
    "model", cls=Group, examples=("mlchain model show iris.model", "mlchain model import net.onnx")
)
def command() -> None:
    """Look into model files, import and export them, publish them on a chain.

    A model file holds the program, its parameters and what its scores mean, and gives the same
    bits on every machine. Fitted scikit-learn estimators become such files in Python, where they
    live: mlchain.ml_runtime.importers.from_sklearn(estimator).save("my.model").
    """


command.add_command(list_)
command.add_command(register)


class ParameterRow(TypedDict):
    """A tensor of the model."""

    type: str
    bytes: int


class OpRow(TypedDict):
    """One step of the program."""

    op: str
    reads: list[int]
    gives: list[str]
    attributes: dict[str, Any]
    gas: int


class ModelFile(TypedDict):
    """What there is to know about a model file."""

    file: str
    content: str
    bytes: int
    answer: str
    features: int
    outputs: int
    classes: list[Amount]
    exponents: list[int]
    batch: int
    rows_are_independent: bool
    gas_per_row: Amount
    working_bytes: Amount
    parameters: list[ParameterRow]
    ops: list[OpRow]


class SavedFile(TypedDict):
    """A file that was written."""

    file: str
    bytes: int


@command.command(
    "show",
    answers={"model": ModelFile, "registered": RegistryRow},
    examples=("mlchain model show iris.model", "mlchain model show cancer@2"),
)
@click.argument("file", type=_FILE)
@options.url
@click.pass_obj
def show(out: Output, file: Path, url: str) -> None:
    """Show layers, sizes, gas, labels and the content id of a model FILE.

    Of no file but a NAME, NAME@VERSION or content id: what the chain knows of it.
    """
    from mlchain.ml_runtime.model import load_model

    if is_on_chain(file):
        from mlchain.cli.model_registry import entry_lines
        from mlchain.client.client import Client

        with Client(url) as client:
            row = client.registered(str(file))
        out.result("registered", row, entry_lines(row))
        return
    document = describe(load_model(file))
    out.result("model", {"file": str(file), **document}, show_lines(file, document))


@command.command(
    "import",
    answers={"model": ModelFile},
    examples=(
        "mlchain model import net.onnx -o net.model",
        "mlchain model import net.onnx --answer class",
    ),
)
@click.argument("file", type=_FILE)
@click.option("-o", "--output", "target", type=_FILE, help="By default FILE with .model.")
@click.option(
    "--result", default="", help="The result of a graph to compute. By default its first."
)
@click.option(
    "--answer",
    type=click.Choice(["class", "value"]),
    help="What the result means: the best column, or the numbers. By default as the file says.",
)
@click.pass_obj
def import_(out: Output, file: Path, target: Path | None, result: str, answer: str | None) -> None:
    """Turn a file of another format into a model file; a model file is verified and saved again.

    Formats are known by their suffix: .onnx. Nothing in a file is run or unpickled.
    """
    from mlchain.client.userfile import write_file
    from mlchain.ml_runtime.model import load_model, read_file

    target = target or file.with_suffix(".model")
    if file.suffix in FORMATS:
        model: Model = foreign(file, 1)(read_file(file), result, answer or "")
    else:
        model = load_model(file)
    document = describe(model)
    write_file(target, model.encode())
    out.result("model", {"file": str(target), **document}, show_lines(target, document))


@command.command(
    "export",
    answers={"export": SavedFile},
    examples=(
        "mlchain model export iris.model -o iris.onnx",
        "mlchain model export cancer@2 -o cancer.model",
    ),
)
@click.argument("file", type=_FILE)
@options.url
@click.option(
    "-o", "--output", "target", type=_FILE, required=True,
    help="Its suffix is the format: .onnx, or .model for the file as it is.",
)  # fmt: skip
@click.pass_obj
def export(out: Output, file: Path, url: str, target: Path) -> None:
    """Write a model FILE, or a model of the chain, in another format.

    Other programs round as they like: what they answer is close, not equal bit for bit.
    """
    from mlchain.cli.text import good
    from mlchain.client.userfile import write_file

    model = find_model(file, url)
    data: bytes = model.encode() if target.suffix == ".model" else foreign(target, 2)(model)
    write_file(target, data)
    document = {"file": str(target), "bytes": len(data)}
    out.result("export", document, [good(f"{target}  {len(data)} bytes")])


def is_on_chain(file: Path) -> bool:
    """Tell whether an argument that names no file can be the name of a registered model."""
    text = str(file)
    return not file.exists() and "/" not in text and file.suffix not in (".model", *FORMATS)


def find_model(file: Path, url: str) -> Model:
    """Return the model of a file, or of a name on the chain, examined.

    Raises:
        NotFound: there is neither.
        CodecError, RejectedProgram: it is no model.
    """
    from mlchain.ml_runtime.model import Model, load_model

    if not is_on_chain(file):
        return load_model(file)
    from mlchain.client.client import Client

    with Client(url) as client:
        return Model.decode(client.data(str(client.registered(str(file))["content"])))


def foreign(file: Path, place: int) -> Any:
    """Return the function of FORMATS that reads (place 1) or writes (place 2) such a file.

    Raises:
        ConfigError: no such format, or not in this installation.
    """
    import importlib

    from mlchain.errors import ConfigError

    known = "a model file, or one of " + ", ".join(FORMATS)
    if file.suffix not in FORMATS:
        raise ConfigError(f"{file}: the format {file.suffix or 'without suffix'} is unknown", known)
    entry = FORMATS[file.suffix]
    try:
        found = getattr(importlib.import_module(entry[0]), entry[place], None)
    except ImportError as error:
        raise ConfigError(f"{file}: {error}", f"install what {file.suffix} needs") from error
    if found is None:
        raise ConfigError(f"{file}: {('reading', 'writing')[place - 1]} is not supported")
    return found


def describe(model: Model) -> dict[str, Any]:
    """Return what there is to know about a model, for programs."""
    from mlchain.ledger.unixfs import cid_of, cid_text
    from mlchain.ml_runtime.machine import plan_arena
    from mlchain.ml_runtime.model import is_row_by_row

    checked, data = model.check(), model.encode()
    x, *parameters = model.predict.inputs
    ops = []
    for step in checked.steps:
        ins, outs = (tuple(checked.types[r] for r in rs) for rs in (step.inputs, step.outputs))
        named = dict(zip(step.op.attributes, step.attrs, strict=True))
        gas = step.op.cost(ins, outs, step.attrs)
        ops.append(
            {
                "op": step.op.name,
                "reads": list(step.inputs),
                "gives": [str(kind) for kind in outs],
                "attributes": named,
                "gas": gas,
            }
        )
    return {
        "content": cid_text(cid_of(data)),
        "bytes": len(data),
        "answer": model.answer,
        "features": model.features,
        "outputs": model.outputs,
        "classes": list(model.classes),
        "exponents": list(model.exponents),
        "batch": x.shape[0],
        "rows_are_independent": is_row_by_row(checked),
        "gas_per_row": -(-checked.gas // x.shape[0]),
        "working_bytes": plan_arena(checked)[1],
        "parameters": [{"type": str(kind), "bytes": kind.bytes} for kind in parameters],
        "ops": ops,
    }


def show_lines(file: Path, model: dict[str, Any]) -> Iterator[str]:
    """Yield what there is to know about a model, for people."""
    from mlchain.cli.text import credits, dim, table

    exponents = model["exponents"]
    scales = f"on scales 2^{min(exponents)} to 2^{max(exponents)}" if exponents else "as they are"
    labels = ", ".join(map(str, model["classes"][:_MAX_SHOWN]))
    more = "" if len(model["classes"]) <= _MAX_SHOWN else f" and {len(model['classes'])} in all"
    rows = "each for itself, in any batch" if model["rows_are_independent"] else "in its batch only"
    weights = sum(parameter["bytes"] for parameter in model["parameters"])
    yield f"model {file}  {credits(model['bytes'])} bytes"
    yield f"  content     {model['content']}"
    yield f"  reads       {model['features']} features, {scales}"
    yield f"  answers     {model['answer']}" + (f": {labels}{more}" if labels else "")
    yield f"  rows        {rows}"
    yield f"  gas         {credits(model['gas_per_row'])} a row, in batches of {model['batch']}"
    yield f"  parameters  {len(model['parameters'])}, {credits(weights)} bytes"
    yield ""
    lines = [
        (op["op"], _attributes(op["attributes"]), " ".join(op["gives"]), str(op["gas"]))
        for op in model["ops"]
    ]
    for line in table(("op", "with", "gives", "gas"), lines):
        yield "  " + line
    yield ""
    kinds = ", ".join(parameter["type"] for parameter in model["parameters"][:_MAX_SHOWN])
    yield dim(f"  parameters: {kinds}")


def _attributes(attributes: dict[str, Any]) -> str:
    shown = (f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
             for name, value in attributes.items())  # fmt: skip
    return ", ".join(shown)
