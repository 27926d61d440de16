"""The digest of everything a node's code brings to consensus: kinds, ops, models.

It stands in the genesis file, later in the state; a node with another digest does not take part.
"""

from __future__ import annotations

from functools import cache

from mlchain import crypto, ml_runtime
from mlchain.errors import GenesisError, UpgradeNeeded
from mlchain.ledger.block import FIRST_VERSION, PROTOCOL_VERSION
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.state import State
from mlchain.vm import families
from mlchain.vm.initial import write_genesis
from mlchain.vm.protocol import Protocol

OLDER: tuple[tuple[int, bytes], ...] = ()
"""Versions and digests of earlier rules that this installation computes by as well, so that it can
be started before an upgrade. Whoever adds one sees to it that what is new stays unused until then.
"""


@cache
def registry_digest() -> bytes:
    """Return the digest of this installation's tables; they do not change while it runs."""
    return crypto.digest("mlchain/registry", families.table_digest(), ml_runtime.registry_digest())


def check_registry(genesis: Genesis) -> None:
    """Return if this installation computes by the tables of `genesis`.

    Raises:
        GenesisError: its tables differ.
    """
    check_protocol(Protocol(FIRST_VERSION, genesis.registry, 0))


def begin_chain(state: State, genesis: Genesis) -> None:
    """Write block 0 of a chain that this installation can follow; a refused one leaves nothing.

    Raises:
        GenesisError: its tables differ.
    """
    check_registry(genesis)
    write_genesis(state, genesis)


def has_protocol(protocol: Protocol) -> bool:
    """Tell whether this installation can follow such rules."""
    if protocol.registry == _our_digest():
        return protocol.version <= PROTOCOL_VERSION
    return (protocol.version, protocol.registry) in OLDER


def check_protocol(protocol: Protocol) -> None:
    """Return if this installation can take part in a chain that follows `protocol`.

    Raises:
        GenesisError: the chain was made with other tables.
        UpgradeNeeded: it has moved on to others.
    """
    if has_protocol(protocol):
        return
    theirs, ours = protocol.registry.hex()[:16], _our_digest().hex()[:16]
    if not protocol.height:
        raise GenesisError(
            f"registry: the chain needs {theirs}, this installation has {ours}",
            "install the mlchain version that made the genesis file, or make a new chain",
        )
    raise UpgradeNeeded(
        f"from height {protocol.height} on the chain follows protocol version {protocol.version}, "
        f"registry {theirs}; this installation knows {PROTOCOL_VERSION} and {ours}",
        "install the version that the members agreed on and start again; nothing is lost",
    )


@cache
def _our_digest() -> bytes:
    return registry_digest()
