"""The answerer: has the models of the registry ready, and what is asked of them computed.

It works off the main loop, in an ML process of its own, so that an answer never waits for an audit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio

from mlchain.node.artifacts import Artifacts
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute
from mlchain.node.duties import Duties
from mlchain.node.examiner import RETRY_S
from mlchain.node.shelf import Shelf

log = structlog.get_logger("answerer")


@dataclass
class Answerer:
    """One validator's part in the registry of models."""

    key: bytes
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    duties: Duties
    poke: Callable[[], None]
    """Called when something waits for a precommit."""
    shelf: Shelf = field(init=False)
    _wake: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        """Have a shelf of our own."""
        self.shelf = Shelf(self.key, self.chain, self.artifacts, self.compute, self.duties)

    def on_block(self) -> None:
        """A block is final: there may be something to do."""
        self._wake.set()

    async def run(self) -> None:
        """Hold what is registered; for ever."""
        while True:
            self._wake = trio.Event()
            if self.key in self.chain.validators:  # else nothing we say counts any more
                await self.shelf.hold_all(self.chain.state())
                if self.duties.is_pending:
                    self.poke()
            with trio.move_on_after(RETRY_S):
                await self._wake.wait()
