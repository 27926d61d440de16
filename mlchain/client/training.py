"""From a checked job file to what a job's request needs: plan, dataset bytes, numbers."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mlchain.client.jobfile import QUANTITIES, JobFile, JobFileError
from mlchain.client.scaling import Scaling
from mlchain.client.sources import Fetch, load_table, split
from mlchain.errors import MlchainError
from mlchain.ml_runtime import Dataset, Task, check_plan, decode_plan, make_plan
from mlchain.vm.families.submit import GAS_PER_MICROCREDIT

IN_RAW_UNITS = ("ridge", "multinomial_nb", "perceptron")
"""Models that weigh features against something else, and so are told what x = 1 stands for."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What is uploaded and signed. `chunk` is in steps, `segment` in chunks."""

    plan: bytes
    dataset: bytes
    features: int
    train_rows: int
    test_rows: int
    steps: int
    chunk: int
    segment: int
    classes: tuple[str, ...]
    scaling: Scaling
    target_scaling: Scaling | None
    """What was done to features, and to a quantity; None for classes and groups."""

    @property
    def task(self) -> Task:
        """The job as the runtime sees it, to run it here."""
        return Task(self.plan, self.steps, self.chunk, self.train_rows, self.test_rows)

    @property
    def gas(self) -> int:
        """Exact gas of the job; 1 is about 1 ns."""
        cost = check_plan(decode_plan(self.plan))
        return cost.gas_per_step * self.steps + cost.gas_predict_row * self.test_rows

    @property
    def least_fee(self) -> int:
        """Least fee that a chain accepts, in micro-credits."""
        return -(-self.gas // GAS_PER_MICROCREDIT)


def prepare(job: JobFile, fetch: Fetch | None = None) -> TrainingJob:
    """Read the data and write the plan; `fetch` gives the bytes of a source named by content id.

    Raises:
        ConfigError: the data cannot be read or does not fit the job; says which key.
    """
    is_class, groups = job.model not in QUANTITIES, job.model == "kmeans"
    table = load_table(job.source, job.path.parent, job.target, is_class, not groups, fetch)
    tokens = job.model == "transformer"
    rows = split(table, job.test_fraction, tokens)
    if job.batch > rows.train_rows:
        raise _misfit(job, f"batch = {job.batch}: there are {rows.train_rows} training rows")
    steps = job.steps or -(-job.epochs * rows.train_rows // job.batch)
    chunks = -(-steps // job.chunk)
    if job.segments > chunks:
        raise _misfit(job, f"segments = {job.segments}: there are {chunks} chunks of {job.chunk}")
    options: dict[str, Any] = {"rate": str(job.rate)} if job.optimiser else {}
    for key, value in job.options.items():
        options[key] = str(value) if isinstance(value, Decimal) else value
    if job.optimiser == "momentum":
        options["momentum"] = str(job.momentum)
    if not groups:
        options |= {"classes": len(table.classes)} if is_class else {"outputs": 1}
    try:
        dataset = Dataset.from_arrays(
            rows.features, rows.target, classes=len(table.classes), tokens=tokens
        )
        if job.model in IN_RAW_UNITS:
            options["unit"] = 2.0 ** dataset.header.exponents[0]
        plan = make_plan(
            job.model,
            features=rows.features.shape[1],
            optimiser=job.optimiser,
            batch=job.batch,
            **options,
        )
    except MlchainError as error:
        raise _misfit(job, error.message, error.hint) from error
    return TrainingJob(
        plan=plan.encode(),
        dataset=dataset.encode(),
        features=dataset.features,
        train_rows=rows.train_rows,
        test_rows=rows.test_rows,
        steps=steps,
        chunk=job.chunk,
        segment=-(-chunks // job.segments),
        classes=table.classes,
        scaling=rows.scaling,
        target_scaling=rows.target_scaling,
    )


def _misfit(job: JobFile, reason: str, hint: str = "") -> JobFileError:
    return JobFileError(f"{job.path}: {reason}", job.path, hint=hint)
