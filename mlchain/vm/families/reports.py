"""Reports of elements of hash chains that were shown before their time.

Somebody announces one (`families/announcements.py`) and shows it when that is old enough.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from mlchain.codec import Hash, PublicKey, Uint
from mlchain.consensus.work.custody import KEY_DELAY
from mlchain.consensus.work.tickets import PURPOSES, check_reveal
from mlchain.errors import InvalidTransaction
from mlchain.ledger.genesis import Params
from mlchain.vm.context import Context, Payload
from mlchain.vm.families.announcements import take_announced
from mlchain.vm.families.custody import is_accused
from mlchain.vm.families.members import VALIDATORS, slash_validator
from mlchain.vm.families.renewal import known_element
from mlchain.vm.families.segments import HASH_GAS

REPORT_GAS = 50_000


class ReportReveal(Payload, frozen=True):
    """Anybody shows an element of a validator's hash chain that nobody might know yet.

    Whoever was lent one to make digests, or shown one to learn a slice, earns half of the slash;
    nothing while a digest of the owner is asked for or judged, for a friend could report it then to
    have half of a slash back that is due anyway.
    `announced` is the height of the block with the announcement.
    """

    KIND: ClassVar[int] = 27
    FREE: ClassVar[bool] = True
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
        take_announced(ctx, self)
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
        finder = b"" if is_accused(ctx.state, self.validator) else ctx.sender
        slash_validator(block, self.validator, "early-reveal", finder, amount=params.slash_lazy)
        ctx.emit(f"{PURPOSES[self.purpose]} element of height {self.height} shown too early")


def latest_due(purpose: int, height: int, params: Params) -> int:
    """Return the highest height whose element an honest validator may have shown by block `height`.

    Its precommits of this very height may be around: they are for this block, or one that failed.
    A ticket is shown from the block after its commit on.
    """
    ages = {"tickets": 1, "beacon": 0, "custody": params.attest_window + KEY_DELAY}
    return max(0, height - ages[PURPOSES[purpose]])
