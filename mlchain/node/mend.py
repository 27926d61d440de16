"""Damaged blocks of a running node: found by reading everything now and then, fetched from peers.

A block that is damaged here is whole at others, and its certificate shows that it is the one.
Nothing waits for it: what is damaged is an error to whoever asks meanwhile, and never an answer.
"""

from __future__ import annotations

import structlog
import trio

from mlchain import codec
from mlchain.codec import Record, Uint
from mlchain.consensus.light import LightBlock, check_sets, make_light_block
from mlchain.errors import InvalidBlock, MlchainError
from mlchain.ledger.block import Block, Body, header_id
from mlchain.ledger.commit import verify_commit
from mlchain.ledger.history import find_damage
from mlchain.ledger.kv import MemoryKeyValue, Unreadable
from mlchain.ledger.merkle import SparseTree
from mlchain.ledger.rows import RECEIPTS
from mlchain.ledger.state import State
from mlchain.ledger.store import Store, genesis_block
from mlchain.ledger.validators import ValidatorSet
from mlchain.p2p.transport import Transport
from mlchain.vm.initial import write_genesis

log = structlog.get_logger("mend")

WHOLE_PROTOCOL = "/mlchain/whole-block/1"
MAX_WHOLE_BYTES = 48 << 20
TIMEOUT_S = 30.0
PAUSE_S = 0.01
"""After each block that was looked at, for others to have their turn."""
AGAIN_S = 6 * 3600.0
"""Pause between two looks at everything."""


class WholeQuestion(Record, frozen=True):
    """Asks for everything about one block."""

    height: Uint


class WholeBlock(Record, frozen=True):
    """A block with its certificate, those who vote on it and after it, and its receipts."""

    light: LightBlock
    body: Body
    receipts: RECEIPTS


class Mender:
    """Looks for damaged blocks and puts them back."""

    def __init__(self, store: Store, transport: Transport) -> None:
        self._store = store
        self._transport = transport
        transport.serve(WHOLE_PROTOCOL, self._serve)

    async def run(self) -> None:
        """Look at everything that is kept, again and again; for ever."""
        while True:
            try:
                await self.look()
            except Unreadable as error:  # blocks may still be made, until the files are merged
                log.error("database-damaged", what=error.message, hint=error.hint)
            await trio.sleep(AGAIN_S)

    async def look(self) -> int:
        """Look at every block once and mend what can be; return how many stay damaged."""
        left = 0
        for damage in find_damage(self._store, 0, self._store.height):
            if damage and self._is_damaged(damage.height):  # not mended with one before it
                log.warning("block-damaged", height=damage.height, what=damage.what)
                left += not await self._mend(damage.height)
            await trio.sleep(PAUSE_S)
        return left

    def _is_damaged(self, height: int) -> bool:
        return height >= self._store.kept and any(find_damage(self._store, height, height))

    async def _mend(self, height: int) -> bool:
        """Put one block back; tell whether it is whole now."""
        if height == 0:
            genesis = self._store.genesis
            state = State(MemoryKeyValue(), SparseTree())
            write_genesis(state, genesis)
            self._store.restore(genesis_block(genesis, state), None, (), genesis.validators())
            return not self._is_damaged(0)
        question = codec.encode(WholeQuestion(height))
        for status in self._transport.peers():
            if not status.connected:
                continue
            try:
                data = await self._transport.request(
                    status.peer, WHOLE_PROTOCOL, question, MAX_WHOLE_BYTES, TIMEOUT_S
                )
                self._take(height, codec.decode(WholeBlock, data, MAX_WHOLE_BYTES))
            except MlchainError as error:
                log.info("not-mended", height=height, peer=status.name, reason=error.message)
                continue
            log.warning("block-mended", height=height, peer=status.name)
            return not self._is_damaged(height)
        return False

    def _take(self, height: int, whole: WholeBlock) -> None:
        """Put back a block that a peer gave.

        Raises:
            InvalidBlock, InvalidSignature, VerificationFailed: it is not the one.
        """
        light, chain_id = whole.light, self._store.genesis.chain_id
        voters = self._store.validators_after(height - 1)
        after = check_sets(light, chain_id)
        if light.header.validators_hash != voters.hash:
            raise InvalidBlock(f"block {height} is signed by others than voted then")
        verify_commit(light.commit, chain_id, voters, height, header_id(light.header))
        block = Block(light.header, whole.body)
        self._store.restore(block, light.commit, whole.receipts, ValidatorSet(after.validators))

    async def _serve(self, peer: bytes, payload: bytes) -> bytes:
        height = codec.decode(WholeQuestion, payload, 32).height
        store = self._store
        body, receipts = store.block(height).body, store.receipts(height)
        return codec.encode(WholeBlock(make_light_block(store, height), body, receipts))
