"""Certified headers of a chain whose validators change: nothing is executed, all is signed."""

from __future__ import annotations

from factories import make_key
from msgspec.structs import replace

from mlchain.consensus.light import LightBlock, Trusted, check_sets
from mlchain.ledger.block import PROTOCOL_VERSION, Header, header_id
from mlchain.ledger.commit import Vote, VoteKind, make_commit, sign_bytes
from mlchain.ledger.validators import Validator, ValidatorSet

CHAIN = "test-light"


def members(*names: str, **weights: int) -> ValidatorSet:
    """A set by name; each weighs 1 unless said otherwise."""
    named = {**dict.fromkeys(names, 1), **weights}
    return ValidatorSet(tuple(Validator(make_key(n).public, w) for n, w in named.items()))


def certify(header: Header, voters: ValidatorSet, following: ValidatorSet, *signers: str, round_=0):
    """A light block signed by `signers`, whoever they are."""
    block_id = header_id(header)
    message = sign_bytes(header.chain_id, VoteKind.PRECOMMIT, header.height, round_, block_id)
    votes = []
    for name in signers:
        key = make_key(name)
        votes.append(
            Vote(
                VoteKind.PRECOMMIT, header.height, round_, block_id, key.public, b"",
                key.sign(message),
            )
        )  # fmt: skip
    then = () if following == voters else following.validators
    return LightBlock(header, make_commit(votes), voters.validators, then)


class Headers:
    """A chain grown by naming who votes after each block."""

    def __init__(self, *names: str) -> None:
        self.names, self.voters = names, members(*names)
        self.blocks: list[LightBlock] = []
        self.parent, self.time_ms = bytes(32), 1000

    def header(self, following: ValidatorSet, **changes) -> Header:
        header = Header(
            PROTOCOL_VERSION, CHAIN, len(self.blocks), self.time_ms, self.parent, bytes(32),
            self.voters.hash, following.hash, bytes(32), bytes(32), bytes(32), 0,
        )  # fmt: skip
        return replace(header, **changes)

    def grow(self, count: int = 1, then: tuple[str, ...] = (), **changes) -> LightBlock:
        """Add blocks; after the last one `then` vote (the same as before if empty)."""
        for number in range(count):
            names = then if then and number == count - 1 else self.names
            following = members(*names)
            header = self.header(following, **changes)
            self.blocks.append(certify(header, self.voters, following, *self.names))
            self.parent, self.names, self.voters = header_id(header), names, following
            self.time_ms += 1000
        return self.blocks[-1]

    def trusted(self, height: int) -> Trusted:
        return check_sets(self.blocks[height], CHAIN)
