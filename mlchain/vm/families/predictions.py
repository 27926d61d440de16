"""Predictions: a registered model is asked, validators compute the answer, the chain records it.

The answers ride in votes (`vm.votes`, `vm.answering`); here are the records and the request.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, ClassVar

from msgspec import Meta

from mlchain.codec import ContentId, Hash, PublicKey, Record, Uint
from mlchain.consensus.work.answers import MAX_VALUE_BYTES
from mlchain.errors import CodecError, InvalidRows, InvalidTransaction, UnknownModel
from mlchain.ledger.state import Mark, State, Table
from mlchain.ledger.unixfs import cid_of
from mlchain.ledger.validators import MAX_VALIDATORS
from mlchain.ml_runtime.serving import MAX_ROWS, count_rows, rows_limit
from mlchain.vm.context import Context, Payload
from mlchain.vm.families.accounts import debit
from mlchain.vm.families.data import DATASETS, is_available
from mlchain.vm.families.models import MODEL_FILES, MaybeContent, ModelFile, is_usable
from mlchain.vm.families.submit import GAS_PER_MICROCREDIT

REQUEST_GAS = 50_000
READ_GAS = 50
"""For each byte of rows in a transaction."""
ANSWER_GAS = 1_000_000
"""What an answer costs a validator besides computing it: a commitment, a reveal, their votes."""
MAX_REQUEST_GAS = 10 * 10**9
MAX_INLINE_BYTES = 16 << 10
MAX_SCORES = 1 << 20
"""Rows times outputs of a request."""
MAX_TIP = 2**40
AGE_CREDITS = 1_000
"""Micro-credits of tip that a block of waiting is worth: who asked first is never overtaken by more
than the difference of tips allows."""
_NEWEST = 2**62

REPLICATED, DRAWN = "replicated", "drawn"
Tier = Annotated[str, Meta(pattern=r"^(replicated|drawn:[1-9][0-9]{0,2})\Z")]
"""replicated: every validator computes, and a quorum has to agree. drawn:K: K of them do, whom
nobody could foresee, and all have to agree; if they do not, everybody computes."""


class PredictionState(IntEnum):
    """Where a request stands."""

    QUEUED = 0
    DRAWING = 1
    """Begun; the elements that draw its committee are being shown."""
    OPEN = 2
    """Validators compute, and bind themselves."""
    CLOSED = 3
    """Who is bound is fixed, and shows its answer."""
    ANSWERED = 4
    FAILED = 5
    """No quorum agreed in time. The fee is back, unless it was for want of the rows."""


class Bound(Record, frozen=True):
    """A validator's commitment."""

    validator: PublicKey
    hash: Hash


class Told(Record, frozen=True):
    """A validator's answer."""

    validator: PublicKey
    outcome: Uint
    content: MaybeContent
    value: Annotated[bytes, Meta(max_length=MAX_VALUE_BYTES)]
    """The bytes of a short answer, until one of them is the answer."""
    is_blind: bool
    """Whether its maker bound itself before any answer was to be seen."""


class Prediction(Record, frozen=True):
    """A request and what came of it. Its id is that of its transaction.

    `data` names the rows, or for an evaluation the dataset whose last `rows` rows are asked about.
    `height` is that of the last change of `state`; `ready`, while it is OPEN, that of the block
    from which on a quorum is bound, 0 before. `committee` is empty where all compute; while it is
    DRAWING, it holds those whose elements draw it.
    """

    requester: PublicKey
    model: ContentId
    data: ContentId
    rows: Uint
    is_evaluation: bool
    tier: Tier
    tip: Uint
    escrow: Uint
    gas: Uint
    state: Uint
    asked: Uint
    height: Uint
    ready: Uint
    committee: Annotated[tuple[PublicKey, ...], Meta(max_length=MAX_VALIDATORS)]
    bound: Annotated[tuple[Bound, ...], Meta(max_length=MAX_VALIDATORS)]
    told: Annotated[tuple[Told, ...], Meta(max_length=MAX_VALIDATORS)]
    outcome: Uint
    content: MaybeContent
    value: Annotated[bytes, Meta(max_length=MAX_VALUE_BYTES)]


class Rows(Record, frozen=True):
    """Rows that came with a request; kept until it ends."""

    data: Annotated[bytes, Meta(max_length=MAX_INLINE_BYTES)]


PREDICTIONS = Table(b"prediction/", Prediction, bytes)
ROWS = Table(b"rows/", Rows, bytes)
QUEUE = Table(b"queue/", Mark, int, int, bytes)
"""By lane, rank, the lowest first, and id."""
OPEN = Table(b"asked/", Mark, bytes)
ENDED = Table(b"ended/", Mark, int, bytes)
"""By height: the requests that were answered, or failed, in that block."""


class Lane(IntEnum):
    """Requests that wait in one line. What one lane waits for holds up no other."""

    AT_HAND = 0
    """The rows are on chain, or of a dataset that a quorum holds."""
    ELSEWHERE = 1
    """The rows are named by content id, and have yet to be found."""


def find_lane(state: State, identity: bytes, prediction: Prediction) -> Lane:
    """Return the lane of a request that has not ended."""
    is_here = prediction.is_evaluation or ROWS.get(state, identity) is not None
    return Lane.AT_HAND if is_here else Lane.ELSEWHERE


