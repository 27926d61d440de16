"""What a transaction costs before its kind says what it does. 1 gas is about 1 ns of CPU."""

from __future__ import annotations

from mlchain.ml_runtime import Plan

TRANSACTION_GAS = 100_000
"""Signature check on every validator, decoding, state tree, storage."""
BYTE_GAS = 20
MAX_TRANSACTION_GAS = 10**9
PLAN_BYTE_GAS = 10
"""Decoding a plan."""
NODE_GAS = 20_000
"""Checking an op of a plan."""
PAIR_GAS = 20
"""For each pair of ops: finding a place in memory looks at all tensors that are alive."""
SEGMENT_GAS = 20_000
"""For each segment of a job: with its attestations it stays in the state, about 1,000 bytes."""
TENSOR_GAS = 2_000
"""Checking an input of a program."""


def intrinsic_gas(size: int) -> int:
    """Return the gas of an encoded transaction of `size` bytes, charged whatever it does."""
    return TRANSACTION_GAS + BYTE_GAS * size


def check_gas(plan: Plan) -> int:
    """Return what `check_plan` costs."""
    return sum(
        NODE_GAS * (ops := len(program.nodes))
        + PAIR_GAS * ops**2
        + TENSOR_GAS * len(program.inputs)
        for program in (plan.step, plan.predict)
    )
