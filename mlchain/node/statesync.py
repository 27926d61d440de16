"""State sync: a node starts from the state of a recent block instead of replaying all before it.

    offers of all peers -> the newest height -> certificates from the genesis file (or a block the
    operator trusts) to it -> 256 chunks from several peers, each checked when it comes -> install

Nobody is believed: the certificates lead to a state root, and each chunk is proven under it. Chunks
are kept on disk; after a crash those that are there are checked again and not fetched again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import structlog
import trio

from mlchain import codec
from mlchain.consensus.light import (
    MAX_PATH_BYTES,
    LightBlock,
    LightPath,
    LightQuestion,
    Trusted,
    advance,
    trust_block,
)
from mlchain.errors import (
    CodecError,
    InvalidBlock,
    InvalidSignature,
    MlchainError,
    NotFound,
    StoreCorrupted,
    Timeout,
    Unreachable,
    VerificationFailed,
)
from mlchain.ledger.block import Header
from mlchain.ledger.commit import Commit
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.kv import KeyValue
from mlchain.ledger.merkle import CHUNKS
from mlchain.ledger.snapshot import MAX_CHUNK_BYTES, check_chunk, install
from mlchain.ledger.state import State
from mlchain.ledger.validators import ValidatorSet
from mlchain.node.fetching import Fetching, Phase
from mlchain.node.progress import Progress
from mlchain.node.snapshots import (
    CHUNK_PROTOCOL,
    LIGHT_PROTOCOL,
    OFFERS_PROTOCOL,
    ChunkQuestion,
    Offers,
    SnapshotFolder,
)
from mlchain.p2p.transport import PeerRefused, Transport

log = structlog.get_logger("statesync")

AT_ONCE = 4
"""Chunks asked for at a time, all peers together."""
TIMEOUT_S = 60.0
OFFERS_TIMEOUT_S = 10.0
WAY_S = 120.0
"""So long may one peer take to lead here, to all the heights it offers together."""
RETRY_S = 1.0
FAR = 2**62

Lie = (CodecError, VerificationFailed, InvalidBlock, InvalidSignature)
"""What convicts the peer that answered, rather than the line to it."""


@dataclass(frozen=True, slots=True)
class Way:
    """Certified headers from what was trusted to a snapshot; each was signed by those before.

    `voters` signed the first.
    """

    voters: ValidatorSet
    marks: tuple[tuple[Header, Commit, ValidatorSet], ...]

    @property
    def header(self) -> Header:
        """The block of the snapshot."""
        return self.marks[-1][0]


class StateSync:
    """Fetches one snapshot and makes a store of it."""

    def __init__(
        self,
        transport: Transport,
        folder: SnapshotFolder,
        genesis: Genesis,
        start: Trusted,
        trust: tuple[int, bytes] | None = None,
        progress: Fetching | None = None,
    ) -> None:
        """`start` is trust in block 0; `trust` names a later block to start from instead.

        `progress` is kept up to date for whoever looks at it.
        """
        self._transport = transport
        self._folder = folder
        self._genesis = genesis
        self._start = start
        self._trust = trust
        self.progress = progress or Fetching()
        self._left: dict[bytes, float] = {}
        """Seconds of `WAY_S` that each peer has left."""
        self._asked: Counter[bytes] = Counter()
        """Chunks that each peer is to answer now."""
        self._failure: StoreCorrupted | None = None
        """What the disk said instead of taking a chunk."""
        self._heard: set[bytes] = set()
        """Who said what it offers, or that it offers nothing."""

    async def fetch(self, above: int, patience_s: float, is_needed: bool) -> Way | None:
        """Have all chunks of the newest snapshot above `above` on disk; None: nobody has one.

        `patience_s` is how long peers may take to be there and to offer something. Where it is not
        needed, it is enough that all peers there are have said that they offer nothing.

        Raises:
            StoreCorrupted: it is needed, and the disk does not take it.
        """
        deadline = trio.current_time() + patience_s
        while True:
            offers = await self._offers()
            newer = sorted((h for h in offers if h > above), key=self._rank, reverse=True)
            for height in newer:
                if self._failure is not None:
                    break
                with suppress(MlchainError):
                    return await self._fetch(height, offers[height])
            if self._failure is not None:  # no peer can help
                if is_needed:
                    raise self._failure
                return None
            everybody = {status.peer for status in self._transport.peers()}
            if not newer and not is_needed and everybody <= self._heard:
                return None
            if trio.current_time() >= deadline:
                return None
            await trio.sleep(RETRY_S)

    def install(self, kv: KeyValue, way: Way, initial: Callable[[State], None]) -> None:
        """Make a store of what `fetch` fetched; the chunks are checked once more."""
        height, root = way.header.height, way.header.state_root
        self.progress.phase = Phase.INSTALLING

        def chunks() -> Iterator[dict[bytes, bytes]]:
            for index, data in enumerate(self._folder.read_all(height)):
                yield check_chunk(data, index, root)

        install(kv, self._genesis, initial, way.voters, way.marks, chunks())
        self._folder.complete(height)
        log.info("snapshot-installed", height=height)

    def _rank(self, height: int) -> tuple[bool, int]:
        """Prefer what is half here already, then what is newer."""
        return height in self._folder.begun(), height

    def _peers(self) -> list[bytes]:
        peers = [status.peer for status in self._transport.peers() if status.connected]
        return [peer for peer in peers if peer not in self.progress.liars]

    async def _offers(self) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}

        async def ask(peer: bytes) -> None:
            with suppress(MlchainError):
                try:
                    data = await self._ask(peer, OFFERS_PROTOCOL, b"", 1024, OFFERS_TIMEOUT_S)
                except PeerRefused:  # it takes none, or begins itself
                    self._heard.add(peer)
                    return
                self._heard.add(peer)
                for height in codec.decode(Offers, data).heights:
                    found.setdefault(height, []).append(peer)

        async with trio.open_nursery() as nursery:
            for peer in self._peers():
                nursery.start_soon(ask, peer)
        return found

    async def _fetch(self, height: int, peers: list[bytes]) -> Way:
        way: Way | None = None
        for peer in peers:
            if peer in self.progress.liars:
                continue
            try:
                way = await self._lead(peer, height)
                break
            except MlchainError as error:
                self._blame(peer, error)
        if way is None:
            raise NotFound(f"nobody leads to block {height}")
        for old in self._folder.begun():
            if old != height:
                self._folder.remove(old)
        await self._fetch_chunks(way, peers)
        return way

    # ---- the way: certificates ----------------------------------------------------------------

    async def _lead(self, peer: bytes, height: int) -> Way:
        """Return the way to a block that `peer` gives.

        Raises:
            Timeout: it has taken all the time it gets.
            MlchainError: as `_find_way`.
        """
        left, started = self._left.get(peer, WAY_S), trio.current_time()
        with trio.move_on_after(left):
            try:
                return await self._find_way(peer, height)
            finally:
                self._left[peer] = max(0.0, left - (trio.current_time() - started))
        raise Timeout(f"leads to no block in {WAY_S:g} s")

    async def _find_way(self, peer: bytes, height: int) -> Way:
        """Return the way to a block, of every change of the validators on it.

        Raises:
            VerificationFailed, InvalidBlock, InvalidSignature: the peer leads elsewhere.
        """
        chain_id, trusted, marks = self._genesis.chain_id, self._start, []
        voters = ValidatorSet(trusted.validators)
        if self._trust is not None and self._trust[0] <= height:
            found = await self._light(peer, LightQuestion(FAR, self._trust[0]))
            if len(found) != 1:
                raise VerificationFailed(f"{len(found)} blocks in place of the one to trust")
            block = found[0]
            trusted = trust_block(block, *self._trust, chain_id)
            voters = ValidatorSet(block.validators)
            marks.append(_mark(block, trusted))
        while trusted.height < height:
            blocks = await self._light(peer, LightQuestion(trusted.height, height))
            if not blocks:
                raise VerificationFailed("an answer without blocks leads nowhere")
            for block in blocks:
                require_milestone(block, height)
                if block.validators != trusted.validators:
                    raise VerificationFailed(
                        f"block {block.header.height}: a change of the validators is left out"
                    )
                trusted = advance(trusted, block, chain_id)
                marks.append(_mark(block, trusted))
        if trusted.height != height:
            raise VerificationFailed(f"leads to block {trusted.height} instead of {height}")
        return Way(voters, tuple(marks))

    async def _light(self, peer: bytes, question: LightQuestion) -> tuple[LightBlock, ...]:
        most = 2 * MAX_PATH_BYTES
        data = await self._ask(peer, LIGHT_PROTOCOL, codec.encode(question), most, TIMEOUT_S)
        return codec.decode(LightPath, data, most).blocks

    # ---- the chunks ---------------------------------------------------------------------------

    async def _fetch_chunks(self, way: Way, peers: list[bytes]) -> None:
        """Fetch what is not here, from several peers at a time.

        Raises:
            NotFound: some chunk is had from nobody.
        """
        height, root = way.header.height, way.header.state_root
        missing = await trio.to_thread.run_sync(self._check_present, height, root)
        log.info("snapshot", height=height, here=CHUNKS - len(missing), of=CHUNKS)
        self.progress.begin(height, CHUNKS - len(missing))
        lines = Progress("snapshot", CHUNKS, self.progress.chunks)

        async def work() -> None:
            while missing:
                index = missing.pop()
                if not await self._fetch_chunk(height, root, index, peers):
                    missing.append(index)
                    return
                lines.done += 1
                lines.tell(height=height, bytes=self.progress.bytes)

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(work)
        if missing:
            raise NotFound(f"{len(missing)} chunks of block {height} are had from nobody")

    def _check_present(self, height: int, root: bytes) -> list[int]:
        missing = []
        for index in range(CHUNKS):
            data = self._folder.read_part(height, index)
            try:
                if data is None:
                    raise NotFound("not fetched")
                check_chunk(data, index, root)
            except MlchainError:
                missing.append(index)
        return missing

    async def _fetch_chunk(self, height: int, root: bytes, index: int, peers: list[bytes]) -> bool:
        """Fetch one chunk from the first who has it; tell whether it came."""
        question = codec.encode(ChunkQuestion(height, index))
        for peer in self._in_turn(peers, index):
            if peer in self.progress.liars:
                continue
            self._asked[peer] += 1
            try:
                data = await self._ask(peer, CHUNK_PROTOCOL, question, MAX_CHUNK_BYTES, TIMEOUT_S)
                await trio.to_thread.run_sync(check_chunk, data, index, root)
            except MlchainError as error:
                self._blame(peer, error, chunk=index)
                continue
            finally:
                self._asked[peer] -= 1
            try:
                await trio.to_thread.run_sync(self._folder.write, height, index, data)
            except StoreCorrupted as error:
                log.warning("snapshot-failed", height=height, reason=error.message)
                self._failure = error
                return False
            self.progress.add(peer, len(data))
            return True
        return False

    def _in_turn(self, peers: list[bytes], index: int) -> list[bytes]:
        """Order peers for a chunk: who has the fewest to answer, then another one for each."""
        here = self._peers()
        turn = [peer for peer in peers if peer in here]
        first = index % max(1, len(turn))
        return sorted(turn[first:] + turn[:first], key=self._asked.__getitem__)

    def _blame(self, peer: bytes, error: MlchainError, **where: int) -> None:
        """Note why a peer was of no use; one that lied is not asked again."""
        if isinstance(error, Lie):
            log.warning("lying-peer", peer=peer.hex()[:8], reason=error.message, **where)
            self.progress.liars[peer] = None
        else:
            log.info("peer-of-no-use", peer=peer.hex()[:8], reason=error.message, **where)

    def _ask(
        self, peer: bytes, protocol: str, payload: bytes, most: int, timeout_s: float
    ) -> Awaitable[bytes]:
        return self._transport.request(peer, protocol, payload, most, timeout_s)


def require_milestone(block: LightBlock, height: int) -> None:
    """Return if `block` belongs on a way to `height`: otherwise one step at a time has no end.

    Raises:
        VerificationFailed: it is neither the one asked, nor one after which others vote.
    """
    header = block.header
    if header.height != height and header.next_validators_hash == header.validators_hash:
        raise VerificationFailed(
            f"block {header.height}: neither the one asked nor a change of the validators"
        )


def _mark(block: LightBlock, after: Trusted) -> tuple[Header, Commit, ValidatorSet]:
    return block.header, block.commit, ValidatorSet(after.validators)


async def wait_for_peer(transport: Transport, patience_s: float) -> None:
    """Return when a peer is connected.

    Raises:
        Unreachable: none was, for so long.
    """
    with trio.move_on_after(patience_s):
        while not any(status.connected for status in transport.peers()):
            await trio.sleep(0.05)
        return
    raise Unreachable(f"no peer in {patience_s:g} s", "mlchain node --sync blocks starts without")
