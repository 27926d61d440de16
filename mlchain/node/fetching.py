"""How far state sync is: all that a node without a chain can tell of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from mlchain.ledger.genesis import Genesis, dump_genesis
from mlchain.ledger.merkle import CHUNKS
from mlchain.node.membership import Keys
from mlchain.node.plain import Json, peer_rows, to_json
from mlchain.p2p.transport import Transport
from mlchain.vm.initial import trust_genesis


class Phase(StrEnum):
    """What state sync is at."""

    LOOKING = "looking"
    FETCHING = "fetching"
    INSTALLING = "installing"


@dataclass(slots=True)
class Fetching:
    """What state sync has of the snapshot that it aims at, and from whom."""

    phase: Phase = Phase.LOOKING
    height: int = 0
    """Block of the snapshot, 0 while none is chosen."""
    chunks: int = 0
    """Those that are here and right; some may have been here before a restart."""
    bytes: int = 0
    """What was fetched since the process began."""
    by_peer: dict[bytes, int] = field(default_factory=dict)
    """Chunks that each peer gave."""
    liars: dict[bytes, None] = field(default_factory=dict)
    """Peers whose answer was proven wrong; they are not asked again."""

    def begin(self, height: int, here: int) -> None:
        """Aim at a snapshot of which some chunks are here."""
        self.phase, self.height, self.chunks = Phase.FETCHING, height, here

    def add(self, peer: bytes, size: int) -> None:
        """Count a chunk that is right."""
        self.chunks += 1
        self.bytes += size
        self.by_peer[peer] = self.by_peer.get(peer, 0) + 1

    def __str__(self) -> str:
        match self.phase:
            case Phase.LOOKING:
                return "still looking for a snapshot of the state"
            case Phase.FETCHING:
                return f"still fetching the state: {self.chunks} of {CHUNKS} chunks"
            case Phase.INSTALLING:
                return f"still installing the state of block {self.height}"


class Newcomer:
    """A node that fetches the state: what the API needs of it until there is a `Node`."""

    def __init__(
        self, genesis: Genesis, keys: Keys, transport: Transport, home: Path, fetching: Fetching
    ) -> None:
        self.home, self.transport, self.fetching = home, transport, fetching
        self._genesis, self._start = genesis, trust_genesis(genesis)
        own = {key.public for key in (keys.validator, keys.worker) if key}
        self._members = [member for member in genesis.members if member.key in own]

    def progress(self) -> Json:
        """Return how far state sync is."""
        of, names = self.fetching, {peer.peer: peer.name for peer in self.transport.peers()}
        return {
            "phase": of.phase.value,
            "height": of.height,
            "chunks": of.chunks,
            "of": CHUNKS,
            "bytes": of.bytes,
            "peers": [
                {
                    "name": names.get(peer, peer.hex()[:8]),
                    "chunks": of.by_peer.get(peer, 0),
                    "refused": peer in of.liars,
                }
                for peer in {**of.by_peer, **of.liars}
            ],
        }

    def status(self) -> Json:
        """Return what `Query.status` does, of a node at block 0, with `state_sync`."""
        roles = [member.role for member in self._members] or ["observer"]
        return to_json(
            {
                "name": self._members[0].name if self._members else "observer",
                "role": roles[0],
                "roles": roles,
                "chain_id": self._genesis.chain_id,
                "genesis": self._genesis.hash,
                "height": 0,
                "kept": 0,
                "block_id": self._start.id,
                "time_ms": self._start.time_ms,
                "validators": len(self._start.validators),
                "mempool": 0,
                "chains_end": 0,
                "syncing": True,
                "peers": peer_rows(self.transport),
                "state_sync": self.progress(),
            }
        )

    def genesis(self) -> str:
        """Return the text of the genesis file."""
        return dump_genesis(self._genesis)
