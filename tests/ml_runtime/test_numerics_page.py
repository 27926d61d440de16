"""docs/numerics.md is complete: a runtime written from it alone reproduces every vector."""

from __future__ import annotations

import ast
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import second_functions
import second_runtime
from second_runtime import ELEMENT, Training, Trapped, decode, philox, run, words

VECTORS = Path(__file__).parent.parent / "vectors" / "ml_runtime"


def load(name: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / f"{name}.json").read_text())


def test_the_tables_have_the_digest_on_the_page():
    assert load("tables")[0]["digest"] == second_functions.TABLE_DIGEST


def test_the_words_are_those_of_the_vectors():
    for case in load("philox"):
        assert philox(case["counter"], case["key"]) == case["words"]
    assert words(b"\x07" * 32, "order", 3, 5)[:4] == load("philox")[6]["words"]


@pytest.mark.parametrize("case", load("trainings"), ids=lambda case: case["name"])
def test_every_training_comes_out_as_in_the_vectors(case):
    parts = (bytes.fromhex(case[name]) for name in ("task", "dataset", "seed"))
    training = Training(*parts)
    digests, trap, state = training.train()
    assert (digests, trap) == (case["digests"], case["trap_step"])
    assert trap is not None or training.score(state).hex() == case["metrics"]


@pytest.mark.parametrize("case", load("programs"), ids=lambda case: f"seed {case['seed']}")
def test_every_op_of_every_program_gives_its_digest(case):
    program = decode(bytes.fromhex(case["program"]))
    inputs = []
    for (letter, _, shape), raw in zip(program[0], case["inputs"], strict=True):
        layout = f"<{math.prod(shape)}{ELEMENT[letter]}"
        inputs.append(list(struct.unpack(layout, bytes.fromhex(raw))))
    trace: list[str] = []
    try:
        results = run(program, inputs, trace)
        trapped = not all(math.isfinite(v) for numbers in results for v in numbers)
    except Trapped:
        trapped = True
    assert trace == case["digests"]
    assert trapped == bool(case["trap"])


def test_it_is_another_runtime():
    files = Path(second_runtime.__file__).parent.glob("second_*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    assert not [name for name in names if str(name).split(".")[0] in ("mlchain", "numpy")]
