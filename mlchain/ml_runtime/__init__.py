"""The exact runtime: machine learning whose every bit is the same on every machine.

Programs are data, checked and costed before they run; sums are exact, so order, threads and BLAS
kernels cannot matter; everything else is single correctly rounded operations. The specification
is MLRT-1. Importable alone: numpy and the base of mlchain are all it needs.
"""

from mlchain.ml_runtime import ops  # fills the table of ops
from mlchain.ml_runtime.backends import get_backend
from mlchain.ml_runtime.data import Dataset
from mlchain.ml_runtime.machine import Backend, NumpyBackend
from mlchain.ml_runtime.metrics import Metrics, decode_metrics
from mlchain.ml_runtime.model import Model, Predictor, load_model
from mlchain.ml_runtime.oracle import Oracle
from mlchain.ml_runtime.plan import Cost, Plan, StateSpec, check_plan, decode_plan
from mlchain.ml_runtime.planner import make_plan
from mlchain.ml_runtime.registry import registry_digest
from mlchain.ml_runtime.selftest import self_test
from mlchain.ml_runtime.sharded import ShardedBackend
from mlchain.ml_runtime.state import State
from mlchain.ml_runtime.train import Task, Trainer, replay, run

__all__ = [
    "Backend",
    "Cost",
    "Dataset",
    "Metrics",
    "Model",
    "NumpyBackend",
    "Oracle",
    "Plan",
    "Predictor",
    "ShardedBackend",
    "State",
    "StateSpec",
    "Task",
    "Trainer",
    "check_plan",
    "decode_metrics",
    "decode_plan",
    "get_backend",
    "load_model",
    "make_plan",
    "ops",
    "registry_digest",
    "replay",
    "run",
    "self_test",
]
