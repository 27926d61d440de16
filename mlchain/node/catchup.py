"""Before a node runs: start from a snapshot, if it is to and there is one.

The network is up for this alone, and the API only tells how far it is; then the network is closed,
and the node begins over the store that was made. A snapshot half installed is always finished
first.
"""

from __future__ import annotations

import time
from pathlib import Path

import structlog
import trio

from mlchain.errors import NotFound, Unreachable
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.kv import KeyValue, Namespace
from mlchain.ledger.merkle import SparseTree
from mlchain.ledger.rows import HEAD, read
from mlchain.ledger.snapshot import installing_height
from mlchain.ledger.state import State
from mlchain.node.fetching import Fetching
from mlchain.node.snapshots import SnapshotFolder
from mlchain.node.statesync import StateSync, wait_for_peer
from mlchain.node.wal import LastSignFile
from mlchain.p2p.transport import Transport
from mlchain.vm.initial import trust_genesis, write_genesis

log = structlog.get_logger("catchup")

YOUNG_S = 600
"""With `auto` a chain that began so few seconds ago is replayed without asking anybody."""
AUTO_PATIENCE_S = 10.0
"""With `auto`, for a first peer to be there, and then for one that has a snapshot."""
PATIENCE_S = 120.0

Trust = tuple[int, bytes]
"""Height and id of a block that the operator vouches for."""


def wants_snapshot(mode: str, genesis: Genesis, kv: KeyValue, now_ms: int) -> bool:
    """Tell whether to look for a snapshot: `mode` is snapshot, blocks or auto.

    With `auto` only a node does that has no block yet.
    """
    if installing_height(kv) is not None or mode == "snapshot":
        return True
    is_young = now_ms - genesis.time_ms < YOUNG_S * 1000
    return mode == "auto" and stored_height(kv) <= 0 and not is_young


def stored_height(kv: KeyValue) -> int:
    """Return the height of the last block in `kv`, -1 if there is none."""
    data = kv.get(HEAD)
    return -1 if data is None else read(int, data, "head")


def stored_state(kv: KeyValue) -> State:
    """Return what `kv` holds of the state, to look up a record before the store is opened.

    Its tree is not read: it has no root.
    """
    return State(Namespace(kv, b"s"), SparseTree())


async def start_from_snapshot(
    kv: KeyValue,
    genesis: Genesis,
    transport: Transport,
    folder: Path,
    *,
    is_needed: bool,
    trust: Trust | None = None,
    last_sign: Path | None = None,
    is_repair: bool = False,
    progress: Fetching | None = None,
) -> bool:
    """Make `kv` a store of the newest snapshot that peers have; tell whether it was done.

    `is_needed`: no snapshot is an error. `last_sign` is where a validator keeps its last signature:
    without that file it may start only where it cannot have signed anything. `progress` is kept up
    to date.

    Raises:
        Unreachable: a snapshot is needed and nobody is there.
        NotFound: a snapshot is needed and nobody has one.
        StoreCorrupted: the file of the last signature is missing, or the disk does not take the
            snapshot that is needed.
    """

    def initial(state: State) -> None:
        write_genesis(state, genesis)

    unfinished = installing_height(kv)
    above = 0 if unfinished is not None else max(0, stored_height(kv))
    if last_sign is not None:
        may_be_missing = above == 0 and unfinished is None and not is_repair
        LastSignFile(last_sign, may_be_missing).load()
    start = trust_genesis(genesis)
    sync = StateSync(transport, SnapshotFolder(folder), genesis, start, trust, progress)
    is_needed = is_needed or unfinished is not None
    patience_s = PATIENCE_S if is_needed else AUTO_PATIENCE_S
    started = time.monotonic()
    async with transport.run():
        try:
            await wait_for_peer(transport, patience_s)
        except Unreachable:
            if is_needed:
                raise
            return False
        way = await sync.fetch(above, patience_s, is_needed)
    if way is None and is_needed:
        raise NotFound(
            f"no peer has a snapshot above height {above}",
            "mlchain node --sync blocks replays the chain instead",
        )
    if way is None:
        return False
    await trio.to_thread.run_sync(sync.install, kv, way, initial)  # a large state takes a while
    seconds = round(time.monotonic() - started, 1)
    log.info(
        "started-from-snapshot",
        height=way.header.height,
        bytes=sync.progress.bytes,
        seconds=seconds,
    )
    return True
