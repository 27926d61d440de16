"""Sending a training job: its data, then a signed request."""

from __future__ import annotations

from dataclasses import dataclass

from mlchain.client.client import EXECUTION_GAS, Client
from mlchain.client.training import TrainingJob
from mlchain.crypto import SecretKey
from mlchain.ledger.unixfs import parse_cid
from mlchain.ml_runtime import decode_plan
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.jobs import fixed_seed
from mlchain.vm.families.submit import SubmitJob
from mlchain.vm.gas import PLAN_BYTE_GAS, SEGMENT_GAS, check_gas


def plan_gas(plan: bytes) -> int:
    """Return the gas to allow for a transaction that has a plan checked."""
    return EXECUTION_GAS + PLAN_BYTE_GAS * len(plan) + check_gas(decode_plan(plan))


@dataclass(frozen=True, slots=True)
class Terms:
    """What a job is sent under. `fee` in micro-credits; `seed` is -1 when the chain is to draw."""

    name: str
    tier: str
    fee: int
    seed: int = -1


def submit_gas(request: SubmitJob) -> int:
    """Return the gas to allow for posting a job."""
    chunks = -(-request.steps // request.chunk)
    return plan_gas(request.plan) + SEGMENT_GAS * -(-chunks // request.segment)


def submit_job(client: Client, job: TrainingJob, cid: str, terms: Terms, key: SecretKey) -> str:
    """Sign and send a job whose dataset the node holds as `cid`; return the job's id.

    Two transactions go: one registers the data, one asks. `client.wait` says when a block has it.

    Raises:
        Rejected: it can never be included as it is.
    """
    content = parse_cid(cid)
    register = RegisterData(content, len(job.dataset), job.train_rows + job.test_rows, job.features)
    request = SubmitJob(
        terms.name, job.plan, content, job.train_rows, job.test_rows,
        job.steps, job.chunk, job.segment, terms.tier, terms.fee,
        fixed_seed(terms.seed) if terms.seed >= 0 else b"",
    )  # fmt: skip
    nonce = int(client.account(key.public.hex())["nonce"])
    client.send(register, key, nonce=nonce)
    return client.send(request, key, gas=submit_gas(request), nonce=nonce + 1)
