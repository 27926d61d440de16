"""What executing code may see and touch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from mlchain.codec import Record
from mlchain.errors import OutOfGas
from mlchain.ledger.block import PROTOCOL_VERSION
from mlchain.ledger.genesis import Params
from mlchain.ledger.state import State
from mlchain.ledger.validators import ValidatorSet

MAX_EVENTS = 32


@dataclass(frozen=True, slots=True)
class BlockContext:
    """The block being executed: its place, time, proposer, and who may vote on it."""

    state: State
    chain_id: str
    params: Params
    height: int
    time_ms: int
    proposer: bytes
    validators: ValidatorSet
    version: int = PROTOCOL_VERSION
    """Of the rules it follows."""


@dataclass(slots=True)
class Context:
    """One transaction's view of the world."""

    block: BlockContext
    sender: bytes
    transaction_id: bytes
    gas_left: int
    events: list[str] = field(default_factory=list)

    @property
    def state(self) -> State:
        """The state under execution; undone if the transaction fails."""
        return self.block.state

    def charge(self, gas: int) -> None:
        """Spend `gas` before the work it stands for.

        Raises:
            OutOfGas: more than is left.
        """
        if gas > self.gas_left:
            raise OutOfGas(f"needs {gas} gas, {self.gas_left} left", "raise the gas limit")
        self.gas_left -= gas

    def emit(self, event: str) -> None:
        """Add a short line to the receipt; beyond the bound it is dropped."""
        if len(self.events) < MAX_EVENTS:
            self.events.append(event[:256])


class Payload(Record, frozen=True):
    """A transaction kind: a record with a tag that knows how to execute itself.

    `KIND` stands in the transaction; `ROLE` names who may send it ("" for anybody). What has a role
    is a duty, which nodes take for nothing; `FREE`: so is this from validators.
    """

    KIND: ClassVar[int]
    ROLE: ClassVar[str] = ""
    FREE: ClassVar[bool] = False

    def execute(self, ctx: Context) -> None:
        """Apply to `ctx.state`, charging gas before each effect.

        Raises:
            InvalidTransaction: cannot be done; everything it did is undone.
        """
        raise AssertionError("a kind defines execute")
