"""A job on each part of a draw, and one model of them: what the jobs left, merged here.

Validators merge it themselves before they confirm the file (`ml_runtime.merging`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlchain.client.client import Client
from mlchain.client.http import Json, Notify, Watch
from mlchain.client.submit import Terms, plan_gas, submit_gas
from mlchain.client.training import TrainingJob
from mlchain.crypto import SecretKey
from mlchain.errors import ConfigError, NotFound
from mlchain.ledger.unixfs import cid_of, cid_text, parse_cid
from mlchain.ml_runtime import Dataset, Metrics, State, Task, Trainer, check_plan, decode_plan
from mlchain.ml_runtime.merging import merge_states, require_mergeable
from mlchain.vm.families.jobs import fixed_seed
from mlchain.vm.families.merges import MergeModels
from mlchain.vm.families.partitions import PART_GAS
from mlchain.vm.families.submit import GAS_PER_MICROCREDIT, SubmitJob


def part_jobs(job: TrainingJob, draw: Json, terms: Terms, epochs: int) -> Iterator[SubmitJob]:
    """Yield the request for each part of a draw: the job on the part's rows, for its share.

    With `epochs` each part is gone through that often, else the steps are divided; so is the fee.
    All start from one seed, the draw's if the job has none: what learns by gradient begins with the
    same weights everywhere.

    Raises:
        ConfigError: a part has fewer rows than a batch.
        RejectedProgram: models of this kind are not merged.
    """
    plan = decode_plan(job.plan)
    require_mergeable(plan)
    batch, cost = plan.batch, check_plan(plan)
    seed = fixed_seed(terms.seed) if terms.seed >= 0 else bytes.fromhex(draw["seed"])
    parts, chunks = draw["named"], -(-job.steps // job.chunk)
    segments = -(-chunks // job.segment)
    for number, part in enumerate(parts, 1):
        rows = part["rows"] - job.test_rows
        if batch > rows:
            raise ConfigError(f"batch = {batch}: part {number} has {rows} rows to train on")
        steps = -(-epochs * rows // batch) if epochs else -(-job.steps // len(parts))
        part_chunks = -(-steps // job.chunk)
        segment = -(-part_chunks // segments)
        gas = cost.gas_per_step * steps + cost.gas_predict_row * job.test_rows
        fee = max(terms.fee // len(parts), -(-gas // GAS_PER_MICROCREDIT))
        yield SubmitJob(
            terms.name, job.plan, parse_cid(part["cid"]), rows, job.test_rows, steps, job.chunk,
            segment, terms.tier, fee, seed,
        )  # fmt: skip


def submit_parts(client: Client, requests: Sequence[SubmitJob], key: SecretKey) -> list[str]:
    """Sign and send the jobs on all parts; return their ids. `client.wait` says when a block has
    the last one.

    Raises:
        Rejected: one can never be included as it is.
    """
    nonce = int(client.account(key.public.hex())["nonce"])
    return [
        client.send(request, key, gas=submit_gas(request), nonce=nonce + i)
        for i, request in enumerate(requests)
    ]


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged model: its file, and what it is worth on the test rows of the dataset."""

    model: bytes
    metrics: Metrics | None
    plan: bytes
    """Of the jobs."""

    @property
    def content_id(self) -> str:
        """The content id of the file."""
        return cid_text(cid_of(self.model))


def merge_jobs(client: Client, job: TrainingJob, draw: Json, jobs: Sequence[str]) -> Merged:
    """Merge here what the settled jobs on the parts of a draw left.

    Raises:
        RejectedProgram: models of this kind are not merged.
        NotFound: a job has no model.
    """
    plan, dataset = decode_plan(job.plan), Dataset.decode(job.dataset)
    rows = [part["rows"] - job.test_rows for part in draw["named"]]
    states = [State.decode(client.model(identity), plan) for identity in jobs]
    merged = merge_states(plan, states, rows)
    task = Task(job.plan, 1, 1, sum(rows), job.test_rows)
    trainer = Trainer(task, dataset, bytes.fromhex(draw["seed"]))
    metrics = trainer.evaluate(merged) if job.test_rows else None
    return Merged(trainer.model(merged).encode(), metrics, job.plan)


def send_merge(
    client: Client, merged: Merged, draw: Json, jobs: Sequence[str], key: SecretKey
) -> str:
    """Say which file the jobs make; return the transaction's id."""
    ids = tuple(bytes.fromhex(identity) for identity in jobs)
    request = MergeModels(
        bytes.fromhex(draw["id"]), ids, parse_cid(merged.content_id), len(merged.model)
    )
    gas = plan_gas(merged.plan) + PART_GAS * len(jobs) + (len(jobs) + 1) * len(merged.model)
    return client.send(request, key, gas=gas)


def find_merge(draw: Json, content_id: str, jobs: Sequence[str]) -> Json:
    """Return what the chain knows of a merge.

    Raises:
        NotFound: nothing.
    """
    for merge in draw["merges"]:
        if (merge["model"], merge["jobs"]) == (content_id, list(jobs)):
            return dict(merge)
    raise NotFound(f"the chain knows of no merge to {content_id}")


def wait_for_merge(
    client: Client,
    draw_id: str,
    content_id: str,
    jobs: Sequence[str],
    timeout_s: float = 120.0,
    notify: Notify | None = None,
) -> Json:
    """Return a merge once a quorum has made the same file.

    Raises:
        Timeout: not in time; validators go on without us.
    """
    watch = Watch(timeout_s)
    while not (merge := find_merge(client.draw(draw_id), content_id, jobs))["standing"]:
        waiting = f"validators to merge: {len(merge['confirmed_by'])} did so far"
        watch.require_time(f"waited {timeout_s:g} s for {waiting}", "mlchain status")
        if notify is not None:
            notify(f"waiting for {waiting}")
        time.sleep(client.poll_s)
    return merge
