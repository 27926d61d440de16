"""docs/fraud-proof.md is complete: claims written from it alone are ours, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ml_factory import SEED
from proof_lab import KEY, Flipping, Lab
from second_runtime import Training
from second_trace import claim
from test_numerics_page import load

from mlchain import codec
from mlchain.ml_runtime import Dataset, Task
from mlchain.ml_runtime.proof import Outcome, Tracer, verify_fraud_proof

PAGE = Path(__file__).parents[2] / "docs" / "fraud-proof.md"


@pytest.mark.parametrize("case", load("trainings"), ids=lambda case: case["name"])
def test_every_claim_comes_out_as_the_page_says(case):
    task, data, seed = (bytes.fromhex(case[name]) for name in ("task", "dataset", "seed"))
    training = Training(task, data, seed)
    tracer = Tracer(codec.decode(Task, task), Dataset.decode(data), seed)
    state = tracer.trainer.initial_state()
    last = len(case["digests"]) - 1 - (case["trap_step"] is None)
    for chunk in sorted({0, last - 1, last} & set(range(tracer.trainer.task.chunks))):
        start = state
        for index in range(chunk):
            start = tracer.trainer.run_chunk(index, start)
        numbers = [t.reshape(-1).tolist() for t in start.tensors]
        ours = tracer.trace(chunk, start).claim
        assert claim(task, training, chunk, numbers) == codec.encode(ours)
        assert ours.start.hex() == case["digests"][chunk]


def test_the_page_s_way_to_make_a_proof_makes_one():
    (code,) = (
        c for c in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "def " in c
    )
    names: dict[str, Any] = {}
    exec(code, names)
    lab = Lab()
    liar = lab.other(backend=Flipping(6, 1, 1))
    verdict = verify_fraud_proof(names["accuse"](lab.task, lab.dataset, SEED, liar, KEY))
    assert (verdict.outcome, verdict.step) == (Outcome.FRAUD, 1)
    assert verdict.entry.startswith("op 6 ")
