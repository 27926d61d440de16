"""In a whole cluster: the model of a job is made again by whoever says that it holds it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from node.harness import run_cluster

from mlchain.client.registry import model_of_job
from mlchain.codec import encode
from mlchain.ledger.unixfs import parse_cid
from mlchain.ml_runtime import Model
from mlchain.ml_runtime.serving import describe_model
from mlchain.node.node import Node
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.families.models import MODEL_FILES, RegisterModel, is_usable


def reader(node: Node) -> Any:
    """What a client reads of a node, without HTTP."""
    return SimpleNamespace(
        receipt=lambda job: encode(node.query.receipt(bytes.fromhex(job))),
        data=lambda cid: node.content.get(parse_cid(cid)),
        model=lambda job: node.content.get(node.query.model(job)),
    )


def registration(node: Node, name: str, model: Model, job: bytes) -> RegisterModel:
    data, facts = model.encode(), describe_model(model)
    return RegisterModel(
        name, node.content.put(data), len(data), *facts, job, b"", b"", "MIT"
    )  # fmt: skip


@pytest.mark.slow
def test_the_model_of_a_job_is_held_and_another_one_in_its_name_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with run_cluster(tmp_path, 4, 1) as cluster:
            job = await cluster.submit_digits(steps=8, chunk=2, segment=4)
            await cluster.settled(job, 120)
            node = cluster.nodes["validator-0"]
            await node.gather_files(job)
            model = model_of_job(cast(Any, reader(node)), job.hex())
            fields = [getattr(model, name) for name in model.__struct_fields__]
            forged = Model(*fields[:2], tuple(e + 1 for e in fields[2]), *fields[3:])
            wrong = registration(node, "forged", forged, job)
            right = registration(node, "digits", model, job)
            await cluster.send(wrong)
            await cluster.send(right)
            state = cluster.nodes["validator-3"].chain.state
            with trio.fail_after(900):
                while (file := MODEL_FILES.get(state(), right.content)) is None or not is_usable(
                    file, get_validator_set(state())
                ):
                    await trio.sleep(0.05)
            assert MODEL_FILES.get(state(), wrong.content).holders == ()

    trio.run(main)
