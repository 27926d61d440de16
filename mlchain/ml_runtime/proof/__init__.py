"""Traces of every op, the search for the first difference, and portable proofs of one wrong op.

A party that found a chunk wrong traces it (`Tracer`), finds with the other the first entry at
which their traces differ (`Accuser`, `Accused`), and writes a `FraudProof`: a file that anybody
checks offline with `verify_fraud_proof`, by re-executing that one op.
"""

from mlchain.ml_runtime.proof.accuse import Accused, Accuser
from mlchain.ml_runtime.proof.claim import (
    ChunkClaim,
    SignedClaim,
    TracedJob,
    claim_id,
    job_id,
    sign_claim,
    traced_job,
)
from mlchain.ml_runtime.proof.freivalds import freivalds
from mlchain.ml_runtime.proof.record import FraudProof, hash_bytes
from mlchain.ml_runtime.proof.search import Move, Search
from mlchain.ml_runtime.proof.trace import ChunkTrace, Tracer
from mlchain.ml_runtime.proof.verify import (
    Outcome,
    Verdict,
    decode_fraud_proof,
    verify_fraud_proof,
)

__all__ = [
    "Accused",
    "Accuser",
    "ChunkClaim",
    "ChunkTrace",
    "FraudProof",
    "Move",
    "Outcome",
    "Search",
    "SignedClaim",
    "TracedJob",
    "Tracer",
    "Verdict",
    "claim_id",
    "decode_fraud_proof",
    "freivalds",
    "hash_bytes",
    "job_id",
    "sign_claim",
    "traced_job",
    "verify_fraud_proof",
]
