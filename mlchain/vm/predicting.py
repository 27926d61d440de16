"""What becomes of predictions as blocks go by.

    QUEUED ─> OPEN: validators bind themselves ─> CLOSED: they show their answers ─> ANSWERED

A committee is drawn first (DRAWING), which takes until the next block. To be bound, a quorum waits
one block for the rest; an answer is recorded as soon as a quorum has shown it, and paid a block
later if others are still to show theirs.
"""

from __future__ import annotations

from msgspec.structs import replace

from mlchain.ledger.state import Mark
from mlchain.ml_runtime import decode_metrics
from mlchain.ml_runtime.serving import Outcome
from mlchain.vm.answering import is_proven, is_right, slash_liar
from mlchain.vm.committee import find_committee, find_contributors
from mlchain.vm.context import BlockContext
from mlchain.vm.cover import had_honest_proposer
from mlchain.vm.families.accounts import burn, credit
from mlchain.vm.families.members import slash_validator
from mlchain.vm.families.models import Evaluation, add_evaluation
from mlchain.vm.families.predictions import (
    ENDED,
    OPEN,
    PREDICTIONS,
    QUEUE,
    ROWS,
    Lane,
    Prediction,
    PredictionState,
    Told,
    committee_size,
    find_lane,
    find_silent,
)

MAX_OPEN = 32
"""Requests of one lane at work at a time."""
MAX_OPEN_GAS = 10**10
"""What all of one lane at work may cost one validator together, in gas (about ns)."""


def advance_predictions(block: BlockContext) -> None:
    """Move every request at work as far as this block allows, then begin others in their turn."""
    at_work: dict[Lane, list[int]] = {lane: [] for lane in Lane}
    for (identity,), _ in list(OPEN.items(block.state)):
        prediction = PREDICTIONS.get(block.state, identity)
        assert prediction is not None, "what is at work exists"
        lane = find_lane(block.state, identity, prediction)
        _advance(block, identity, prediction)
        now = PREDICTIONS.get(block.state, identity)
        if now is not None and now.state < PredictionState.ANSWERED:
            at_work[lane].append(now.gas)
    for lane, costs in at_work.items():
        _begin(block, lane, len(costs), sum(costs))


def _begin(block: BlockContext, lane: Lane, count: int, gas: int) -> None:
    """Begin what waits in a lane, as long as there is room."""
    for (_, rank, identity), _ in QUEUE.items(block.state, lane):
        prediction = PREDICTIONS.get(block.state, identity)
        assert prediction is not None, "what is queued exists"
        if count >= MAX_OPEN or gas + prediction.gas > MAX_OPEN_GAS:
            break  # nobody behind goes first, however small: that would starve large ones
        is_drawn = 0 < committee_size(prediction.tier) < len(block.validators)
        contributors = find_contributors(block) if is_drawn else ()
        state = PredictionState.DRAWING if contributors else PredictionState.OPEN
        QUEUE.delete(block.state, lane, rank, identity)
        OPEN.put(block.state, Mark(), identity)
        _put(block, identity, prediction, state=state, committee=contributors)
        count, gas = count + 1, gas + prediction.gas


def _advance(block: BlockContext, identity: bytes, prediction: Prediction) -> None:
    is_due = block.height >= prediction.height + block.params.dispute_window
    if prediction.state == PredictionState.DRAWING:
        _draw(block, identity, prediction)
    elif prediction.state == PredictionState.OPEN:
        _bind(block, identity, prediction, is_due)
    elif prediction.state == PredictionState.CLOSED:
        _judge(block, identity, prediction, is_due)
    else:
        _await_late(block, identity, prediction, is_due)


def _draw(block: BlockContext, identity: bytes, prediction: Prediction) -> None:
    """Draw the committee. If an element stays hidden, everybody computes: no other is drawn, or the
    last to show its own would choose between two.
    """
    committee = find_committee(
        block, identity, committee_size(prediction.tier), prediction.committee, prediction.height
    )
    if committee is None:
        if not had_honest_proposer(block, prediction.height + 1):
            return  # it may have been left out
        committee = ()
    _put(block, identity, prediction, state=PredictionState.OPEN, committee=committee)


def _bind(block: BlockContext, identity: bytes, prediction: Prediction, is_due: bool) -> None:
    """Fix who is bound, once all are, or a quorum was in the block before."""
    voters = block.validators
    ready = [b.validator for b in prediction.bound] + [t.validator for t in prediction.told]
    is_open = bool(prediction.bound) and not prediction.committee
    is_quorum = is_open and _weight(block, ready) >= voters.quorum
    is_whole = all(key in ready for key in prediction.committee or voters.keys)
    if is_whole or (is_quorum and 0 < prediction.ready < block.height):
        _put(block, identity, prediction, state=PredictionState.CLOSED)
    elif is_quorum and not prediction.ready:
        PREDICTIONS.put(block.state, replace(prediction, ready=block.height), identity)
    elif is_due and prediction.committee:
        _ask_the_rest(block, identity, prediction)
    elif is_due:
        _give_up(block, identity, prediction)


def _judge(block: BlockContext, identity: bytes, prediction: Prediction, is_due: bool) -> None:
    """Record the answer once a quorum has given it, or all of a committee."""
    found = _agreed(block, prediction)
    if found is not None:
        _record(block, identity, prediction, found)
    elif is_due or not _silent(block, prediction):
        _punish_silent(block, identity, prediction)
        _ask_the_rest(block, identity, prediction)


