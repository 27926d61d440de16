"""Datasets: registered by content id, usable once a quorum of validators holds every byte."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from mlchain.codec import ContentId, PublicKey, Record, Uint
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import State, Table
from mlchain.ledger.validators import MAX_VALIDATORS, ValidatorSet
from mlchain.vm.context import Context, Payload

REGISTER_GAS = 2_000
MAX_DATASET_BYTES = 1 << 30


class Dataset(Record, frozen=True):
    """A registered dataset of `size` bytes, and the validators that hold and have decoded it."""

    owner: PublicKey
    size: Uint
    rows: Uint
    features: Uint
    holders: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_VALIDATORS)]


DATASETS = Table(b"dataset/", Dataset, bytes)


class RegisterData(Payload, frozen=True):
    """Announce a dataset; validators fetch it by its content id and check the numbers."""

    KIND: ClassVar[int] = 10
    content: ContentId
    size: Annotated[int, Meta(ge=1, le=MAX_DATASET_BYTES)]
    rows: Annotated[int, Meta(ge=1, le=2**32)]
    features: Annotated[int, Meta(ge=1, le=2**24)]

    def execute(self, ctx: Context) -> None:
        """Store the record; registering the same dataset again changes nothing.

        Wrong numbers of somebody else are replaced until an honest validator, one of more than a
        third, has confirmed them by holding the data: a content id cannot be squatted.
        """
        ctx.charge(REGISTER_GAS)
        known = DATASETS.get(ctx.state, self.content)
        third = ctx.block.validators.third
        if known is None or get_held_weight(known, ctx.block.validators) < third:
            record = Dataset(ctx.sender, self.size, self.rows, self.features, ())
            DATASETS.put(ctx.state, record, self.content)
        elif (known.size, known.rows, known.features) != (self.size, self.rows, self.features):
            raise InvalidTransaction(
                "this content id is registered with other numbers",
                f"it has {known.size} bytes, {known.rows} rows, {known.features} features",
            )


def add_holder(state: State, content: bytes, validator: bytes, validators: ValidatorSet) -> None:
    """Note that a validator holds a dataset; unknown datasets are ignored.

    Those that have left go: else the record would outgrow its bound as members come and go.
    """
    record = DATASETS.get(state, content)
    if record is not None and validator not in record.holders and validator in validators:
        holders = tuple(sorted(key for key in (*record.holders, validator) if key in validators))
        DATASETS.put(
            state,
            Dataset(record.owner, record.size, record.rows, record.features, holders),
            content,
        )


def is_available(state: State, content: bytes, validators: ValidatorSet) -> bool:
    """Tell whether a quorum of the present validators holds the dataset."""
    record = DATASETS.get(state, content)
    return record is not None and get_held_weight(record, validators) >= validators.quorum


def get_held_weight(record: Dataset, validators: ValidatorSet) -> int:
    """Return the weight of the present validators that hold the dataset."""
    return sum(validators.weight(key) for key in record.holders)
