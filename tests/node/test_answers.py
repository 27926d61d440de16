"""In a whole cluster: models are held, asked and answered by validators that compute them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import trio
from msgspec.structs import replace
from node.harness import Cluster, key, run_cluster

from mlchain.client.checks import FindFile
from mlchain.client.prediction_receipt import CHECKS, verify_prediction_receipt
from mlchain.codec import decode, encode
from mlchain.ledger.state import State
from mlchain.ml_runtime import Dataset, Model
from mlchain.ml_runtime.importers.writer import Writer
from mlchain.ml_runtime.serving import Outcome, describe_model, encode_rows
from mlchain.vm.families.data import DATASETS, RegisterData, is_available
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.families.models import MODEL_FILES, RegisterModel, is_usable
from mlchain.vm.families.predictions import (
    PREDICTIONS,
    Prediction,
    PredictionState,
    RequestPrediction,
)
from mlchain.vm.prediction_receipt import PredictionReceipt


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


def is_held(state: State, content: bytes) -> bool:
    file = MODEL_FILES.get(state, content)
    return file is not None and is_usable(file, get_validator_set(state))


async def until(condition, timeout_s: float = 60) -> None:
    with trio.fail_after(timeout_s):
        while not condition():
            await trio.sleep(0.02)


def test_models_are_held_if_they_are_what_was_said_and_answered_by_all_but_the_liar(
    tmp_path: Path,
) -> None:
    """One network: a false registration, rows in a request and by content id, an evaluation,
    and receipts of them."""

    async def main() -> None:
        liar = {"validator-2": "wrong-answer"}
        async with run_cluster(tmp_path, 4, 0, liar) as cluster:
            state = cluster.nodes["validator-3"].chain.state
            good = registration(cluster, make_model(), "good")
            wrong = registration(cluster, make_model(1.0), "wrong", gas=1)
            await cluster.send(wrong)
            await cluster.send(good)
            await until(lambda: is_held(state(), good.content))
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

            dataset = Dataset.from_arrays(rows, (rows.sum(axis=1) > 0).astype(int), classes=2)
            data = dataset.encode()
            held = cluster.nodes["validator-0"].content.put(data)
            await cluster.send(RegisterData(held, len(data), 200, 4))
            await until(lambda: DATASETS.get(state(), held) is not None)
            for node in cluster.nodes.values():
                node.duties.add_available(held, DATASETS.get(state(), held).facts)
                node.agreement.poke()
            await until(lambda: is_available(state(), held, node.chain.validators))
            measured = await cluster.send(
                RequestPrediction(good.content, b"", held, 50, True, "replicated", 100, 0)
            )
            await until(lambda: answered(measured))
            (evaluation,) = MODEL_FILES.get(state(), good.content).evaluations
            assert evaluation.metrics.total == 50 and evaluation.metrics.correct >= 49

            query = cluster.nodes["validator-3"].query
            view = query.predictions.find(one.hex())
            assert (view["state"], view["answers"]) == ("answered", ["yes"])
            assert set(view["agreed"]).isdisjoint({"validator-2"})
            assert query.registry.find("good")["evaluations"][0]["total"] == 50
            for request in (one, many, measured):
                receipt = query.prediction_receipt(request)
                checks = verify_prediction_receipt(receipt, cluster.genesis, finder(cluster))
                assert [check.text for check in checks if not check.passed] == []
                assert len(checks) == len(CHECKS)
            refused(receipt, cluster)

    trio.run(main)


def finder(cluster: Cluster) -> FindFile:
    """Files that the node of the receipt lacks come from the others."""
    stores = [node.content for node in cluster.nodes.values()]
    return lambda name: next((s.get(name) for s in stores if s.has(name)), None)


def refused(receipt: PredictionReceipt, cluster: Cluster) -> None:
    """A receipt with another answer, another signer or another model does not hold."""
    found = decode(Prediction, receipt.prediction.value)
    forged = encode(replace(found, outcome=2, content=b"", value=b""))
    few = replace(receipt.commit, signatures=receipt.commit.signatures[:2])
    for bad, name in (
        (replace(receipt, prediction=replace(receipt.prediction, value=forged)), "state"),
        (replace(receipt, commit=few), "certificate"),
        (replace(receipt, genesis=bytes(32)), "genesis"),
    ):
        last = verify_prediction_receipt(bad, cluster.genesis, finder(cluster))[-1]
        assert (last.name, last.passed) == (name, False)
