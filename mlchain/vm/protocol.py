"""Which rules a block follows: the version in its header, the digest of the tables behind it."""

from __future__ import annotations

from mlchain.codec import Hash, Record, Uint
from mlchain.ledger.state import State, Table


class Protocol(Record, frozen=True):
    """Rules, and the first height at which they may hold."""

    version: Uint
    registry: Hash
    height: Uint


PROTOCOL = Table(b"protocol/", Protocol)
PLANNED = Table(b"planned/", Protocol)


def get_protocol(state: State) -> Protocol:
    """Return the rules of the block that follows `state`."""
    protocol = PROTOCOL.get(state)
    assert protocol is not None, "genesis writes it"
    return protocol


def get_planned(state: State) -> Protocol | None:
    """Return the rules that were approved and are not in force yet."""
    return PLANNED.get(state)


def plan_upgrade(state: State, protocol: Protocol) -> None:
    """Announce other rules; a later plan takes the place of an earlier one."""
    PLANNED.put(state, protocol)


def begin_upgrade(state: State, height: int) -> None:
    """Let the planned rules hold from the block at `height` on, if their time has come."""
    planned = PLANNED.get(state)
    if planned is not None and height >= planned.height:
        PROTOCOL.put(state, planned)
        PLANNED.delete(state)
