"""The tables of the pages in docs/ that are made from the code, so that they cannot say otherwise.

    PYTHONPATH=. python tests/doc_tables.py

writes them anew between `<!-- table: NAME -->` and `<!-- end -->`; `test_docs.py` says when that is
due.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import click

from mlchain import errors
from mlchain.cli.failure import EXIT_CODES, describe
from mlchain.client.jobfile import FIELDS
from mlchain.consensus.work.assurance import Tier, slice_size
from mlchain.consensus.work.sampling import miss_probability
from mlchain.ml_runtime.importers.onnx import supported
from mlchain.ml_runtime.importers.onnx.export_rules import EXPORTS
from mlchain.ml_runtime.importers.sklearn import FINAL, TRANSFORMERS
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.op import OPS
from mlchain.sim.work.cheats import CHEATS
from mlchain.web.problems import CODES, FETCHING, MEANINGS, STATUS, classify

ROOT = Path(__file__).parent.parent

_BLOCK = re.compile(r"<!-- table: ([a-z-]+) -->\n(.*?)<!-- end -->", re.DOTALL)

KEY_MEANINGS = {
    "job.name": "For people; need not be unique.",
    "job.tier": "How much validators re-run: secret samples, every chunk r times, or everything.",
    "job.fee": "Micro-credits, held until each segment is final. What is not earned comes back.",
    "data.source": "`sklearn:` and a bundled set, a table's content id, or a file beside this one.",
    "data.target": "CSV and Parquet: the column to predict. Left out: the last one.",
    "data.test_fraction": "Share of the shuffled rows that is kept for the final score.",
    "model.kind": "`linear` and `ridge` learn a quantity, `kmeans` groups rows, the others learn "
    "classes.",
    "model.hidden": "`mlp`, where it must be given, and `cnn`: widths of hidden layers.",
    "model.dropout": "`mlp`, `cnn`, `transformer`, `vit`: share of units dropped in training.",
    "model.image": "`cnn`, `vit`: height, width, channels of a row. Left out: square and grey.",
    "model.channels": "`cnn`: channels of its convolutions, one each. Left out: 8, 16.",
    "model.kernel": "`cnn`: side of a convolution's window, odd. Left out: 3.",
    "model.patch": "`vit`: side of the patches an image is cut into. Left out: 4.",
    "model.width": "`transformer`, `vit`: numbers for each place. Left out: 64.",
    "model.heads": "`transformer`, `vit`: heads of attention; they divide the width. Left out: 4.",
    "model.layers": "`transformer`, `vit`: blocks. Left out: 2.",
    "model.vocabulary": "`transformer`: how many tokens there are; columns hold their numbers. "
    "Left out: 256.",
    "model.alpha": "`ridge`: the penalty on weights. `multinomial_nb`: added to every count. "
    "Left out: 1.",
    "model.clusters": "`kmeans` only, and there it must be given: how many groups.",
    "model.mini_batch": "`kmeans`: whether a step's batch is a part of the data only.",
    "training.optimiser": "How a step changes the weights. Not for a model with a rule of its own.",
    "training.rate": "Learning rate; becomes the nearest binary64 once, when the job is signed. "
    "Must be given to what learns by gradient.",
    "training.momentum": "Only for the optimiser `momentum`.",
    "training.weight_decay": "Pulls weights to 0; `adamw` does so apart from the gradient.",
    "training.schedule": "How the rate changes with the steps after the warm-up.",
    "training.warmup": "Steps in which the rate rises from 0; `root` needs them.",
    "training.decay_steps": "`linear`: the step the rate is 0 at. `step`: steps between falls.",
    "training.decay_factor": "`step`: what the rate is multiplied by at each fall.",
    "training.batch": "Rows of one step; at most the training rows.",
    "training.steps": "Number of steps. Give this or `epochs`, not both.",
    "training.epochs": "Passes over the training rows; the number of steps follows.",
    "training.chunk": "Steps between two committed states: one slice, what a validator re-runs.",
    "training.segments": "Parts that are assigned, checked and paid one by one.",
    "training.seed": "Fixes order and first weights on every chain. Left out: the chain draws.",
}


def admission() -> Iterator[Sequence[str]]:
    """What forging always and admitting when found brings, in costs of a segment."""
    yield "chunks N", "forged b", "saved b ÷ N", "found q", "brings"
    for total in (100, 1000, 10_000):
        size = slice_size(Tier("audited"), total, total, 4)
        for forged in dict.fromkeys((1, total // 100, total // 10, total)):
            found = 1 - miss_probability(total, size, forged) ** 3
            saved = Fraction(forged, total)
            brings = saved - found * Fraction(11, 10)
            yield (
                f"{total:,}".replace(",", " "), str(forged), f"{float(saved):.4f}",
                f"{float(found):.4f}", f"{float(brings):+.4f}",
            )  # fmt: skip


def job_file() -> Iterator[Sequence[str]]:
    """Every key of a job file."""
    yield "key", "may be", "left out", ""
    for table, fields in FIELDS.items():
        for key, field in fields.items():
            unset = (0, -1, "", ()).count(field.default) > 0
            default = "must be given" if field.default is None else "–" if unset else field.default
            name = f"{table}.{key}"
            yield f"`{name}`", field.allowed, str(default), KEY_MEANINGS[name]


def exit_codes() -> Iterator[Sequence[str]]:
    """Every exit code, and the errors that lead to it."""
    yield "exit", "code", "errors"
    kinds = [kind for kind, _ in error_kinds()]
    for code, status in EXIT_CODES.items():
        mine = [f"`{k.__name__}`" for k in kinds if describe(k("x"), []).code == code]
        yield str(status), f"`{code}`", ", ".join(mine) or "–"


def error_classes() -> Iterator[Sequence[str]]:
    """Every error class: what it means, and what it becomes."""
    yield "class", "meaning", "exit", "HTTP"
    for kind, depth in error_kinds():
        meaning = (kind.__doc__ or "").split("\n")[0]
        status, http = describe(kind("x"), []).exit_code, classify(kind("x"))[0]
        yield "› " * depth + f"`{kind.__name__}`", meaning, str(status), str(http)


def problem_codes() -> Iterator[Sequence[str]]:
    """Every code of a problem that the API answers."""
    yield "status", "code", "means"
    for status, code in sorted({FETCHING, *CODES.items(), *((row[1], row[2]) for row in STATUS)}):
        yield str(status), f"`{code}`", MEANINGS[code]


def error_kinds() -> Iterator[tuple[type[errors.MlchainError], int]]:
    """Every class below the root with its depth, in the order of the source."""

    def visit(parent: type[errors.MlchainError], depth: int) -> Iterator[tuple[type, int]]:
        for kind in parent.__subclasses__():
            if kind.__module__ == errors.__name__:
                yield kind, depth
                yield from visit(kind, depth + 1)

    yield from visit(errors.MlchainError, 0)


def node_options() -> Iterator[Sequence[str]]:
    """Every option of `mlchain node`."""
    from mlchain.cli.node import command
    from mlchain.node.config import KEYS

    yield "flag", "key in `[node]`, variable", "meaning"
    for option in command.params:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        key = option.name or ""
        names = f"`{key}`, `MLCHAIN_{key.upper()}`" if key in KEYS else "–"
        flags = ", ".join(f"`{flag}`" for flag in option.opts)
        yield flags, names, option.help or ""


def ops() -> Iterator[Sequence[str]]:
    """Every op of the exact runtime."""
    yield "op", "reads", "attributes", "result"
    for name, op in sorted(OPS.items()):
        attributes = ", ".join(f"{key} ({kind.value})" for key, kind in op.attributes.items())
        text = " ".join((op.__doc__ or "").split())
        yield f"`{name}`", str(op.arity), attributes or "–", text


def onnx() -> Iterator[Sequence[str]]:
    """What is read from ONNX files, and what is written."""
    yield "", ""
    names = supported()
    classic = [n.removeprefix("ai.onnx.ml.") for n in names if n.startswith("ai.onnx.ml.")]
    main = [n for n in names if "." not in n]
    yield "read, `ai.onnx`", ", ".join(main)
    yield "read, `ai.onnx.ml`", ", ".join(classic)
    yield "our ops that are written", ", ".join(f"`{name}`" for name in sorted(EXPORTS))


def sklearn_classes() -> Iterator[Sequence[str]]:
    """What is read of scikit-learn."""
    yield "", ""
    yield "transform", ", ".join(f"`{name}`" for name in sorted(TRANSFORMERS))
    yield "answer", ", ".join(f"`{name}`" for name in sorted(FINAL))


def models() -> Iterator[Sequence[str]]:
    """Every model that can be trained."""
    yield "model", "learns", "how", ""
    for name, module in MODELS.items():
        how = "gradient" if hasattr(module, "build") else "own step"
        what = (module.__doc__ or "").split("\n\n")[0].removesuffix(".").replace("\n", " ")
        yield f"`{name}`", ", ".join(module.TARGETS), how, what


def adversaries() -> Iterator[Sequence[str]]:
    """The adversaries of `mlchain sim --world work`, by the row of the attack table they play."""
    yield "`--adversary`", "plays at", "does", "row"
    rows = [
        (kind.row.split()[0], name, kind.corrupts, (kind.__doc__ or "").split("\n\n")[0], kind.row)
        for name, kind in CHEATS.items()
    ]
    for number, name, role, words, row in sorted(rows, key=lambda r: (int(r[0]), r[1])):
        text = " ".join(words.split()).replace("|", "/")
        yield f"`{name}`", role, text, f"{number}: {row.removeprefix(number).strip()}"


TABLES: dict[str, Callable[[], Iterator[Sequence[str]]]] = {
    "admission": admission,
    "adversaries": adversaries,
    "job-file": job_file,
    "exit-codes": exit_codes,
    "problems": problem_codes,
    "errors": error_classes,
    "node-options": node_options,
    "ops": ops,
    "onnx": onnx,
    "models": models,
    "sklearn": sklearn_classes,
}


def render(name: str) -> str:
    """Return a table as Markdown."""
    header, *rows = TABLES[name]()
    lines = [header, ["---"] * len(header), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join("| " + " | ".join(line) + " |\n" for line in cells)


def refresh(text: str) -> str:
    """Return a page with its tables made anew."""
    return _BLOCK.sub(lambda m: f"<!-- table: {m[1]} -->\n{render(m[1])}<!-- end -->", text)


def main() -> None:
    """Write every page that has such tables."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        if (fresh := refresh(text)) != text:
            page.write_text(fresh)
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
