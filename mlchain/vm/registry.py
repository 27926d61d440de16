"""The digest of everything a node's code brings to consensus: kinds, ops, models.

It stands in the genesis file; a node with another digest refuses to start.
"""

from __future__ import annotations

from mlchain import crypto, ml_runtime
from mlchain.errors import GenesisError
from mlchain.ledger.genesis import Genesis
from mlchain.vm import families


def registry_digest() -> bytes:
    """Return the digest of this installation's tables."""
    return crypto.digest("mlchain/registry", families.table_digest(), ml_runtime.registry_digest())


def check_registry(genesis: Genesis) -> None:
    """Return if this installation can take part in the chain of `genesis`.

    Raises:
        GenesisError: its tables differ.
    """
    ours = registry_digest()
    if genesis.registry != ours:
        raise GenesisError(
            f"registry: the chain needs {genesis.registry.hex()[:16]}, this installation has "
            f"{ours.hex()[:16]}",
            "install the mlchain version that made the genesis file, or make a new chain",
        )
