"""The parameters in force: genesis gives the first, governance changes them between two epochs."""

from __future__ import annotations

from mlchain.ledger.genesis import Params
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
