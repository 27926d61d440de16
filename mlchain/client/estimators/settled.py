"""A settled job as a fitted model: its receipt, its state, and the rows it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlchain.client.client import Client
from mlchain.client.estimators.plans import Rows, scale_rows
from mlchain.client.estimators.receipts import ChainReceipt
from mlchain.client.estimators.remote import fetch_receipt, fetch_state
from mlchain.client.jobfile import load_job_file
from mlchain.client.scaling import unscaled
from mlchain.client.training import prepare
from mlchain.errors import ConfigError, VerificationFailed
from mlchain.ledger.content import cid_of, cid_text
from mlchain.ml_runtime import Dataset, Plan, State, Trainer

Source = tuple[Any, Any] | str | Path | None
"""Where a job's rows came from: (X, y), a job file, or nobody knows."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A job that has ended, proven. `classes` are the labels of its columns, in order."""

    receipt: ChainReceipt
    state: State
    trainer: Trainer
    rows: Rows
    classes: NDArray[Any]

    @property
    def plan(self) -> Plan:
        """Its program."""
        return self.trainer.plan


def fetch_job(url: str, job: str, source: Source) -> Fetched:
    """Return a settled job by its id or a unique beginning of it.

    What was done to rows stands on no chain. `source` says it, and is believed only if it makes
    the very dataset of the job. Without it rows are taken as the dataset has them.

    Raises:
        VerificationFailed: the receipt, the state or the source is of something else.
        NotFound: no such job, or it has no result yet.
    """
    with Client(url) as client:
        receipt = fetch_receipt(client, str(client.job(job)["id"]))
        trainer = receipt.trainer()
        state = fetch_state(client, receipt, trainer.task.plan)
        rows, classes = _rows_of(trainer, source, client)
    if rows.dataset is not trainer.dataset:
        ours, theirs = cid_of(rows.dataset.encode()), receipt.job.dataset
        if ours != theirs:
            raise VerificationFailed(
                f"these rows make the dataset {cid_text(ours)}, the job's is {cid_text(theirs)}",
                "give exactly the rows that the job was made from, in their order",
            )
    return Fetched(receipt, state, trainer, rows, classes)


def _rows_of(trainer: Trainer, source: Source, client: Client) -> tuple[Rows, NDArray[Any]]:
    plan, numbers = trainer.plan, np.arange(trainer.plan.outputs)
    if source is None:
        return Rows(trainer.dataset, unscaled(plan.features), None), numbers
    if isinstance(source, str | Path):
        job = prepare(load_job_file(Path(source)), client.data)
        rows = Rows(Dataset.decode(job.dataset), job.scaling, job.target_scaling)
        return rows, np.array(job.classes) if plan.target == "class" else numbers
    x, y = source
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or (y is not None and len(y) != len(x)):
        raise ConfigError("source: X has to be rows x features, y one value for each row")
    if plan.target == "class":
        classes, y = np.unique(np.asarray(y), return_inverse=True)
        return scale_rows(plan.model, x, y, classes=len(classes)), classes
    if plan.target == "cluster":
        return scale_rows(plan.model, x, None, clusters=plan.outputs), numbers
    return scale_rows(plan.model, x, np.asarray(y, np.float64)), numbers
