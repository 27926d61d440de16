"""In a whole cluster: models are held, asked and answered by validators that compute them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trio
from node.harness import Cluster, run_cluster

from mlchain.ml_runtime import Model
from mlchain.ml_runtime.importers.writer import Writer
from mlchain.ml_runtime.serving import describe_model
from mlchain.vm.families.models import MODEL_FILES, UNHELD, RegisterModel


def make_model(shift: float = 0.0) -> Model:
    """Class 1 where the sum of four features is above the shift."""
    w = Writer(4, 8)
    weights = np.array([[-1.0, 1.0]] * 4)
    return w.model(w.linear(w.x, weights, np.array([shift, -shift])), "class", ("no", "yes"))


def registration(cluster: Cluster, model: Model, name: str, **wrong: int) -> RegisterModel:
    """Store a model file at one validator, and say what it is."""
    data, facts = model.encode(), describe_model(model)._asdict() | wrong
    content = cluster.nodes["validator-0"].content.put(data)
    return RegisterModel(
        name, content, len(data), facts["features"], facts["outputs"], facts["answer"],
        facts["gas"], b"", b"", b"", "MIT",
    )  # fmt: skip


async def until(condition, timeout_s: float = 30) -> None:
    with trio.fail_after(timeout_s):
        while not condition():
            await trio.sleep(0.02)


def test_a_registered_model_is_fetched_examined_and_held_unless_it_is_not_what_was_said(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with run_cluster(tmp_path, 4, 0) as cluster:
            state = cluster.nodes["validator-3"].chain.state
            good = registration(cluster, make_model(), "good")
            wrong = registration(cluster, make_model(1.0), "wrong", gas=1)
            await cluster.send(wrong)
            await cluster.send(good)
            await until(lambda: MODEL_FILES.get(state(), good.content) is not None)
            await until(lambda: UNHELD.get(state(), good.content) is None)
            assert MODEL_FILES.get(state(), wrong.content).holders == ()

    trio.run(main)
