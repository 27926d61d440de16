"""Our own hash chains: which generation holds which height, and the next one in time."""

from __future__ import annotations

import structlog
import trio

from mlchain.consensus.work.tickets import PURPOSES, TicketChain, chain_secret, make_chain, strides
from mlchain.crypto import SecretKey
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.state import State
from mlchain.node.outbox import Outbox
from mlchain.vm.families.renewal import RenewChains, generations

log = structlog.get_logger("chains")

AHEAD_EPOCHS = 4
"""The next generation is registered so many epochs before the last one ends, or a quarter of its
length if that is more: a node may be down for as long, and it begins without a gap still."""


class OwnChains:
    """The hash chains of one validator, generation after generation, all made from its key."""

    def __init__(self, genesis: Genesis, key: SecretKey) -> None:
        self.length = genesis.params.ticket_heights
        self._genesis, self._key = genesis, key
        self._starts = [0]
        """Height of the tips, by generation."""
        self._made: dict[tuple[int, str], TicketChain] = {}

    def follow(self, state: State) -> None:
        """Take note of what is registered."""
        starts = [chains.start for _, chains in generations(state, self._key.public)]
        self._starts = starts or [0]

    def element(self, purpose: str, height: int) -> bytes | None:
        """Return the element of `height`; None where no chain of ours has one."""
        for generation, start in enumerate(self._starts):
            if start < height <= start + self.length:  # `start` has the public tip
                return self._chain(generation, purpose).at(height - start)
        return None

    async def renew(self, height: int, epoch_blocks: int, outbox: Outbox) -> None:
        """Register the next generation if it is time, again and again until it is on chain."""
        last, start = len(self._starts) - 1, self._starts[-1]
        ahead = max(self.length // 4, AHEAD_EPOCHS * epoch_blocks)
        if height <= start or height < start + self.length - ahead:
            return
        tips = [await self._make(last + 1, purpose) for purpose in PURPOSES]
        log.info("renew-chains", generation=last + 1, end=start + self.length)
        outbox.send(RenewChains(last + 1, *tips))

    async def prepare(self, since: int) -> None:
        """Make every chain that has elements above height `since`, and forget those before.

        Between other things: a vote must not wait for a million hashes.
        """
        wanted = [
            (generation, purpose)
            for generation, start in enumerate(self._starts)
            if start + self.length > since
            for purpose in PURPOSES
        ]
        for place in [place for place in self._made if place[0] < wanted[0][0]] if wanted else []:
            del self._made[place]
        for generation, purpose in wanted:
            await self._make(generation, purpose)

    def _chain(self, generation: int, purpose: str) -> TicketChain:
        place = (generation, purpose)
        if place not in self._made:  # somebody asks for what is older than what was prepared
            self._made[place] = make_chain(
                self._key, purpose, self._genesis.chain_id, self.length, generation
            )
        return self._made[place]

    async def _make(self, generation: int, purpose: str) -> bytes:
        """Return the tip of a chain."""
        if (generation, purpose) not in self._made:
            kept = {}
            secret = chain_secret(self._key, purpose, self._genesis.chain_id, generation)
            for height, element in strides(secret, self.length):
                kept[height] = element
                await trio.lowlevel.checkpoint()
            self._made[generation, purpose] = TicketChain(self.length, kept)
        return self._made[generation, purpose].tip
