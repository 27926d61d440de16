"""Whether a message is what it says: signatures, membership, and the block behind an id.

Everything that enters the engine passed one of these checks exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlchain.consensus.messages import BlockProposal, Proposal
from mlchain.consensus.votes import VoteBook
from mlchain.errors import InvalidBlock, InvalidSignature
from mlchain.ledger.block import body_root, decode_block, header_id
from mlchain.ledger.commit import NIL, Commit, Vote, VoteKind, verify_commit
from mlchain.ledger.validators import ValidatorSet


def identify_block(data: bytes) -> bytes:
    """Return the id of an encoded block, having checked that its header commits to its body.

    Raises:
        CodecError: not the encoding of a block.
        InvalidBlock: header and body do not belong together.
    """
    block = decode_block(data)
    if block.header.body_root != body_root(block.body):
        raise InvalidBlock("the header does not commit to this body")
    return header_id(block.header)


@dataclass(frozen=True, slots=True)
class Authenticator:
    """The checks, and the three functions they rest on.

    `is_signed(key, message, signature)` is Ed25519, or the simulator's cheap stand-in;
    `identify(block)` returns a block's id or raises; `verify_extension(height, key, extension)`
    says whether a precommit's extension is well made.
    """

    chain_id: str
    is_signed: Callable[[bytes, bytes, bytes], bool]
    identify: Callable[[bytes], bytes]
    verify_extension: Callable[[int, bytes, bytes], bool]

    def check_vote(self, vote: Vote, validators: ValidatorSet) -> None:
        """Return if a member signed `vote` and its extension is good.

        Raises:
            InvalidSignature: not so.
        """
        if vote.validator not in validators:
            raise InvalidSignature("vote: not a validator")
        if not self.is_signed(vote.validator, vote.sign_bytes(self.chain_id), vote.signature):
            raise InvalidSignature("vote: wrong signature")
        if (
            vote.kind == VoteKind.PRECOMMIT
            and vote.block_id != NIL
            and not self.verify_extension(vote.height, vote.validator, vote.extension)
        ):
            raise InvalidSignature("vote: bad extension")

    def check_proposer(self, proposal: Proposal, validators: ValidatorSet) -> None:
        """Return if whose turn it is signed `proposal`.

        Raises:
            InvalidSignature: not so.
        """
        if proposal.validator != validators.proposer(proposal.height, proposal.round):
            raise InvalidSignature("proposal: not this validator's turn")
        message = proposal.sign_bytes(self.chain_id)
        if not self.is_signed(proposal.validator, message, proposal.signature):
            raise InvalidSignature("proposal: wrong signature")

    def check_polka(self, message: BlockProposal, book: VoteBook) -> None:
        """Return if the proposal's polka is one; votes already in `book` are not checked again.

        Raises:
            InvalidSignature: a vote in it is not genuine.
            InvalidBlock: no quorum.
        """
        if message.proposal.pol_round < 0:
            return
        weight = sum(book.validators.weight(vote.validator) for vote in message.polka)
        if weight < book.quorum:
            raise InvalidBlock(f"proposal: its polka carries weight {weight}, no quorum")
        for vote in message.polka:
            if vote not in book.of(vote.kind, vote.round, vote.validator):
                self.check_vote(vote, book.validators)

    def check_block(self, block: bytes, block_id: bytes) -> None:
        """Return if `block_id` is the id of `block`.

        Raises:
            CodecError: not the encoding of a block.
            InvalidBlock: it has another id.
        """
        if self.identify(block) != block_id:
            raise InvalidBlock("these bytes have another block id")

    def check_commit(self, commit: Commit, validators: ValidatorSet) -> None:
        """Return if `commit` is a quorum's.

        Raises:
            InvalidBlock: no quorum, or strangers.
            InvalidSignature: a signature does not hold.
        """
        verify_commit(
            commit, self.chain_id, validators, commit.height, commit.block_id, self.is_signed
        )
