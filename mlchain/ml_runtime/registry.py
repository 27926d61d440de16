"""One digest over everything that decides a result: ops, tables of functions, models.

It stands in the genesis file. A node whose tables differ would fork the chain, so it does not
start.
"""

from __future__ import annotations

from typing import Any

from mlchain import codec, crypto
from mlchain.ml_runtime.functions import TABLE_DIGEST
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.op import OPS
from mlchain.ml_runtime.optim import OPTIMISERS
from mlchain.ml_runtime.plan import check_plan
from mlchain.ml_runtime.planner import SIZES, learns_by_gradient, make_plan

SPECIFICATION = "MLRT-1"


def registry_digest() -> bytes:
    """Return the digest of the specification's name, every op, every model under every optimiser.

    A model counts by the plan it writes for a small example, and by the gas of that plan.
    """
    parts = [SPECIFICATION.encode(), TABLE_DIGEST.encode()]
    for name, op in sorted(OPS.items()):
        kinds = tuple((field, kind.value) for field, kind in op.attributes.items())
        parts.append(codec.encode((name, op.arity, kinds)))
    for model, module in MODELS.items():
        for optimiser in sorted(OPTIMISERS) if learns_by_gradient(module) else [""]:
            options: dict[str, Any] = {"optimiser": optimiser, SIZES[module.TARGETS[0]]: 2}
            plan = make_plan(model, features=16, batch=4, **options)
            cost = check_plan(plan)
            parts += [plan.encode(), codec.encode((cost.gas_per_step, cost.gas_predict_row))]
    return crypto.digest("mlchain/ml-registry", *parts)
