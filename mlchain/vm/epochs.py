"""What happens when an epoch ends: approved changes take effect, bonds are returned.

The last block of an epoch does it; its successor, the first of the next epoch, is voted on by the
new set under the new parameters.
"""

from __future__ import annotations

from msgspec.structs import replace

from mlchain.errors import InvalidTransaction
from mlchain.ledger.validators import ValidatorSet
from mlchain.vm.context import BlockContext
from mlchain.vm.families.accounts import credit
from mlchain.vm.families.custody import accused_validators, is_still_audited
from mlchain.vm.families.governance import (
    DECIDED,
    PROPOSALS,
    Decided,
    Proposal,
    leaving_key,
)
from mlchain.vm.families.jobs import LATE, SEGMENTS, Phase, in_phase
from mlchain.vm.families.members import (
    LAST_HARD,
    VALIDATORS,
    WORKERS,
    bond_holder,
    get_validator_set,
)
from mlchain.vm.families.predictions import owes_answer
from mlchain.vm.params import epoch_of, get_params, is_last_of_epoch
from mlchain.vm.protocol import begin_upgrade
from mlchain.vm.turns import set_turns

SMALL_SET = 7
"""Sets below this size change by one validator an epoch."""


def end_epoch(block: BlockContext) -> None:
    """Do what is due if `block` is the last of its epoch."""
    if not is_last_of_epoch(block.params, block.height):
        return
    _return_bonds(block)
    _decide_proposals(block)
    begin_upgrade(block.state, block.height + 1)
    set_turns(block)


def movable_weight(validators: ValidatorSet) -> int:
    """Return how much weight may come, go or change hands in one epoch.

    A third at most: more than two thirds of the old set are in the new one, so certificates can be
    followed from one to the other, and those who stay outvote those who came.
    """
    return 1 if len(validators) < SMALL_SET else validators.total // 3


def approved_weight(proposal: Proposal, validators: ValidatorSet) -> int:
    """Return the weight of those in `validators` that approved, each counted once."""
    return sum(validators.weight(key) for key in dict.fromkeys(proposal.approvals))


def _decide_proposals(block: BlockContext) -> None:
    """Apply what is ready, as far as the limits allow.

    What a quorum wants goes before members' own affairs: one that changed its keys in every epoch
    would else keep everybody else from coming and going.
    """
    validators = get_validator_set(block.state)
    left = movable_weight(validators)
    by_turn: tuple[list[int], list[int]] = ([], [])
    for (number,), proposal in PROPOSALS.items(block.state):
        if proposal.is_own or approved_weight(proposal, validators) >= validators.quorum:
            by_turn[proposal.is_own].append(number)
        elif epoch_of(block.params, block.height) >= proposal.last_epoch:
            _close(block, number, proposal, "expired", "")
    for number in (*by_turn[False], *by_turn[True]):
        left -= _try_change(block, number, left)


def _try_change(block: BlockContext, number: int, left: int) -> int:
    """Make a change that may move `left` weight; return how much it moved."""
    proposal = PROPOSALS.get(block.state, number)
    assert proposal is not None, "it was just found"
    moved = proposal.change.moved_weight(block.state)
    if moved > left:
        return 0  # in a later epoch: those before it went first
    going = leaving_key(proposal.change) if proposal.is_own else b""
    if going and (
        is_still_audited(block.state, going, block.height, block.params)
        or owes_answer(block.state, going)
    ):
        return 0  # in a later epoch: nobody can be asked that has gone
    present = _with_present_params(block)
    try:
        proposal.change.check(present)
    except InvalidTransaction as error:
        _close(block, number, proposal, "failed", error.ascii_message)
        return 0
    proposal.change.apply(present)
    _close(block, number, proposal, "effective", "")
    return moved


def _with_present_params(block: BlockContext) -> BlockContext:
    """Return `block` with the parameters as changed so far."""
    return BlockContext(
        block.state, block.chain_id, get_params(block.state), block.height, block.time_ms,
        block.proposer, block.validators,
    )  # fmt: skip


def _close(block: BlockContext, number: int, proposal: Proposal, outcome: str, reason: str) -> None:
    PROPOSALS.delete(block.state, number)
    DECIDED.put(block.state, Decided(proposal, outcome, reason, block.height), number)


def _return_bonds(block: BlockContext) -> None:
    """Pay back the bonds of those that have been gone long enough and have nothing at work."""
    state, last = block.state, block.height - block.params.unbonding_blocks
    busy, accused = _busy_workers(block), accused_validators(state)
    for (key,), validator in list(VALIDATORS.items(state)):
        if validator.bond and 0 < validator.left_height <= last and key not in accused:
            credit(state, key, validator.bond)
            VALIDATORS.put(state, replace(validator, bond=0), key)
    for (key,), worker in list(WORKERS.items(state)):
        if worker.bond and 0 < worker.left_height <= last and key not in busy:
            credit(state, key, worker.bond)
            WORKERS.put(state, replace(worker, bond=0), key)


def _busy_workers(block: BlockContext) -> dict[bytes, None]:
    """Return who has a segment that is not HARD yet, or can be claimed forged, or is claimed so."""
    state, params = block.state, block.params
    busy: dict[bytes, None] = {}
    for (worker,), last in LAST_HARD.items(state):
        if block.height < last.height + params.unbonding_blocks + params.dispute_window:
            busy[bond_holder(state, worker)] = None
    for (job_id, index), _ in LATE.items(state):
        claimed = SEGMENTS.get(state, job_id, index)
        assert claimed is not None, "what is claimed is there"
        busy[bond_holder(state, claimed.worker)] = None
    for job_id, job in in_phase(state, Phase.WORKER, Phase.VERDICT):
        for index in range(job.hard, job.assigned):
            segment = SEGMENTS.get(state, job_id, index)
            if segment is not None:
                busy[bond_holder(state, segment.worker)] = None
    return busy
