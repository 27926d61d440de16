"""Light verification: from a block one trusts to a later one, without executing anything.

A header names who votes on it and who votes next. So a chain of certificates leads from the
genesis file to any block. Two steps are allowed (`advance`):

    to the next block    it is a child of the trusted one, and a quorum of exactly the validators
                         that the trusted one named signed it
    further, skipping    a quorum of its own validators signed it, and among the signers are more
                         than a third of the weight of those the trusted block named. Of these at
                         least one is honest, as long as no more than a third of them are not

What this rests on is that no third of a *former* set of validators has turned against the chain:
whoever starts from an old block trusts the members of that time for ever. A block that is known
by its hash from somewhere else (`trust_block`) sets that aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from mlchain.codec import Hash, Record, Uint
from mlchain.consensus.evidence import vote_evidence
from mlchain.errors import VerificationFailed
from mlchain.ledger.block import Header, header_id
from mlchain.ledger.commit import Commit, Vote, VoteKind, verify_commit
from mlchain.ledger.merkle import StateProof, verify_proof
from mlchain.ledger.rows import Members
from mlchain.ledger.state import MAX_VALUE_BYTES
from mlchain.ledger.store import Store
from mlchain.ledger.validators import ValidatorSet

MAX_PATH = 32
"""Blocks of one answer."""
MAX_PATH_BYTES = 16 << 20


class LightBlock(Record, frozen=True):
    """A certified header, and the sets it names; `next_validators` is empty where equal."""

    header: Header
    commit: Commit
    validators: Members
    next_validators: Members


class LightQuestion(Record, frozen=True):
    """Asks for the way from the trusted height `after` to `height` (0: the last block)."""

    after: Uint
    height: Uint


class LightPath(Record, frozen=True):
    """The blocks between at which others began to vote, as many as fit, and then the one asked."""

    blocks: Annotated[tuple[LightBlock, ...], Meta(max_length=MAX_PATH)]


class Trusted(Record, frozen=True):
    """What is taken for true: a block, and who votes on the one after it."""

    height: Uint
    id: Hash
    time_ms: Uint
    validators: Members


class StateAnswer(Record, frozen=True):
    """A value of the state after `block`, or that there is none, proven under its state root."""

    block: LightBlock
    value: Annotated[bytes, Meta(max_length=MAX_VALUE_BYTES)] | None
    proof: StateProof


class Conflict(Record, frozen=True):
    """Two certified blocks of one height: more than a third of the validators lied."""

    first: LightBlock
    second: LightBlock


class TooFar(VerificationFailed):
    """The block may be true, but too few of those trusted signed it: go there in smaller steps."""


def advance(trusted: Trusted, block: LightBlock, chain_id: str) -> Trusted:
    """Return trust in `block`, which is later than what is trusted.

    Raises:
        TooFar: it shares too few signers with the trusted set.
        VerificationFailed: it does not follow, or its parts do not belong together.
        InvalidBlock, InvalidSignature: its certificate does not hold.
    """
    header, id_ = block.header, header_id(block.header)
    found = check_sets(block, chain_id)
    if header.height <= trusted.height or header.time_ms <= trusted.time_ms:
        raise VerificationFailed(f"block {header.height} is not later than {trusted.height}")
    voters, known = ValidatorSet(block.validators), ValidatorSet(trusted.validators)
    if header.height == trusted.height + 1:
        if header.parent != trusted.id:
            raise VerificationFailed(f"block {header.height} is no child of the one trusted")
        if voters != known:
            raise VerificationFailed(f"block {header.height}: signed by other validators")
    else:
        _require_overlap(known, block)
    verify_commit(block.commit, chain_id, voters, header.height, id_)
    return found


def _require_overlap(known: ValidatorSet, block: LightBlock) -> None:
    weight = sum(known.weight(signature.validator) for signature in block.commit.signatures)
    if weight < known.third:
        raise TooFar(
            f"block {block.header.height} is signed by weight {weight} of the trusted"
            f" validators, more than a third is {known.third}"
        )


def check_sets(block: LightBlock, chain_id: str) -> Trusted:
    """Return what `block` says, if its sets are those its header names; no signature is checked.

    Raises:
        VerificationFailed: they are not, or it is of another chain.
    """
    header = block.header
    following = block.next_validators or block.validators
    if header.chain_id != chain_id:
        raise VerificationFailed(f"block {header.height} is of chain {header.chain_id!r}")
    for members, wanted in (
        (block.validators, header.validators_hash),
        (following, header.next_validators_hash),
    ):
        keys = [member.key for member in members]
        if not keys or keys != sorted(set(keys)) or ValidatorSet(members).hash != wanted:
            raise VerificationFailed(f"block {header.height}: not the validators it names")
    return Trusted(header.height, header_id(header), header.time_ms, following)


def trust_block(block: LightBlock, height: int, block_id: bytes, chain_id: str) -> Trusted:
    """Return trust in a block that the operator names by height and id.

    Its certificate is checked as well, for whoever keeps the block shows it to others.

    Raises:
        VerificationFailed: it is another block.
        InvalidBlock, InvalidSignature: its certificate does not hold.
    """
    found = check_sets(block, chain_id)
    if (found.height, found.id) != (height, block_id):
        raise VerificationFailed(f"block {found.height} is {found.id.hex()}, not the one to trust")
    verify_commit(block.commit, chain_id, ValidatorSet(block.validators), height, block_id)
    return found


def follow(trusted: Trusted, path: LightPath, chain_id: str) -> Trusted:
    """Return trust in the last block of `path`, in as few steps as the overlap allows.

    Raises:
        VerificationFailed, InvalidBlock, InvalidSignature: it does not lead there.
    """
    blocks = list(path.blocks)
    if not blocks:
        raise VerificationFailed("an answer without blocks leads nowhere")
    while blocks:
        for place in reversed(range(len(blocks))):
            try:
                trusted = advance(trusted, blocks[place], chain_id)
            except TooFar:
                if place == 0:
                    raise
            else:
                del blocks[: place + 1]
                break
    return trusted


def verify_answer(answer: StateAnswer, trusted: Trusted, key: bytes) -> bytes | None:
    """Return the value of `key` after the trusted block, None if it has none.

    Raises:
        VerificationFailed: it is proven under another block, or not at all.
    """
    header = answer.block.header
    if header_id(header) != trusted.id:
        raise VerificationFailed(f"proven under block {header.height}, trusted is {trusted.height}")
    verify_proof(header.state_root, key, answer.value, answer.proof)
    return answer.value


def find_equivocation(conflict: Conflict) -> tuple[bytes, ...]:
    """Return evidence, as blocks carry it, against all who precommitted to both in one round.

    Two certificates of different rounds convict nobody alone: a validator may precommit again in a
    later round, if it saw reason to. They still show that the chain's promise was broken.
    """
    one, other = conflict.first.commit, conflict.second.commit
    if one.round != other.round or one.block_id == other.block_id:
        return ()
    mine, theirs = (
        {
            s.validator: Vote(
                VoteKind.PRECOMMIT, c.height, c.round, c.block_id, s.validator, s.extension,
                s.signature,
            )
            for s in c.signatures
        }
        for c in (one, other)
    )  # fmt: skip
    return tuple(vote_evidence(vote, theirs[key]) for key, vote in mine.items() if key in theirs)


def make_light_block(store: Store, height: int) -> LightBlock:
    """Return the light block of a height.

    Raises:
        NotFound: the chain is not that high, or the header was pruned.
    """
    header, commit = store.header(height), store.commit(height)
    voters = store.validators_after(height - 1).validators
    following = store.validators_after(height).validators
    return LightBlock(header, commit, voters, () if following == voters else following)


def make_path(store: Store, question: LightQuestion) -> LightPath:
    """Return the answer to a question.

    Raises:
        NotFound: as `make_light_block`; or not every change since `after` is known here, for this
            store began at a later block (`Store.set_changes`).
    """
    height = question.height or store.height
    between: Sequence[int] = [h for h in store.set_changes if question.after < h < height]
    blocks: list[LightBlock] = []
    size = 0
    for each in [*between, height][:MAX_PATH]:
        block = make_light_block(store, each)
        size += sum(200 + len(s.extension) for s in block.commit.signatures)
        if blocks and size > MAX_PATH_BYTES:
            break
        blocks.append(block)
    return LightPath(tuple(blocks))


def make_answer(store: Store, key: bytes) -> StateAnswer:
    """Return what the state after the last block says about `key`, with its proof.

    Raises:
        NotFound: there is no certified block yet.
    """
    moment = store.moment()
    block = make_light_block(store, moment.header.height)
    return StateAnswer(block, moment.values.get(key), moment.tree.prove(key))
