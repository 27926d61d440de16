"""Reports of elements of hash chains that were shown before their time.

A report earns half of a slash, and whoever builds the next block sees it first. So it is announced
by a hash that names its sender, and shown when that is old enough: who copies it then has to wait
while an honest proposer takes the first one.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from mlchain import codec, crypto
from mlchain.codec import Hash, PublicKey, Uint
from mlchain.consensus.work.custody import KEY_DELAY
from mlchain.consensus.work.tickets import PURPOSES, check_reveal
from mlchain.errors import InvalidTransaction
from mlchain.ledger.genesis import Params
from mlchain.ledger.state import Mark, Table
from mlchain.vm.context import BlockContext, Context, Payload
from mlchain.vm.cover import finality_depth
from mlchain.vm.families.members import VALIDATORS, same_schedule_since, slash_validator
from mlchain.vm.families.renewal import known_element
from mlchain.vm.families.segments import HASH_GAS

ANNOUNCE_GAS = 20_000
REPORT_GAS = 50_000
REPORT_BLOCKS = 1_000
"""Blocks after which an announcement is forgotten."""

REPORTS = Table(b"report/", Mark, int, bytes)
"""Announcements, by their height and what was announced."""


class AnnounceReport(Payload, frozen=True):
    """Say that one has a report; `report` is its `report_hash`."""

    KIND: ClassVar[int] = 29
    report: Hash

    def execute(self, ctx: Context) -> None:
        """Note when it was said."""
        ctx.charge(ANNOUNCE_GAS)
        REPORTS.put(ctx.state, Mark(), ctx.block.height, self.report)


class ReportReveal(Payload, frozen=True):
    """Anybody shows an element of a validator's hash chain that nobody might know yet.

    Whoever was lent one to make digests, or shown one to learn a slice, earns half of the slash.
    `announced` is the height of the block with the announcement.
    """

    KIND: ClassVar[int] = 27
    validator: PublicKey
    purpose: Annotated[int, Meta(ge=0, le=len(PURPOSES) - 1)]
    height: Uint
    element: Hash
    announced: Uint

    def execute(self, ctx: Context) -> None:
        """Slash and remove the validator whose secret got out."""
        ctx.charge(REPORT_GAS)
        block, params = ctx.block, ctx.block.params
        record = VALIDATORS.get(ctx.state, self.validator)
        if record is None or record.left_height:
            raise InvalidTransaction("it is no validator")
        said = report_hash(ctx.sender, self.validator, self.purpose, self.height, self.element)
        if REPORTS.get(ctx.state, self.announced, said) is None:
            raise InvalidTransaction(
                f"this was not announced by its sender in block {self.announced}",
                "announce it first",
            )
        first = ripe_height(block, self.announced)
        if block.height < first:
            raise InvalidTransaction(f"this can be shown from height {first} on")
        known = known_element(
            ctx.state, self.validator, PURPOSES[self.purpose], self.height, params.ticket_heights
        )
        if known is None:
            raise InvalidTransaction(f"no hash chain of it holds height {self.height}")
        due = latest_due(self.purpose, self.announced, params)
        if self.height <= due:
            raise InvalidTransaction(f"what is above height {due} was secret")
        ctx.charge(HASH_GAS * abs(self.height - known.height))
        if check_reveal(known, self.element, self.height) is None:
            raise InvalidTransaction("the element is not of its registered chain")
        REPORTS.delete(ctx.state, self.announced, said)
        slash_validator(block, self.validator, "early-reveal", ctx.sender, amount=params.slash_lazy)
        ctx.emit(f"{PURPOSES[self.purpose]} element of height {self.height} shown too early")


def report_hash(
    sender: bytes, validator: bytes, purpose: int, height: int, element: bytes
) -> bytes:
    """Return what announces a report; who does not know the element cannot make it."""
    said = (sender, validator, purpose, height, element)
    return crypto.digest("mlchain/report", codec.encode(said))


def ripe_height(block: BlockContext, announced: int) -> int:
    """Return from which height on a report may be shown: an honest proposer came in between.

    Counted anew where the schedule of proposers changed, as for FINALISE.
    """
    since = max(announced, same_schedule_since(block.state) - 1)
    return since + finality_depth(block.validators)


def latest_due(purpose: int, height: int, params: Params) -> int:
    """Return the highest height whose element an honest validator may have shown by block `height`.

    Its precommits of this very height may be around: they are for this block, or one that failed.
    A ticket is shown from the block after its commit on.
    """
    ages = {"tickets": 1, "beacon": 0, "custody": params.attest_window + KEY_DELAY}
    return max(0, height - ages[PURPOSES[purpose]])


def forget_reports(block: BlockContext) -> None:
    """Forget announcements that nothing followed."""
    for (height, said), _ in REPORTS.items(block.state):
        if height + REPORT_BLOCKS >= block.height:
            break
        REPORTS.delete(block.state, height, said)
