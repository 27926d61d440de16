"""Datasets: registered by content id, usable once a quorum of validators holds every byte."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.codec import ContentId, PublicKey, Record, Uint
from mlchain.consensus.work.attestation import Available
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

    @property
    def facts(self) -> bytes:
        """The digest of what is said of it; who holds it says so of these facts alone."""
        said = (self.size, self.rows, self.features)
        return crypto.digest("mlchain/dataset-facts", codec.encode(said))


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
        known, voters = DATASETS.get(ctx.state, self.content), ctx.block.validators
        record = Dataset(ctx.sender, self.size, self.rows, self.features, ())
        if known is not None and known.facts == record.facts:
            return
        if known is None or get_held_weight(known.holders, voters) < voters.third:
            DATASETS.put(ctx.state, record, self.content)
        else:
            raise InvalidTransaction(
                "this content id is registered with other numbers",
                f"it has {known.size} bytes, {known.rows} rows, {known.features} features",
            )


def add_holder(state: State, said: Available, validator: bytes, validators: ValidatorSet) -> None:
    """Note that a validator holds a dataset; unknown ones, and other facts, are ignored."""
    record = DATASETS.get(state, said.content)
    if record is None or record.facts != said.facts or validator in record.holders:
        return
    holders = with_holder(record.holders, validator, validators)
    DATASETS.put(state, replace(record, holders=holders), said.content)


def with_holder(
    holders: tuple[bytes, ...], validator: bytes, validators: ValidatorSet
) -> tuple[bytes, ...]:
    """Return the present validators among `holders` and `validator`, in key order.

    Those that have left go: else the record would outgrow its bound as members come and go.
    """
    return tuple(sorted(key for key in (*holders, validator) if key in validators))


def is_available(state: State, content: bytes, validators: ValidatorSet) -> bool:
    """Tell whether a quorum of the present validators holds the dataset."""
    record = DATASETS.get(state, content)
    return record is not None and get_held_weight(record.holders, validators) >= validators.quorum


def get_held_weight(holders: tuple[bytes, ...], validators: ValidatorSet) -> int:
    """Return the weight of the present validators among `holders`."""
    return sum(validators.weight(key) for key in holders)
