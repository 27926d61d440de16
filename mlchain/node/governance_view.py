"""Proposals, members and rules as JSON values, for people who have to approve them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from mlchain.ledger.state import State
from mlchain.vm.epochs import approved_weight
from mlchain.vm.families.changes import AnyChange, change_digest
from mlchain.vm.families.governance import DECIDED, PROPOSALS, Proposal
from mlchain.vm.families.members import MEMBERS, bond_holder, get_validator_set
from mlchain.vm.families.operators import OPERATORS
from mlchain.vm.families.renewal import generations
from mlchain.vm.params import epoch_of, get_params
from mlchain.vm.protocol import get_planned, get_protocol

Json = dict[str, Any]
MAX_DECIDED = 50
"""The last ones are shown."""


def describe_governance(state: State, height: int) -> Json:
    """Return all of it after the block at `height`; bytes are still bytes."""
    params, planned = get_params(state), get_planned(state)
    epoch = epoch_of(params, height + 1)
    validators = get_validator_set(state)
    turns = dict(zip(validators.keys, validators.turns, strict=True))
    decided = sorted(DECIDED.items(state), key=lambda item: -item[0][0])[:MAX_DECIDED]
    return {
        "epoch": epoch,
        "next_epoch_height": (epoch + 1) * params.epoch_blocks,
        "quorum": validators.quorum,
        "params": asdict(params),
        "protocol": asdict(get_protocol(state)),
        "planned": asdict(planned) if planned else None,
        "members": [
            {"key": key, **asdict(member), **_standing(state, turns, key)}
            for (key,), member in MEMBERS.items(state)
        ],
        "open": [
            {
                **_proposal(state, number, proposal),
                "approved": approved_weight(proposal, validators),
            }
            for (number,), proposal in PROPOSALS.items(state)
        ],
        "decided": [
            {
                **_proposal(state, number, done.proposal),
                "outcome": done.outcome,
                "reason": done.reason,
                "decided_height": done.height,
            }
            for (number,), done in decided
        ],
    }


def find_chains_end(state: State, validator: bytes | None) -> int:
    """Return where the last registered hash chains end, 0 for who is no validator."""
    starts = [chains.start for _, chains in generations(state, validator)] if validator else []
    return starts[-1] + get_params(state).ticket_heights if starts else 0


def describe_chains(state: State, validator: bytes) -> Json:
    """Say up to where the hash chains of a validator are opened, and where they end."""
    found = [chains for _, chains in generations(state, validator)]
    return {
        "ticket_height": max(chains.tickets.height for chains in found),
        "chains_end": find_chains_end(state, validator),
    }


def _standing(state: State, turns: dict[bytes, int], key: bytes) -> Json:
    """Return how often a member proposes in a round, and which validator's worker it is."""
    known = OPERATORS.get(state, key)
    holder = MEMBERS.get(state, bond_holder(state, known.validator)) if known else None
    return {
        "turns": turns.get(key, 0),
        "operator": holder.name if holder else "",
        "is_confirmed": known is not None and known.is_confirmed,
    }


def _proposal(state: State, number: int, proposal: Proposal) -> Json:
    names = [MEMBERS.get(state, key) for key in (proposal.author, *proposal.approvals)]
    author, *approvals = [member.name if member else "" for member in names]
    return {
        "number": number,
        "author": author,
        "approvals": approvals,
        "own": proposal.is_own,
        "height": proposal.height,
        "last_epoch": proposal.last_epoch,
        "digest": change_digest(proposal.change),
        "change": _change(proposal.change),
    }


def _change(change: AnyChange) -> Json:
    row = {"kind": type(change).__name__, **asdict(change)}
    if "member" in row:
        row["member"] = asdict(row["member"])
    return row
