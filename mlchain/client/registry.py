"""Publishing models: the file goes to a node, a signed registration to the chain."""

from __future__ import annotations

from dataclasses import dataclass

from mlchain import codec
from mlchain.client.client import EXECUTION_GAS, Client
from mlchain.crypto import SecretKey
from mlchain.errors import CodecError, ConfigError, NotFound
from mlchain.ledger.unixfs import cid_text, parse_cid
from mlchain.ml_runtime import Dataset, Model, State, Task, Trainer
from mlchain.ml_runtime.serving import describe_model
from mlchain.vm.families.jobs import Job, PlanRecord
from mlchain.vm.families.models import RegisterModel
from mlchain.vm.receipt import MAX_RECEIPT_BYTES, Receipt


@dataclass(frozen=True, slots=True)
class Label:
    """What a model is published under. Content ids are text; "" where there is none."""

    name: str
    licence: str = "unspecified"
    parent: str = ""
    data: str = ""
    job: str = ""


def publish(client: Client, model: Model, label: Label, key: SecretKey) -> tuple[str, str]:
    """Store a model file at the node, sign and send its registration.

    Returns the content id and the transaction's id; `client.wait` says when a block has it.

    Raises:
        Rejected: it can never be included as it is.
        ConfigError: the name or a content id is not one.
    """
    data, facts = model.encode(), describe_model(model)
    content = client.put_data(data)
    parent, source = (parse_cid(cid) if cid else b"" for cid in (label.parent, label.data))
    request = RegisterModel(
        label.name, parse_cid(content), len(data), facts.features, facts.outputs, facts.answer,
        facts.gas, bytes.fromhex(label.job), parent, source, label.licence,
    )  # fmt: skip
    try:
        codec.decode(RegisterModel, codec.encode(request))
    except CodecError as error:
        raise ConfigError(
            f"cannot be registered: {error.message}",
            "a name is lower case letters, digits, dots, hyphens, underscores; at most 64",
        ) from error
    return content, client.send(request, key, gas=EXECUTION_GAS + len(data) // 64)


def model_of_job(client: Client, job_id: str) -> Model:
    """Return the model file of a settled job, made here from what the job left.

    Every validator makes the same bytes before it says that it holds them.

    Raises:
        NotFound: no such job, or it has no model.
    """
    receipt = codec.decode(Receipt, client.receipt(job_id), MAX_RECEIPT_BYTES)
    job = codec.decode(Job, receipt.job.value)
    if receipt.model is None:
        raise NotFound(f"job {job_id[:8]} trapped: it has no model")
    plan = codec.decode(PlanRecord, receipt.plan.value).plan
    task = Task(plan, job.steps, job.chunk, job.train_rows, job.test_rows)
    dataset = Dataset.decode(client.data(cid_text(job.dataset)))
    trainer = Trainer(task, dataset, job.order_seed)
    return trainer.model(State.decode(client.model(job_id), trainer.plan))
