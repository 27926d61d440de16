"""In a whole cluster: parts are drawn, made by all, trained on and merged; none is uploaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trio
from msgspec.structs import replace
from node.harness import Cluster, run_cluster

from mlchain.crypto import digest
from mlchain.ledger.unixfs import cid_of
from mlchain.ml_runtime import Dataset, Model, Plan, State, Task, Trainer, make_plan, run
from mlchain.ml_runtime.merging import merge_states
from mlchain.ml_runtime.partition import partition
from mlchain.vm.families.data import RegisterData, is_available
from mlchain.vm.families.jobs import JobState
from mlchain.vm.families.merges import MergeModels, get_merges, get_parties, is_standing
from mlchain.vm.families.models import MODELS
from mlchain.vm.families.partitions import (
    DRAWS,
    NAMINGS,
    Draw,
    DrawPartitions,
    NamePartitions,
    Part,
    naming_id,
)
from mlchain.vm.families.submit import SubmitJob

PARTS, TEST_ROWS, TRAIN_ROWS, BATCH = 3, 82, 360, 40


def make_dataset() -> Dataset:
    """Rows whose target is a sum of their columns, and noise."""
    rng = np.random.default_rng(3)
    x = rng.random((TRAIN_ROWS + TEST_ROWS, 10))
    y = x @ np.arange(10) / 50 + rng.normal(0, 0.05, len(x))
    return Dataset.from_arrays(x, np.round(y, 6))


def ridge() -> Plan:
    return make_plan("ridge", features=10, optimiser="", batch=BATCH, outputs=1, alpha=1)


async def until(condition, timeout_s: float = 90) -> None:
    with trio.fail_after(timeout_s):
        while not condition():
            await trio.sleep(0.02)


def make_parts(dataset: Dataset, draw: Draw) -> list[Dataset]:
    return list(partition(dataset, draw.seed, draw.parts, draw.test_rows))


def describe(parts: list[Dataset]) -> tuple[Part, ...]:
    coded = [part.encode() for part in parts]
    return tuple(Part(cid_of(c), len(c), p.rows) for c, p in zip(coded, parts, strict=True))


def job_on(part: Part) -> SubmitJob:
    return SubmitJob(
        "ridge", ridge().encode(), part.content, part.rows - TEST_ROWS, TEST_ROWS,
        (part.rows - TEST_ROWS) // BATCH, 1, 3, "audited", 100_000, b"",
    )  # fmt: skip


def test_what_honest_parties_make_is_confirmed_and_what_is_forged_is_not(tmp_path: Path):
    dataset = make_dataset()

    async def main() -> None:
        async with run_cluster(tmp_path) as cluster:
            draw_id = await draw_parts(cluster, dataset)
            state = cluster.nodes["validator-0"].chain.state
            honest = describe(make_parts(dataset, DRAWS.get(state(), draw_id)))
            forged = (replace(honest[0], content=cid_of(digest("other"))), *honest[1:])
            await cluster.send(NamePartitions(draw_id, forged))
            await cluster.send(NamePartitions(draw_id, honest))
            await until(lambda: DRAWS.get(state(), draw_id).named)
            draw = DRAWS.get(state(), draw_id)
            assert draw.named == honest
            assert NAMINGS.get(state(), naming_id(draw_id, forged)) is None

            jobs = tuple([await cluster.send(job_on(part)) for part in honest])
            for job in jobs:
                assert (await cluster.settled(job)).state == JobState.SETTLED
            assert cluster.faults() == [], "every honest result was accepted"
            model = merged_model(cluster, dataset, draw, jobs)
            wrong = model.encode()[:-1] + b"?"
            size = len(wrong)
            await cluster.send(MergeModels(draw_id, jobs, cid_of(wrong), size))
            await cluster.send(MergeModels(draw_id, jobs, cid_of(model.encode()), size))

            def standing() -> list[bytes]:
                found = get_merges(state(), draw_id)
                return [merge.content for key, merge in found if is_standing(state(), key, merge)]

            await until(standing)
            assert standing() == [cid_of(model.encode())]
            assert len(get_merges(state(), draw_id)) == 2
            assert any(node.content.has(standing()[0]) for node in cluster.nodes.values())
            compare_with_all_rows(dataset, model)

    trio.run(main)


async def draw_parts(cluster: Cluster, dataset: Dataset) -> bytes:
    """Register a dataset that one validator has, and have it drawn."""
    data = dataset.encode()
    node = cluster.nodes["validator-0"]
    content = node.content.put(data)
    await cluster.send(RegisterData(content, len(data), dataset.rows, dataset.features))
    draw_id = await cluster.send(DrawPartitions(content, PARTS, TEST_ROWS))

    def seed() -> bytes:
        draw = DRAWS.get(node.chain.state(), draw_id)
        return draw.seed if draw else b""

    await until(seed)
    assert is_available(node.chain.state(), content, node.chain.validators)
    return draw_id


def merged_model(cluster: Cluster, dataset: Dataset, draw: Draw, jobs: tuple[bytes, ...]) -> Model:
    """Merge here what the jobs left, as anybody can."""
    node, states = cluster.nodes["validator-0"], []
    stores = [other.content for other in cluster.nodes.values()]
    for job in jobs:
        content = MODELS.get(node.chain.state(), job).content
        data = next(store.get(content) for store in stores if store.has(content))
        states.append(State.decode(data, ridge()))
    task = Task(ridge().encode(), 1, 1, TRAIN_ROWS, TEST_ROWS)
    trainer = Trainer(task, dataset, draw.seed)
    return trainer.model(merge_states(ridge(), states, get_parties(draw)))


def compare_with_all_rows(dataset: Dataset, merged: Model) -> None:
    """The merged model is the one that all rows give, up to the rounding of sums of y."""
    task = Task(ridge().encode(), TRAIN_ROWS // BATCH, 1, TRAIN_ROWS, TEST_ROWS)
    whole = Trainer(task, dataset, bytes(32)).model(run(task, dataset, bytes(32)))
    x = dataset.x[-TEST_ROWS:] * 2.0 ** (np.array(dataset.header.exponents) - 15)
    assert np.allclose(merged.scores(x), whole.scores(x), rtol=0, atol=1e-6)
