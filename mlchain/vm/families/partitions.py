"""Partitions: a dataset whose rows a seed that nobody could choose deals to several parts.

`DrawPartitions` asks for the draw. Two blocks after a quorum holds the dataset the beacon makes the
seed (`vm.drawing`), and from the seed and the dataset everybody makes the same parts
(`ml_runtime.partition`). `NamePartitions` says what their content ids are: whoever sends it, it
holds once a quorum of validators has made the parts itself and found the same. From then on each
part is a dataset as any other, held by those validators though nobody uploaded it.

What is said has an id of 36 bytes, as long as a content id and none. Under it validators confirm it
in their votes, in the same list as the datasets that they hold.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.codec import ContentId, Hash, PublicKey, Record, Uint
from mlchain.consensus.work.attestation import Available
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import Mark, State, Table
from mlchain.ledger.validators import MAX_VALIDATORS, ValidatorSet
from mlchain.vm.context import BlockContext, Context, Payload
from mlchain.vm.families.data import (
    DATASETS,
    MAX_DATASET_BYTES,
    Dataset,
    add_holder,
    is_available,
)
from mlchain.vm.families.jobs import Seed

DRAW_DELAY = 2
"""Blocks between the request, or the block that found the data held, and the beacon."""
MAX_PARTS = 256
MAX_PARTS_BYTES = 2 * MAX_DATASET_BYTES
"""Of all parts together; each ends with the test rows."""
SAID = b"said"
"""Begins the id of what validators confirm; no content id begins so."""
DRAW_GAS = 20_000
NAME_GAS = 20_000
PART_GAS = 5_000

Holders = Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_VALIDATORS)]


class Part(Record, frozen=True):
    """One part: a dataset of `size` bytes and `rows` rows, the test rows among them."""

    content: ContentId
    size: Annotated[int, Meta(ge=1, le=MAX_DATASET_BYTES)]
    rows: Annotated[int, Meta(ge=1, le=2**32)]


Parts = Annotated[tuple[Part, ...], Meta(max_length=MAX_PARTS)]


class Draw(Record, frozen=True):
    """A draw of `parts` parts of a dataset, whose last `test_rows` rows end every part.

    `seed` is empty until it is drawn, `named` until a quorum has confirmed the parts.
    """

    owner: PublicKey
    content: ContentId
    parts: Annotated[int, Meta(ge=2, le=MAX_PARTS)]
    test_rows: Uint
    height: Uint
    """Of the request, and then of the seed."""
    seed: Seed
    named: Parts


class Naming(Record, frozen=True):
    """What somebody says the parts of a draw are, and who found it so."""

    draw: Hash
    parts: Parts
    holders: Holders


class PartOf(Record, frozen=True):
    """From which draw a dataset can be made again."""

    draw: Hash


DRAWS = Table(b"draw/", Draw, bytes)
"""By the id of the request."""
DRAWS_OF = Table(b"draw-of/", Mark, bytes, bytes)
"""By the digest part of the dataset's content id, and the draw."""
WAITING_DRAWS = Table(b"draw-waiting/", Mark, bytes, bytes)
"""The draws whose dataset no quorum holds yet; keyed as DRAWS_OF."""
DUE_DRAWS = Table(b"draw-due/", Mark, int, bytes)
"""By the height whose beacon makes the seed."""
NAMINGS = Table(b"naming/", Naming, bytes)
"""By the id of what is said."""
OPEN_NAMINGS = Table(b"naming-open/", Mark, bytes, bytes)
"""By draw: what is said of parts that no quorum has confirmed."""
PART_OF = Table(b"part-of/", PartOf, bytes)


