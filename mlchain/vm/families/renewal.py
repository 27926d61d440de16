"""Hash chains that follow when the first ones end: who registered which, and when they begin.

A chain has `ticket_heights` elements. Generation 0 is what a validator came with
(`ValidatorRecord`); it registers each further one while the last but one is in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

from msgspec.structs import replace

from mlchain.codec import Hash, Record, Uint
from mlchain.consensus.work.tickets import PURPOSES, Reveal, check_reveal, hash_down
from mlchain.errors import InvalidTransaction
from mlchain.ledger.genesis import Params
from mlchain.ledger.state import State, Table
from mlchain.vm.context import BlockContext, Context, Payload
from mlchain.vm.families.changes import check_tips
from mlchain.vm.families.members import TIPS, VALIDATORS, Registered, replace_validator
from mlchain.vm.params import epoch_of

RENEW_GAS = 20_000


class Renewed(Record, frozen=True):
    """The public ends of three hash chains whose tips are at height `start`."""

    start: Uint
    tickets: Reveal
    beacon: Reveal
    custody: Reveal


RENEWED = Table(b"renewed/", Renewed, bytes, int)
"""By validator and generation, from 1 on. Kept for ever: receipts rest on them."""


class Chains(Protocol):
    """What a `ValidatorRecord` and a `Renewed` have in common."""

    @property
    def start(self) -> int:
        """Height of the tips."""

    @property
    def tickets(self) -> Reveal:
        """Highest element that is public."""

    @property
    def beacon(self) -> Reveal:
        """Highest element that is public."""

    @property
    def custody(self) -> Reveal:
        """Highest element that is public."""


def generations(state: State, validator: bytes) -> Iterator[tuple[int, Chains]]:
    """Yield the number and the chains of each generation, oldest first."""
    record = VALIDATORS.get(state, validator)
    if record is not None:
        yield 0, record
        for (_, number), renewed in RENEWED.items(state, validator):
            yield number, renewed


def find_chains(
    state: State, validator: bytes, height: int, length: int
) -> tuple[int, Chains] | None:
    """Return the generation that holds the elements of `height`, None if there is none.

    Not that which begins there: its element of `start` is the tip, public since it was registered.
    """
    for number, chains in generations(state, validator):
        if chains.start < height <= chains.start + length:
            return number, chains
    return None


def known_element(
    state: State, validator: bytes, purpose: str, height: int, length: int
) -> Reveal | None:
    """Return the highest public element of the chain that holds `height`, None without one."""
    found = find_chains(state, validator, height, length)
    if found is None:
        return None
    known: Reveal = getattr(found[1], purpose)
    return known


def public_element(
    state: State, validator: bytes, purpose: str, height: int, length: int
) -> bytes | None:
    """Return the element of `height`, None while it is secret, or where there is none."""
    known = known_element(state, validator, purpose, height, length)
    if known is None or known.height < height:
        return None
    return hash_down(known.element, known.height - height)


def show_element(
    state: State, validator: bytes, purpose: str, height: int, element: bytes, params: Params
) -> bool:
    """Take note that `element` is public; return whether it is the one of `height`."""
    found = find_chains(state, validator, height, params.ticket_heights)
    return found is not None and _show(state, validator, found, purpose, height, element)


def show_next(
    state: State, validator: bytes, purpose: str, height: int, element: bytes, params: Params
) -> bool:
    """Take note that `element` is public; return whether it is the one of `height`, and new."""
    found = find_chains(state, validator, height, params.ticket_heights)
    if found is None or height <= getattr(found[1], purpose).height:
        return False
    return _show(state, validator, found, purpose, height, element)


def _show(
    state: State,
    validator: bytes,
    found: tuple[int, Chains],
    purpose: str,
    height: int,
    element: bytes,
) -> bool:
    number, chains = found
    known = getattr(chains, purpose)
    reveal = check_reveal(known, element, height)
    if reveal is None:
        return False
    if reveal != known and isinstance(chains, Renewed):
        RENEWED.put(state, replace(chains, **{purpose: reveal}), validator, number)
    elif reveal != known:
        replace_validator(state, validator, **{purpose: reveal})
    return True


def next_start(end: int, block: BlockContext) -> int:
    """Return where chains begin that follow others with this `end`.

    Never before a whole epoch has passed since they were registered: nobody can know what the
    others will show there, and choose by it.
    """
    epoch = epoch_of(block.params, block.height)
    return max(end, (epoch + 2) * block.params.epoch_blocks - 1)


class RenewChains(Payload, frozen=True):
    """A validator registers the hash chains that follow its last ones."""

    KIND: ClassVar[int] = 28
    ROLE: ClassVar[str] = "validator"
    generation: Uint
    ticket_tip: Hash
    beacon_tip: Hash
    custody_tip: Hash

    def execute(self, ctx: Context) -> None:
        """Fix them, once, for the heights from the end of the last ones on."""
        ctx.charge(RENEW_GAS)
        block, (number, last) = ctx.block, list(generations(ctx.state, ctx.sender))[-1]
        if self.generation != number + 1:
            raise InvalidTransaction(
                f"generation {self.generation} of these hash chains, the next is {number + 1}",
                "each is registered once",
            )
        if last.start >= block.height:
            raise InvalidTransaction(
                f"generation {number} begins at height {last.start}", "the next can wait until then"
            )
        tips = (self.ticket_tip, self.beacon_tip, self.custody_tip)
        check_tips(ctx.state, tips)
        for tip in tips:
            TIPS.put(ctx.state, Registered(ctx.sender), tip)
        start = next_start(last.start + block.params.ticket_heights, block)
        renewed = Renewed(start, *(Reveal(tip, start) for tip in tips))
        RENEWED.put(ctx.state, renewed, ctx.sender, self.generation)
        ctx.emit(f"hash chains {self.generation} from height {start} on")


assert set(PURPOSES) <= set(Renewed.__struct_fields__), "a field is found by its purpose"
