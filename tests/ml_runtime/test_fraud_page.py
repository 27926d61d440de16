"""docs/fraud-proof.md is complete: claims written from it alone are ours, byte for byte."""

from __future__ import annotations

import pytest
from second_runtime import Training
from second_trace import claim
from test_numerics_page import load

from mlchain import codec
from mlchain.ml_runtime import Dataset, Task
from mlchain.ml_runtime.proof import Tracer


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