def queue_rank(tip: int, height: int) -> int:
    """Return the place of a request in the queue: tip and age weigh against each other.

    All grow older alike, so the order of two requests never changes, and nothing is sorted anew.
    """
    return _NEWEST + AGE_CREDITS * height - tip


def find_silent(prediction: Prediction) -> list[bytes]:
    """Return who was bound and has not shown its answer."""
    told = [t.validator for t in prediction.told]
    return [b.validator for b in prediction.bound if b.validator not in told]


def owes_answer(state: State, validator: bytes) -> bool:
    """Tell whether a validator is bound to an answer that it has still to show."""
    at_work = (PREDICTIONS.get(state, identity) for (identity,), _ in OPEN.items(state))
    return any(found is not None and validator in find_silent(found) for found in at_work)


def committee_size(tier: str) -> int:
    """Return how many validators a tier draws, 0 for all."""
    return int(tier.partition(":")[2]) if tier.startswith(DRAWN) else 0


def request_gas(row_gas: int, features: int, rows: int) -> int:
    """Return what one validator computes for a request, `row_gas` being the model's for a row."""
    return ANSWER_GAS + row_gas * rows + READ_GAS * rows_limit(rows, features)


def least_fee(gas: int, tier: str, voters: int) -> int:
    """Return the least fee of a request in micro-credits: all who compute are paid."""
    replicas = min(committee_size(tier) or voters, voters)
    return -(-gas * replicas // GAS_PER_MICROCREDIT)


class RequestPrediction(Payload, frozen=True):
    """Ask a model about rows: JSON in `inline`, or a content id in `data`, one of both.

    Or, as an evaluation, what it is worth on the last `rows` rows of the registered dataset `data`.
    `fee` pays for the computing; `tip` for being served before others.
    """

    KIND: ClassVar[int] = 31
    model: ContentId
    inline: Annotated[bytes, Meta(max_length=MAX_INLINE_BYTES)]
    data: MaybeContent
    rows: Annotated[int, Meta(ge=1, le=MAX_ROWS)]
    is_evaluation: bool
    tier: Tier
    fee: Uint
    tip: Annotated[int, Meta(ge=0, le=MAX_TIP)]

    def execute(self, ctx: Context) -> None:
        """Check what can be checked without the model, hold the fee, and queue the request."""
        ctx.charge(REQUEST_GAS + READ_GAS * len(self.inline))
        voters = ctx.block.validators
        if self.is_evaluation and committee_size(self.tier):
            raise InvalidTransaction(
                "a score stands in the registry for everybody: all compute it", "tier replicated"
            )
        file = MODEL_FILES.get(ctx.state, self.model)
        if file is None:
            raise UnknownModel("the model is not registered", "mlchain model list")
        if not is_usable(file, voters):
            raise UnknownModel("no quorum of validators holds the model yet", "try again soon")
        data = self._name_rows(ctx.state, file)
        if self.is_evaluation and not is_available(ctx.state, data, voters):
            raise InvalidRows("the dataset to evaluate on is not held by a quorum")
        gas = request_gas(file.gas, file.features, self.rows)
        scores = self.rows * file.outputs
        for many, most, what in ((gas, MAX_REQUEST_GAS, "gas"), (scores, MAX_SCORES, "scores")):
            if many > most:
                raise InvalidTransaction(
                    f"{self.rows} rows are {many} {what}, at most {most}", "ask in parts"
                )
        floor = least_fee(gas, self.tier, len(voters))
        if self.fee < floor:
            raise InvalidTransaction(f"fee {self.fee} is below {floor} for {gas} gas")
        debit(ctx.state, ctx.sender, self.fee + self.tip)
        identity, height = ctx.transaction_id, ctx.block.height
        prediction = Prediction(
            ctx.sender, self.model, data, self.rows, self.is_evaluation, self.tier, self.tip,
            self.fee + self.tip, gas, PredictionState.QUEUED, height, height, 0, (), (), (), 0,
            b"", b"",
        )  # fmt: skip
        PREDICTIONS.put(ctx.state, prediction, identity)
        if self.inline:
            ROWS.put(ctx.state, Rows(self.inline), identity)
        lane = find_lane(ctx.state, identity, prediction)
        QUEUE.put(ctx.state, Mark(), lane, queue_rank(self.tip, height), identity)
        ctx.emit(f"prediction {identity.hex()[:8]} queued")

    def _name_rows(self, state: State, file: ModelFile) -> bytes:
        """Return the content id of the rows.

        Raises:
            InvalidRows: there are none, or they are not what the model reads.
        """
        if self.is_evaluation:
            dataset = DATASETS.get(state, self.data) if self.data else None
            if self.inline or dataset is None:
                raise InvalidRows("an evaluation names a registered dataset")
            if dataset.features != file.features or self.rows > dataset.rows:
                raise InvalidRows(
                    f"the dataset has {dataset.rows} rows of {dataset.features} features, "
                    f"the model reads {file.features}"
                )
            return self.data
        if bool(self.inline) == bool(self.data) or len(self.data) not in (0, 36):
            raise InvalidRows("give rows, or the content id of rows")
        if self.data:
            return self.data
        try:
            rows = count_rows(self.inline, file.features)
        except CodecError as error:
            raise InvalidRows(error.message) from error
        if rows != self.rows:
            raise InvalidRows(f"{rows} rows, not {self.rows}")
        return cid_of(self.inline)
