"""What votes say about predictions: who is bound, and to which answer.

A part that does not fit is ignored: whoever builds the next block cannot choose what others wrote.
"""

from __future__ import annotations

from msgspec.structs import replace

from mlchain.consensus.work.answers import Answer, Commitment, answer_digest, commitment_hash
from mlchain.errors import CodecError
from mlchain.ledger.unixfs import cid_of
from mlchain.ledger.validators import MAX_VALIDATORS, ValidatorSet
from mlchain.ml_runtime import decode_metrics
from mlchain.ml_runtime.serving import Outcome
from mlchain.vm.context import BlockContext
from mlchain.vm.families.members import slash_validator
from mlchain.vm.families.predictions import (
    PREDICTIONS,
    Bound,
    Prediction,
    PredictionState,
    Told,
)


def process_commitment(block: BlockContext, validator: bytes, said: Commitment) -> None:
    """Bind a validator, while that is possible."""
    prediction = PREDICTIONS.get(block.state, said.request)
    if prediction is None or not may_bind(prediction, validator, block.validators.keys):
        return
    bound = (*prediction.bound, Bound(validator, said.hash))
    PREDICTIONS.put(block.state, replace(prediction, bound=bound), said.request)


def may_bind(prediction: Prediction, validator: bytes, voters: tuple[bytes, ...]) -> bool:
    """Tell whether a validator is to compute a request, and has not said so yet."""
    done = [b.validator for b in prediction.bound] + [t.validator for t in prediction.told]
    is_wanted = validator in (prediction.committee or voters) and validator in voters
    is_room = len(done) < MAX_VALIDATORS  # members come and go while a request is at work
    is_new = is_room and validator not in done
    return prediction.state == PredictionState.OPEN and is_wanted and is_new


def process_answer(block: BlockContext, validator: bytes, said: Answer) -> None:
    """Take an answer that its maker was bound to; one that comes after the others is judged, too.

    Nobody honest shows a wrong opening; it counts as none.
    """
    prediction = PREDICTIONS.get(block.state, said.request)
    if prediction is None or not is_answer_of(prediction, validator, said):
        return
    is_late = prediction.state == PredictionState.ANSWERED
    bound = [b.validator for b in prediction.bound]
    is_blind = all(before.validator in bound for before in prediction.told)
    value = b"" if is_late else said.value
    told = Told(validator, said.outcome, said.content, value, is_blind)
    prediction = replace(prediction, told=(*prediction.told, told))
    PREDICTIONS.put(block.state, prediction, said.request)
    if is_late and not is_right(prediction, told) and is_proven(prediction, block.validators):
        slash_liar(block, said.request, validator)


def is_answer_of(prediction: Prediction, validator: bytes, said: Answer) -> bool:
    """Tell whether an answer is due now, and what its maker was bound to."""
    if prediction.state not in (PredictionState.CLOSED, PredictionState.ANSWERED):
        return False
    bound = {b.validator: b.hash for b in prediction.bound}
    if validator not in bound or validator in [t.validator for t in prediction.told]:
        return False
    if len(said.content) != (36 if said.outcome == Outcome.ANSWERED else 0):
        return False
    if said.value and cid_of(said.value) != said.content:
        return False
    if prediction.is_evaluation and said.outcome == Outcome.ANSWERED:
        try:  # the bytes go into the registry: what cannot stand there is no answer
            decode_metrics(said.value, prediction.rows)
        except CodecError:
            return False
    digest = answer_digest(said.outcome, said.content)
    return commitment_hash(said.request, validator, said.salt, digest) == bound[validator]


def is_right(prediction: Prediction, told: Told) -> bool:
    """Tell whether what a validator told is what the chain recorded."""
    return (told.outcome, told.content) == (prediction.outcome, prediction.content)


def is_proven(prediction: Prediction, voters: ValidatorSet) -> bool:
    """Tell whether more than a third found the recorded answer before any was to be seen.

    One of them is honest then, and computed it. What others say who saw it first proves nothing.
    """
    found = [t.validator for t in prediction.told if t.is_blind and is_right(prediction, t)]
    return sum(map(voters.weight, found)) >= voters.third


def slash_liar(block: BlockContext, request: bytes, validator: bytes) -> None:
    """Punish who signed another answer than a quorum. The next request needs everybody again, so it
    keeps its seat as long as its bond can bear it.
    """
    slash_validator(
        block, validator, "wrong-answer", b"", request,
        is_removed=False, amount=block.params.slash_lazy,
    )  # fmt: skip
