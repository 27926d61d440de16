"""The parameters in force: genesis gives the first, governance changes them between two epochs."""

from __future__ import annotations

from msgspec.structs import replace

from mlchain.errors import InvalidTransaction
from mlchain.ledger.genesis import MIN_BLOCK_GAS, Params
from mlchain.ledger.state import State, Table

PARAMS = Table(b"params/", Params)


def get_params(state: State) -> Params:
    """Return the parameters of the block that follows `state`."""
    params = PARAMS.get(state)
    assert params is not None, "genesis writes them"
    return params


def epoch_of(params: Params, height: int) -> int:
    """Return the epoch that the block at `height` belongs to."""
    return height // params.epoch_blocks


def is_last_of_epoch(params: Params, height: int) -> bool:
    """Tell whether the next block begins an epoch."""
    return (height + 1) % params.epoch_blocks == 0


_DAY_MS = 86_400_000
RANGES: dict[str, tuple[int, int]] = {
    "propose_timeout_ms": (10, 60_000),
    "vote_timeout_ms": (10, 60_000),
    "timeout_step_ms": (1, 60_000),
    "block_interval_ms": (0, 60_000),
    "heartbeat_ms": (100, _DAY_MS),
    "max_block_gas": (MIN_BLOCK_GAS, 10**12),
    "segment_timeout_ms": (1_000, 30 * _DAY_MS),
    "dispute_window": (5, 10**6),
    "slash_worker": (0, 2**60),
    "slash_validator": (0, 2**60),
    "slash_unavailable": (0, 2**60),
    "unbonding_blocks": (1, 10**8),
    "fee_admission": (0, 2**60),
    "max_verify_gas": (10_000_000, 10**15),
    "audit_permille": (0, 1_000),
    "slash_lazy": (0, 2**60),
}
"""From and to, both allowed. What is not here is fixed at genesis.

So are `attest_window`, for custody elements are due by it, and honest ones shown by a shorter one
would be early by a longer; and `custody_window`, within which claims that are open must end.
"""


def check_param(params: Params, name: str, value: int) -> Params:
    """Return `params` with one value changed.

    Raises:
        InvalidTransaction: fixed, out of its range, or in conflict with another.
    """
    if name not in RANGES:
        raise InvalidTransaction(f"{name!r} cannot be changed", "one of " + ", ".join(RANGES))
    low, high = RANGES[name]
    if not low <= value <= high:
        raise InvalidTransaction(f"{name} = {value}: {low} to {high} are allowed")
    changed: Params = replace(params, **{name: value})
    if changed.unbonding_blocks < changed.attest_window + changed.dispute_window:
        raise InvalidTransaction(
            "unbonding_blocks must cover attest_window and dispute_window: a fault found at their "
            "end still needs a bond to take from"
        )
    return changed
