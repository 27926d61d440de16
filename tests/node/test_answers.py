"""In a whole cluster: models are held, asked and answered by validators that compute them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import trio
from node.harness import Cluster, key, run_cluster

from mlchain.ml_runtime import Model
from mlchain.ml_runtime.importers.writer import Writer
from mlchain.ml_runtime.serving import Outcome, describe_model, encode_rows
from mlchain.vm.families.models import MODEL_FILES, UNHELD, RegisterModel
from mlchain.vm.families.predictions import PREDICTIONS, PredictionState, RequestPrediction


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


def asking(
    model: bytes, inline: bytes, data: bytes = b"", rows: int = 1, fee: int = 50
) -> RequestPrediction:
    return RequestPrediction(model, inline, data, rows, False, "replicated", fee, 10)


async def until(condition, timeout_s: float = 60) -> None:
    with trio.fail_after(timeout_s):
        while not condition():
            await trio.sleep(0.02)


def test_models_are_held_if_they_are_what_was_said_and_answered_by_all_but_the_liar(
    tmp_path: Path,
) -> None:
    """One network: a false registration, rows in a request and by content id."""

    async def main() -> None:
        liar = {"validator-2": "wrong-answer"}
        async with run_cluster(tmp_path, 4, 0, liar) as cluster:
            state = cluster.nodes["validator-3"].chain.state
            good = registration(cluster, make_model(), "good")
            wrong = registration(cluster, make_model(1.0), "wrong", gas=1)
            await cluster.send(wrong)
            await cluster.send(good)
            await until(lambda: MODEL_FILES.get(state(), good.content) is not None)
            await until(lambda: UNHELD.get(state(), good.content) is None)
            assert MODEL_FILES.get(state(), wrong.content).holders == ()

            def answered(request: bytes) -> bool:
                found = PREDICTIONS.get(state(), request)
                return found is not None and found.state > PredictionState.CLOSED

            while not cluster.faults():  # a liar that is slow is not even bound
                one = await cluster.send(asking(good.content, b"[1,2,3,4]"))
                await until(lambda asked=one: answered(asked))
                found = PREDICTIONS.get(state(), one)
                assert (found.outcome, found.value) == (Outcome.ANSWERED, b'["yes"]')
            offenders = {fault.offender for fault in cluster.faults()}
            assert offenders == {key("validator-2").public}

            rows = np.random.default_rng(1).normal(0, 1, (200, 4))
            text = encode_rows(rows)
            content = cluster.nodes["validator-0"].content.put(text)
            many = await cluster.send(asking(good.content, b"", content, 200, fee=100))
            bad = await cluster.send(asking(good.content, b"", content, 100, fee=100))
            await until(lambda: answered(many) and answered(bad))
            found = PREDICTIONS.get(state(), many)
            stores = [node.content for node in cluster.nodes.values()]
            holder = next(store for store in stores if store.has(found.content))
            said = json.loads(holder.get(found.content))
            assert said == make_model().answers(rows).tolist() and found.value == b""
            assert PREDICTIONS.get(state(), bad).outcome == Outcome.INVALID_ROWS

    trio.run(main)