class DrawPartitions(Payload, frozen=True):
    """Ask for a draw of a registered dataset; its id is the transaction's."""

    KIND: ClassVar[int] = 11
    content: ContentId
    parts: Annotated[int, Meta(ge=2, le=MAX_PARTS)]
    test_rows: Annotated[int, Meta(ge=0, le=2**32)]

    def execute(self, ctx: Context) -> None:
        """Note the request; its seed comes from a beacon that nobody knows yet."""
        ctx.charge(DRAW_GAS)
        dataset = DATASETS.get(ctx.state, self.content)
        if dataset is None:
            raise InvalidTransaction("the dataset is not registered", "send RegisterData first")
        if self.parts + self.test_rows > dataset.rows:
            raise InvalidTransaction(
                f"{dataset.rows} rows do not make {self.parts} parts and {self.test_rows} to test"
            )
        size = total_bytes(dataset, self.parts, self.test_rows)
        if size > MAX_PARTS_BYTES:
            raise InvalidTransaction(
                f"the parts would have {size} bytes, at most {MAX_PARTS_BYTES} allowed",
                "use fewer parts or fewer test rows",
            )
        ctx.charge(size // 64)
        identity, height = ctx.transaction_id, ctx.block.height
        draw = Draw(ctx.sender, self.content, self.parts, self.test_rows, height, b"", ())
        DRAWS.put(ctx.state, draw, identity)
        DRAWS_OF.put(ctx.state, Mark(), self.content[4:], identity)
        if is_available(ctx.state, self.content, ctx.block.validators):
            DUE_DRAWS.put(ctx.state, Mark(), height + DRAW_DELAY, identity)
        else:
            WAITING_DRAWS.put(ctx.state, Mark(), self.content[4:], identity)
        ctx.emit(f"draw {identity.hex()} of {self.parts} parts")


class NamePartitions(Payload, frozen=True):
    """Say what the parts of a draw are; validators make them and compare."""

    KIND: ClassVar[int] = 12
    draw: Hash
    parts: Parts

    def execute(self, ctx: Context) -> None:
        """Note what is said, until a quorum has confirmed this or another saying."""
        ctx.charge(NAME_GAS + PART_GAS * len(self.parts))
        draw = DRAWS.get(ctx.state, self.draw)
        if draw is None:
            raise InvalidTransaction("there is no such draw")
        if not draw.seed:
            raise InvalidTransaction("the seed is not drawn yet", "wait two blocks")
        if draw.named:
            raise InvalidTransaction("the parts of this draw have their names")
        if len(self.parts) != draw.parts:
            raise InvalidTransaction(f"{len(self.parts)} parts of {draw.parts}")
        identity = naming_id(self.draw, self.parts)
        if NAMINGS.get(ctx.state, identity) is None:
            NAMINGS.put(ctx.state, Naming(self.draw, self.parts, ()), identity)
            OPEN_NAMINGS.put(ctx.state, Mark(), self.draw, identity)


def total_bytes(dataset: Dataset, parts: int, test_rows: int) -> int:
    """Return what all parts of a dataset have together, but for their headers."""
    return dataset.size * (dataset.rows + (parts - 1) * test_rows) // dataset.rows


def naming_id(draw: bytes, parts: tuple[Part, ...]) -> bytes:
    """Return the id of what is said: that these are the parts of a draw."""
    return SAID + crypto.digest("mlchain/parts", draw, codec.encode(parts))


def add_naming_holder(block: BlockContext, identity: bytes, validator: bytes) -> None:
    """Note that a validator has made the parts that are said and found the same."""
    state, naming = block.state, NAMINGS.get(block.state, identity)
    if naming is None or validator in naming.holders or validator not in block.validators:
        return
    present = (key for key in (*naming.holders, validator) if key in block.validators)
    naming = replace(naming, holders=tuple(sorted(present)))
    NAMINGS.put(state, naming, identity)
    draw = DRAWS.get(state, naming.draw)
    assert draw is not None, "what is said is about a draw"
    if draw.named:
        for part in draw.named:
            facts = _dataset(state, draw, part).facts
            add_holder(state, Available(part.content, facts), validator, block.validators)
    elif sum(map(block.validators.weight, naming.holders)) >= block.validators.quorum:
        _name(state, draw, identity, naming, block.validators)


def _name(
    state: State, draw: Draw, identity: bytes, naming: Naming, validators: ValidatorSet
) -> None:
    """Make every part a dataset, and forget what else was said.

    Whatever somebody registered under a part's id with other numbers was wrong.
    """
    DRAWS.put(state, replace(draw, named=naming.parts), naming.draw)
    for part in naming.parts:
        made, known = _dataset(state, draw, part), DATASETS.get(state, part.content)
        before = known.holders if known is not None and known.facts == made.facts else ()
        keys = sorted(dict.fromkeys((*before, *naming.holders)))
        holders = tuple(key for key in keys if key in validators)
        DATASETS.put(state, replace(made, holders=holders), part.content)
        PART_OF.put(state, PartOf(naming.draw), part.content)
    for (_, other), _ in list(OPEN_NAMINGS.items(state, naming.draw)):
        OPEN_NAMINGS.delete(state, naming.draw, other)
        if other != identity:
            NAMINGS.delete(state, other)


def _dataset(state: State, draw: Draw, part: Part) -> Dataset:
    """Return what a part is as a dataset, held by nobody."""
    parent = DATASETS.get(state, draw.content)
    assert parent is not None, "datasets stay registered"
    return Dataset(draw.owner, part.size, part.rows, parent.features, ())


def get_draws(state: State, content: bytes) -> list[tuple[bytes, Draw]]:
    """Return the draws of a dataset with their ids, the latest first."""
    found = []
    for (_, identity), _ in DRAWS_OF.items(state, content[4:]):
        draw = DRAWS.get(state, identity)
        assert draw is not None, "draws stay"
        if draw.content == content:
            found.append((identity, draw))
    return sorted(found, key=lambda pair: -pair[1].height)
