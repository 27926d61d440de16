"""Fraud proofs as files: told from receipts, read, judged offline."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from mlchain import crypto
from mlchain.client.accusation import Judgement, begins_with
from mlchain.client.userfile import read_file
from mlchain.errors import VerificationFailed
from mlchain.ml_runtime import Oracle
from mlchain.ml_runtime.proof import Verdict, verify_fraud_proof
from mlchain.ml_runtime.proof.record import KIND, MAX_PROOF_BYTES

_HEAD = b"\x94" + bytes([0xA0 | len(KIND)]) + KIND.encode()
"""How the canonical bytes of a proof begin: a record of four fields, the first of them its kind."""


class FraudProven(VerificationFailed):
    """A fraud proof that holds. `at` says where in the training the fault is."""

    def __init__(self, text: str, document: Mapping[str, str | int]) -> None:
        super().__init__(
            f"fraud proven: {text}",
            "compare the job's id and the accused's key with those you know",
        )
        self.at = tuple((name, value) for name, value in document.items() if name != "text")


def is_fraud_proof(path: Path) -> bool:
    """Tell whether a file claims to be a fraud proof, by how it begins.

    Raises:
        ConfigError: it cannot be read.
    """
    return begins_with(path, _HEAD)


def judge_file(path: Path, job: bytes | None = None, slow: bool = False) -> Verdict:
    """Return the verdict on a fraud proof in a file; see `verify_fraud_proof`.

    Products it brings are checked after Freivalds, by vectors drawn now. `slow`: the op is
    re-executed by the oracle, which shares no arithmetic with numpy.

    Raises:
        ConfigError: it cannot be read.
        CodecError: it is larger than a proof can be.
    """
    data = read_file(path, MAX_PROOF_BYTES, "name a fraud proof")
    if slow:
        return verify_fraud_proof(data, job=job, backend=Oracle())
    return verify_fraud_proof(data, job=job, seed=secrets.token_bytes(32))


def describe(verdict: Verdict) -> str:
    """Return where in a training the accused entry is."""
    step = f"step {verdict.step}, " if verdict.step >= 0 else ""
    return f"{step}{verdict.entry} (chunk {verdict.chunk})"


def verdict_document(verdict: Verdict) -> dict[str, str | int]:
    """Return a verdict for programs: ids in hex, the accused as an address."""
    return {
        "outcome": verdict.outcome.value,
        "text": verdict.text,
        "job": verdict.job.hex(),
        "accused": crypto.address(verdict.accused),
        "chunk": verdict.chunk,
        "step": verdict.step,
        "entry": verdict.entry,
    }


def judgement_document(found: Judgement) -> dict[str, str | int]:
    """Return a judgement on a proof that rests on a chain, for programs."""
    return {
        "outcome": found.outcome.value,
        "text": found.text,
        "ground": found.ground,
        "job": found.job.hex(),
        "accused": crypto.address(found.worker),
        "segment": found.segment,
        "chunk": found.chunk,
        "certified": found.certified,
    }
