"""Proof that a validator signed two things where an honest one signs one.

A proof holds both signed messages, so anyone can check it with the chain id and the validators of
its height. The two stand in one order, so one pair has one encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from mlchain import codec, crypto
from mlchain.codec import Record
from mlchain.consensus.messages import Proposal, check_vote_form
from mlchain.errors import CodecError, InvalidEvidence
from mlchain.ledger.block import MAX_EVIDENCE_BYTES
from mlchain.ledger.commit import Vote


class DuplicateVote(Record, frozen=True):
    """Two different votes of one validator, of one kind, in one height and round."""

    first: Vote
    second: Vote


class DuplicateProposal(Record, frozen=True):
    """Two different proposals of one validator in one height and round."""

    first: Proposal
    second: Proposal


@dataclass(frozen=True, slots=True)
class Offence:
    """Who broke the rules, and at which height."""

    offender: bytes
    height: int


Evidence = DuplicateVote | DuplicateProposal

_KINDS: dict[int, type[Evidence]] = {1: DuplicateVote, 2: DuplicateProposal}


def vote_evidence(one: Vote, other: Vote) -> bytes:
    """Return the encoded evidence made of two votes, in whichever order they came."""
    first, second = sorted((one, other), key=codec.encode)
    return b"\x01" + codec.encode(DuplicateVote(first, second))


def proposal_evidence(one: Proposal, other: Proposal) -> bytes:
    """Return the encoded evidence made of two proposals, in whichever order they came."""
    first, second = sorted((one, other), key=codec.encode)
    return b"\x02" + codec.encode(DuplicateProposal(first, second))


def decode_evidence(data: bytes) -> Evidence:
    """Decode without checking what it claims.

    Raises:
        CodecError: malformed, oversized or not canonical.
    """
    if not data or data[0] not in _KINDS:
        raise CodecError(f"evidence: unknown kind {data[:1].hex() or '(empty)'}")
    return codec.decode(_KINDS[data[0]], data[1:], MAX_EVIDENCE_BYTES - 1)


def verify_evidence(
    data: bytes,
    chain_id: str,
    validators: Container[bytes],
    is_signed: Callable[[bytes, bytes, bytes], bool] = crypto.is_signed,
) -> Offence:
    """Return whom `data` convicts; `validators` are those of the height it names.

    Raises:
        InvalidEvidence: it proves nothing.
    """
    try:
        evidence = decode_evidence(data)
        if isinstance(evidence, DuplicateVote):
            check_vote_form(evidence.first)
            check_vote_form(evidence.second)
    except CodecError as error:
        raise InvalidEvidence(error.message) from error
    first, second = evidence.first, evidence.second
    if _occasion(first) != _occasion(second):
        raise InvalidEvidence("the two messages are not of one validator, kind, height and round")
    if codec.encode(first) >= codec.encode(second):
        raise InvalidEvidence("the two messages are not in order")
    message, other_message = first.sign_bytes(chain_id), second.sign_bytes(chain_id)
    if message == other_message:
        raise InvalidEvidence("the two messages say the same")
    if first.validator not in validators:
        raise InvalidEvidence("the accused was not a validator")
    if not (
        is_signed(first.validator, message, first.signature)
        and is_signed(first.validator, other_message, second.signature)
    ):
        raise InvalidEvidence("a signature does not hold")
    return Offence(first.validator, first.height)


def _occasion(message: Vote | Proposal) -> tuple[bytes, int, int, int]:
    kind = message.kind if isinstance(message, Vote) else 0
    return message.validator, kind, message.height, message.round
