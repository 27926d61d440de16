"""What validators say to each other: one tag byte, then one canonical record.

`decode_message` bounds the size by the tag before anything is decoded, and refuses whatever is
malformed on its face. Signatures, membership and heights are the driver's business.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlchain import codec
from mlchain.codec import Hash, PublicKey, Record, Signature, Uint
from mlchain.errors import CodecError
from mlchain.ledger.block import MAX_BLOCK_BYTES
from mlchain.ledger.commit import (
    MAX_EXTENSION_BYTES,
    MAX_ROUND,
    NIL,
    BlockId,
    Commit,
    Round,
    Vote,
    VoteKind,
    sign_bytes,
)
from mlchain.ledger.validators import MAX_VALIDATORS

MAX_STATUS_ENTRIES = 64
"""Most (kind, round, block) tallies listed in one status."""

_VOTE_BYTES = 256  # a vote without its extension
_MAX_VOTE_BYTES = _VOTE_BYTES + MAX_EXTENSION_BYTES
_MAX_PROPOSAL_BYTES = MAX_BLOCK_BYTES + MAX_VALIDATORS * _VOTE_BYTES + 1024

RoundOrNone = Annotated[int, Meta(ge=-1, le=MAX_ROUND)]
"""A round, or -1: "none yet"."""


class Proposal(Record, frozen=True):
    """What the proposer of a round signs. `pol_round` >= 0: a quorum prevoted the block there."""

    height: Uint
    round: Round
    block_id: Hash
    pol_round: RoundOrNone
    validator: PublicKey
    signature: Signature

    def sign_bytes(self, chain_id: str) -> bytes:
        """Return the bytes `signature` covers."""
        return sign_bytes(
            chain_id, VoteKind.PROPOSAL, self.height, self.round, self.block_id, self.pol_round
        )


class BlockProposal(Record, frozen=True):
    """A proposal, the block it names, and the polka that justifies it.

    `polka` holds a quorum of prevotes of `pol_round` for the block, in key order, so a proposal
    of an older value proves itself; it is empty when `pol_round` is -1.
    """

    proposal: Proposal
    polka: Annotated[tuple[Vote, ...], Meta(max_length=MAX_VALIDATORS)]
    block: Annotated[bytes, Meta(max_length=MAX_BLOCK_BYTES)]


class Have(Record, frozen=True):
    """Who is known to have cast one kind of vote for one block in one round.

    Bit i (little-endian) of `voters` stands for the i-th validator in key order. The block is
    part of it: both votes of an equivocator matter, each to the quorum it names.
    """

    kind: Annotated[int, Meta(ge=1, le=2)]
    round: Round
    block_id: BlockId
    voters: Annotated[bytes, Meta(max_length=MAX_VALIDATORS // 8)]


class Status(Record, frozen=True):
    """Where the sender stands and which votes it holds; the receiver answers with what it lacks.

    A round of -1 means that the sender waits for demand.
    """

    height: Uint
    round: RoundOrNone
    step: Annotated[int, Meta(ge=0, le=2)]
    have: Annotated[tuple[Have, ...], Meta(max_length=MAX_STATUS_ENTRIES)]


class Want(Record, frozen=True):
    """Asks one peer for the proposal of `block_id`, or (nil) for any proposal of the round."""

    height: Uint
    round: Round
    block_id: BlockId


class Decided(Record, frozen=True):
    """Tells a peer that is behind that its height is decided."""

    commit: Commit


Message = BlockProposal | Vote | Status | Want | Decided

_KINDS: dict[int, tuple[type[Message], int]] = {
    1: (BlockProposal, _MAX_PROPOSAL_BYTES),
    2: (Vote, _MAX_VOTE_BYTES),
    3: (Status, MAX_STATUS_ENTRIES * 96 + 64),
    4: (Want, 128),
    5: (Decided, MAX_VALIDATORS * _MAX_VOTE_BYTES + 256),
}
_TAGS = {kind: bytes([tag]) for tag, (kind, _) in _KINDS.items()}

MAX_MESSAGE_BYTES = 1 + max(limit for _, limit in _KINDS.values())
"""Bound of any message; transports refuse longer frames unread."""


def encode_message(message: Message) -> bytes:
    """Return the bytes that travel."""
    return _TAGS[type(message)] + codec.encode(message)


def decode_message(data: bytes) -> Message:
    """Return the message whose one encoding is `data`.

    Raises:
        CodecError: unknown tag, oversized, malformed, not canonical, or senseless on its face.
    """
    if not data or data[0] not in _KINDS:
        raise CodecError(f"message: unknown tag {data[:1].hex() or '(empty)'}")
    kind, limit = _KINDS[data[0]]
    message = codec.decode(kind, data[1:], limit)
    if isinstance(message, Vote):
        check_vote_form(message)
    elif isinstance(message, BlockProposal):
        _check_proposal_form(message)
    return message


def check_vote_form(vote: Vote) -> None:
    """Return if `vote` could have been made by an honest validator.

    Raises:
        CodecError: a block id of a wrong length, or an extension where none belongs.
    """
    if len(vote.block_id) not in (0, 32):
        raise CodecError(f"vote: a block id has 0 or 32 bytes, not {len(vote.block_id)}")
    if vote.extension and (vote.kind != VoteKind.PRECOMMIT or vote.block_id == NIL):
        raise CodecError("vote: only a precommit for a block carries an extension")


def _check_proposal_form(message: BlockProposal) -> None:
    proposal = message.proposal
    if proposal.pol_round >= proposal.round:
        raise CodecError("proposal: its polka is not from an earlier round")
    if (proposal.pol_round >= 0) != bool(message.polka):
        raise CodecError("proposal: a polka belongs to a pol_round, and a pol_round to a polka")
    wanted = (VoteKind.PREVOTE, proposal.height, proposal.pol_round, proposal.block_id, b"")
    if any((v.kind, v.height, v.round, v.block_id, v.extension) != wanted for v in message.polka):
        raise CodecError("proposal: its polka holds a vote for something else")
    keys = [v.validator for v in message.polka]
    if keys != sorted(set(keys)):
        raise CodecError("proposal: its polka is not in key order")