def _agreed(block: BlockContext, prediction: Prediction) -> Told | None:
    """Return the answer that enough have given, with its bytes if they are few."""
    groups: dict[tuple[int, bytes], list[Told]] = {}
    for told in prediction.told:
        groups.setdefault((told.outcome, told.content), []).append(told)
    for same in groups.values():
        keys = [told.validator for told in same]
        if prediction.committee:
            is_enough = all(key in keys for key in prediction.committee)
        else:
            is_enough = _weight(block, keys) >= block.validators.quorum
        if is_enough:
            return max(same, key=lambda told: len(told.value))
    return None


def _record(block: BlockContext, identity: bytes, prediction: Prediction, found: Told) -> None:
    """Write the answer down, and punish who told another.

    On the word of those alone who answered after they had seen an answer nobody is punished.
    """
    prediction = replace(
        prediction, outcome=found.outcome, content=found.content, value=found.value,
        told=tuple(replace(told, value=b"") for told in prediction.told),
    )  # fmt: skip
    if is_proven(prediction, block.validators):
        for told in prediction.told:
            if not is_right(prediction, told):
                slash_liar(block, identity, told.validator)
    _put(block, identity, prediction, state=PredictionState.ANSWERED)
    ENDED.put(block.state, Mark(), block.height, identity)
    ROWS.delete(block.state, identity)
    if prediction.is_evaluation and found.outcome == Outcome.ANSWERED:
        metrics = decode_metrics(found.value, prediction.rows)
        evaluation = Evaluation(prediction.data, metrics, block.height)
        add_evaluation(block.state, prediction.model, evaluation)
    if not _silent(block, prediction):
        _pay(block, identity)
        _close(block, identity)


def _pay(block: BlockContext, identity: bytes) -> None:
    """Share fee and tip among those who found the answer before any was to be seen.

    Whoever was asked later may have repeated what it saw.
    """
    prediction = PREDICTIONS.get(block.state, identity)
    assert prediction is not None, "what is at work exists"
    right = [told for told in prediction.told if told.is_blind and is_right(prediction, told)]
    paid = [told.validator for told in right if told.validator in block.validators]
    share = prediction.escrow // len(paid) if paid else 0
    for key in paid:
        credit(block.state, key, share)
    burn(block.state, prediction.escrow - share * len(paid))
    PREDICTIONS.put(block.state, replace(prediction, escrow=0), identity)


def _ask_the_rest(block: BlockContext, identity: bytes, prediction: Prediction) -> None:
    """Let those compute who were not drawn, or too slow to be bound: else one liar and one slow
    validator among the first could leave an honest quorum without an answer.

    What was told stays, and is judged by what the others find.
    """
    told = [t.validator for t in prediction.told]
    if all(key in told for key in block.validators.keys):
        _give_up(block, identity, prediction)
    else:
        _put(block, identity, prediction, state=PredictionState.OPEN, committee=(), bound=())


def _give_up(block: BlockContext, identity: bytes, prediction: Prediction) -> None:
    """Return the fee: nobody knows who is wrong.

    But whoever asks about rows that hardly anybody can get pays for the place they took.
    """
    had = [b.validator for b in prediction.bound] + [t.validator for t in prediction.told]
    is_elsewhere = find_lane(block.state, identity, prediction) == Lane.ELSEWHERE
    if is_elsewhere and _weight(block, had) < block.validators.third:
        burn(block.state, prediction.escrow)
    else:
        credit(block.state, prediction.requester, prediction.escrow)
    _put(block, identity, prediction, state=PredictionState.FAILED, escrow=0)
    ENDED.put(block.state, Mark(), block.height, identity)
    _close(block, identity)
    ROWS.delete(block.state, identity)


def _close(block: BlockContext, identity: bytes) -> None:
    """End a request: nobody owes it anything any more."""
    prediction = PREDICTIONS.get(block.state, identity)
    assert prediction is not None, "what is at work exists"
    PREDICTIONS.put(block.state, replace(prediction, bound=()), identity)
    OPEN.delete(block.state, identity)


def _await_late(block: BlockContext, identity: bytes, prediction: Prediction, is_due: bool) -> None:
    """Pay, a block after the answer: the last few have shown theirs, too, by then.

    Whoever was bound shows its answer some time, or pays for hiding it.
    """
    is_silent = bool(_silent(block, prediction))
    if prediction.escrow:
        _pay(block, identity)
    if is_due:
        _punish_silent(block, identity, prediction)
    if is_due or not is_silent:
        _close(block, identity)


def _punish_silent(block: BlockContext, identity: bytes, prediction: Prediction) -> None:
    for key in _silent(block, prediction):
        slash_validator(
            block, key, "answer-withheld", b"", identity,
            is_removed=False, amount=block.params.slash_unavailable,
        )  # fmt: skip


def _silent(block: BlockContext, prediction: Prediction) -> list[bytes]:
    """Return who has still to show its answer. Whoever was removed cannot, so it owes nothing."""
    return [key for key in find_silent(prediction) if key in block.validators]


def _put(block: BlockContext, identity: bytes, prediction: Prediction, **changes: object) -> None:
    """Store a request in its next state."""
    changed = replace(prediction, height=block.height, ready=0, **changes)
    PREDICTIONS.put(block.state, changed, identity)


def _weight(block: BlockContext, keys: list[bytes]) -> int:
    return sum(block.validators.weight(key) for key in keys)
