"""What time does to draws of partitions: a quorum comes to hold the data, the beacon comes.

The seed is of a beacon two blocks after everything it decides about was fixed, as with jobs.
"""

from __future__ import annotations

from msgspec.structs import replace

from mlchain import crypto
from mlchain.ledger.state import Mark
from mlchain.vm.context import BlockContext
from mlchain.vm.families.data import DATASETS, is_available
from mlchain.vm.families.members import VOTERS
from mlchain.vm.families.partitions import DRAW_DELAY, DRAWS, DUE_DRAWS, WAITING_DRAWS
from mlchain.vm.votes import get_beacon


def advance_draws(block: BlockContext) -> None:
    """Let draws whose data is now held wait for their beacon, and draw those that are due."""
    state = block.state
    for key, identity in _find_waiting(block):
        draw = DRAWS.get(state, identity)
        assert draw is not None, "draws stay"
        if is_available(state, draw.content, block.validators):
            WAITING_DRAWS.delete(state, key, identity)
            DUE_DRAWS.put(state, Mark(), block.height + DRAW_DELAY, identity)
    for (height, identity), _ in list(DUE_DRAWS.items(state)):
        if height > block.height:
            break
        draw = DRAWS.get(state, identity)
        assert draw is not None, "draws stay"
        seed = draw_seed(get_beacon(state), identity)
        DRAWS.put(state, replace(draw, seed=seed, height=block.height), identity)
        DUE_DRAWS.delete(state, height, identity)


def draw_seed(beacon: bytes, identity: bytes) -> bytes:
    """Return the seed of a draw."""
    return crypto.digest("mlchain/partitions", beacon, identity)


def _find_waiting(block: BlockContext) -> list[tuple[bytes, bytes]]:
    """Return the keys of the waiting draws that this block may have moved."""
    if any(True for _ in VOTERS.changed(block.state)):
        return [(key, identity) for (key, identity), _ in WAITING_DRAWS.items(block.state)]
    changed = [content[4:] for (content,) in DATASETS.changed(block.state)]
    return [
        (key, identity)
        for content in changed
        for (key, identity), _ in WAITING_DRAWS.items(block.state, content)
    ]
