"""One process of the simulated cluster: its driver, and the disk that outlives it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlchain.consensus.driver import Driver
from mlchain.consensus.journal import Intent
from mlchain.ledger.commit import NIL, Commit, VoteKind
from mlchain.sim.adversary import Adversary
from mlchain.sim.application import Application, ToyKey


@dataclass(slots=True)
class Place:
    """One process of the cluster and its disk."""

    index: int
    key: ToyKey
    copy: int
    adversary: Adversary | None
    peer: bytes
    ledger: Application
    driver: Driver | None = None
    life: int = 0
    """Counts restarts; what was under way in an earlier life is gone."""
    timer_at: int | None = None
    chain: list[tuple[bytes, Commit]] = field(default_factory=list)
    synced: list[bytes] = field(default_factory=list)
    unsynced: list[bytes] = field(default_factory=list)
    last_sign: bytes | None = None


def is_lock(entry: object) -> bool:
    """Tell whether a log entry announces a precommit for a block."""
    if not isinstance(entry, Intent):
        return False
    return entry.request.kind == VoteKind.PRECOMMIT and entry.request.block_id != NIL
