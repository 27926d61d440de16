"""One line per event, for a person to read."""

from __future__ import annotations

from typing import Any

from mlchain.consensus.messages import BlockProposal, Decided, Message, Status, Want, decode_message
from mlchain.ledger.commit import Vote, VoteKind


def describe(now_ms: int, index: int, event: str, what: Any) -> str:
    """Return a line for what happened to one process."""
    detail = ""
    if event == "message":
        detail = _message(decode_message(what[1]))
    elif event == "built":
        detail = f"height {what[0]} round {what[1]} block {_short(what[3])}"
    elif event == "checked":
        detail = f"height {what[1]} block {_short(what[0])}"
    elif event == "blocks":
        detail = f"{len(what)} fetched"
    return f"{now_ms:6d} ms  place {index}  {event:8s} {detail}".rstrip()


def speech(message: Vote | BlockProposal) -> tuple[str, str]:
    """Return kind and place of a vote or a proposal, for the picture."""
    if isinstance(message, Vote):
        kind = VoteKind(message.kind).name.lower()
        return kind, f"{message.height}/{message.round} for {_short(message.block_id)}"
    p = message.proposal
    return "proposal", f"{p.height}/{p.round} of {_short(p.block_id)}"


def _message(message: Message) -> str:
    if isinstance(message, Vote):
        kind = VoteKind(message.kind).name.lower()
        where = f"{message.height}/{message.round}"
        return f"{kind} {where} for {_short(message.block_id)} by {_short(message.validator)}"
    if isinstance(message, BlockProposal):
        p = message.proposal
        polka = f" polka of round {p.pol_round}" if p.pol_round >= 0 else ""
        return f"proposal {p.height}/{p.round} of {_short(p.block_id)}{polka}"
    if isinstance(message, Status):
        return f"status {message.height}/{message.round} step {message.step}"
    if isinstance(message, Want):
        return f"want {message.height}/{message.round} {_short(message.block_id)}"
    assert isinstance(message, Decided)
    return f"decided {message.commit.height} {_short(message.commit.block_id)}"


def _short(data: bytes) -> str:
    return data.hex()[:8] or "nil"
