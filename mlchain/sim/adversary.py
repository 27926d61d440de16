"""Byzantine validators, one class each.

Every one of them runs the real driver, so that it knows the protocol, and then misuses its key.
To add an attack, add a class: it appears in `mlchain sim` and in the tests by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from mlchain import codec
from mlchain.consensus.driver import Driver
from mlchain.consensus.engine import Engine
from mlchain.consensus.messages import (
    BlockProposal,
    Decided,
    Message,
    Proposal,
    decode_message,
    encode_message,
)
from mlchain.consensus.safety import SigningKey
from mlchain.ledger.commit import NIL, Vote, VoteKind, sign_bytes
from mlchain.sim.application import TinyBlock, TinyLedger

CHAIN_ID = "sim"

Blocks = dict[int, dict[bytes, bytes]]
decode_once = lru_cache(maxsize=4096)(decode_message)
"""Whoever gets the same bytes reads the same message; records cannot change."""


def extend(height: int) -> bytes:
    """Return the extension that the toy ledger wants in a precommit."""
    return b"work of height %d" % height


def spoil(block: bytes, key: bytes) -> tuple[bytes, bytes]:
    """Return the id and the bytes of a block like `block` that is not valid."""
    tiny = codec.decode(TinyBlock, block, 256)
    spoilt = codec.encode(
        TinyBlock(tiny.height, tiny.round, tiny.proposer, tiny.parent, tiny.copy, False)
    )
    return TinyLedger(key, 0).identify(spoilt), spoilt


@dataclass(frozen=True, slots=True)
class Ground:
    """The ledger that an adversary stands on: the toy one, or whole nodes."""

    chain_id: str = CHAIN_ID
    extend: Callable[[int], bytes] = extend
    spoil: Callable[[bytes, bytes], tuple[bytes, bytes]] = spoil


class Adversary:
    """Misuses one validator's key. What it may know is more than any real one: all blocks."""

    copies = 1
    """How many honest-looking copies run under the key."""
    driver_type: type[Driver] = Driver
    serves_blocks = True
    is_found = False
    """Whether a calm network must bring evidence against it."""

    def __init__(
        self,
        rng: Random,
        key: SigningKey,
        where: tuple[int, int],
        blocks: Blocks,
        ground: Ground | None = None,
    ) -> None:
        self.rng = rng
        self.key = key
        self.ground = ground or Ground()
        self.index, self.size = where
        self.blocks = blocks
        """By height and id, whatever anybody proposed so far."""

    def outgoing(self, data: bytes, receiver: int, calm: bool) -> list[bytes]:
        """Return what is sent in place of `data`."""
        message = decode_once(data)
        sent = self.replace(message, receiver, calm)
        return [data if m is message else encode_message(m) for m in sent]

    def replace(self, message: Message, receiver: int, calm: bool) -> list[Message]:
        """Return what is sent in place of `message`."""
        return [message]

    # ---- tools ----------------------------------------------------------------------------

    def is_own(self, message: Message) -> bool:
        """Tell whether our key signed it."""
        signed = message.proposal if isinstance(message, BlockProposal) else message
        return isinstance(signed, Vote | Proposal) and signed.validator == self.key.public

    def vote(self, vote: Vote, block_id: bytes) -> Vote:
        """Return our vote for another block in the same place."""
        extension = b""
        if vote.kind == VoteKind.PRECOMMIT and block_id != NIL:
            extension = vote.extension or self.ground.extend(vote.height)
        message = sign_bytes(
            self.ground.chain_id, vote.kind, vote.height, vote.round, block_id, -1, extension
        )
        return Vote(
            vote.kind,
            vote.height,
            vote.round,
            block_id,
            self.key.public,
            extension,
            self.key.sign(message),
        )

    def propose(self, old: Proposal, block_id: bytes, pol_round: int) -> BlockProposal:
        """Return our proposal of another block, with the best polka we can forge: one vote."""
        message = sign_bytes(self.ground.chain_id, 0, old.height, old.round, block_id, pol_round)
        proposal = Proposal(
            old.height,
            old.round,
            block_id,
            pol_round,
            self.key.public,
            self.key.sign(message),
        )
        prevote = Vote(1, old.height, max(pol_round, 0), NIL, self.key.public, b"", bytes(64))
        polka = (self.vote(prevote, block_id),) if pol_round >= 0 else ()
        return BlockProposal(proposal, polka, self.blocks[old.height][block_id])

    def other_block(self, height: int, block_id: bytes) -> bytes:
        """Return the id of some other block of the height, or nil."""
        others = [b for b in self.blocks.get(height, {}) if b != block_id]
        return self.rng.choice(others) if others else NIL


class Twins(Adversary):
    """Two honest copies under one key, which partitions keep apart. Each believes itself alone."""

    copies = 2


class Silent(Adversary):
    """Says nothing."""

    def outgoing(self, data: bytes, receiver: int, calm: bool) -> list[bytes]:
        """Return nothing."""
        return []


class Liar(Adversary):
    """Signs, now and then, any well-formed message: other values, polkas there never were."""

    def replace(self, message: Message, receiver: int, calm: bool) -> list[Message]:
        """Return a lie in one of three cases."""
        if not self.is_own(message) or self.rng.random() >= 0.35:
            return [message]
        if isinstance(message, Vote):
            if message.extension and self.rng.random() < 0.2:
                return [self.vote_with_bad_extension(message)]
            pool = [NIL, *self.blocks.get(message.height, {})]
            return [self.vote(message, self.rng.choice(pool))]
        assert isinstance(message, BlockProposal)
        pool = list(self.blocks[message.proposal.height])
        pol_round = self.rng.randrange(-1, message.proposal.round)
        return [self.propose(message.proposal, self.rng.choice(pool), pol_round)]

    def vote_with_bad_extension(self, vote: Vote) -> Vote:
        """Return a precommit that no honest node may count."""
        extension = b"nonsense"
        message = sign_bytes(
            self.ground.chain_id, vote.kind, vote.height, vote.round, vote.block_id, -1, extension
        )
        return Vote(
            vote.kind,
            vote.height,
            vote.round,
            vote.block_id,
            vote.validator,
            extension,
            self.key.sign(message),
        )


class Equivocator(Adversary):
    """Tells one half of the network this and the other half that, always."""

    is_found = True

    def replace(self, message: Message, receiver: int, calm: bool) -> list[Message]:
        """Return the other value for receivers of odd number."""
        if not self.is_own(message) or receiver % 2 == 0:
            return [message]
        if isinstance(message, Vote):
            return [self.vote(message, self.other_block(message.height, message.block_id))]
        assert isinstance(message, BlockProposal)
        old = message.proposal
        other = self.other_block(old.height, old.block_id)
        return [self.propose(old, other, -1)] if other != NIL else []


class Deserter(Adversary):
    """Gives its prevotes to one peer alone, so that only that one locks; then it is gone."""

    def replace(self, message: Message, receiver: int, calm: bool) -> list[Message]:
        """Return the message for the chosen one of this height, nothing for others."""
        if calm:
            return []
        if isinstance(message, Vote):
            chosen = (message.height + message.round // 4) % self.size
            is_for_it = message.kind == VoteKind.PREVOTE and receiver == chosen
            return [message] if is_for_it else []
        return [message] if isinstance(message, BlockProposal) else []


class Spoiler(Adversary):
    """Proposes blocks that are invalid, and votes for them."""

    def replace(self, message: Message, receiver: int, calm: bool) -> list[Message]:
        """Return the proposal of a spoilt block in place of a good one."""
        if not self.is_own(message) or not isinstance(message, BlockProposal):
            return [message]
        old = message.proposal
        block_id, spoilt = self.ground.spoil(message.block, self.key.public)
        self.blocks[old.height][block_id] = spoilt
        return [self.propose(old, block_id, -1)]


class _ShamelessEngine(Engine):
    """Votes for every block, whatever it is locked on, and digs out the oldest polka it knows."""

    def _lock_allows(self, block_id: bytes, pol_round: int) -> bool:
        return True

    def _value_to_propose(self) -> tuple[bytes, int]:
        for round_, kind, block_id in self.votes.tallies():
            if (
                kind == VoteKind.PREVOTE
                and round_ < self.round
                and self.knows(block_id)
                and self.votes.has_quorum(kind, round_, block_id)
            ):
                return block_id, round_
        return NIL, -1


class _ShamelessDriver(Driver):
    engine_type = _ShamelessEngine


class Schemer(Adversary):
    """Has one validator decide alone: it gives its precommit to that one, which falls silent then.

    The others go on to the next round, where the schemer helps whatever is proposed. Before, it
    gives its prevotes and proposals to most, not to all. Of decisions it tells nobody.
    """

    driver_type = _ShamelessDriver
    serves_blocks = False

    def __init__(
        self,
        rng: Random,
        key: SigningKey,
        where: tuple[int, int],
        blocks: Blocks,
        ground: Ground | None = None,
    ) -> None:
        super().__init__(rng, key, where, blocks, ground)
        self._favours: dict[tuple[int, int, int], bool] = {}
        self.sprung: dict[int, int] = {}
        """Height and round in which a victim was silenced."""

    def is_victim(self, precommit: Vote, place: int) -> bool:
        """Tell whether all schemers want this place to decide alone, and did not try before."""
        height, round_ = precommit.height, precommit.round
        return height not in self.sprung and place == (5 * height + 3 * round_) % self.size

    def replace(self, message: Message, receiver: int, calm: bool) -> list[Message]:
        """Return what is meant for this receiver: the block, or nil, or nothing."""
        if isinstance(message, Decided):
            return []
        signed = message.proposal if isinstance(message, BlockProposal) else message
        if not isinstance(signed, Vote | Proposal):
            return [message]
        if not self.is_own(message):
            return [] if isinstance(message, Vote) and message.kind == 2 else [message]
        if signed.round > self.sprung.get(signed.height, 1 << 62):
            return [message]
        if isinstance(message, BlockProposal):
            return [message] if self._is_shown(0, message.proposal, receiver) else []
        assert isinstance(message, Vote)
        if message.kind == VoteKind.PRECOMMIT:
            is_shown = receiver == (5 * message.height + 3 * message.round) % self.size
        else:
            is_shown = self._is_shown(message.kind, message, receiver)
        newest = list(self.blocks.get(message.height, {NIL: b""}))[-1]
        return [self.vote(message, message.block_id or newest if is_shown else NIL)]

    def _is_shown(self, kind: int, signed: Vote | Proposal, receiver: int) -> bool:
        place = (kind, signed.height, receiver)
        return self._favours.setdefault(place, self.rng.random() < 0.75)


class Forger(Schemer):
    """The same, and claims for its own proposals a polka that never was.

    It strikes where its own turn comes next, to unlock with a forged polka whoever locked.
    """

    def is_victim(self, precommit: Vote, place: int) -> bool:
        """Tell whether the next round is ours, too."""
        next_proposer = (precommit.height + precommit.round + 1) % self.size
        return super().is_victim(precommit, place) and next_proposer == self.index

    def replace(self, message: Message, receiver: int, calm: bool) -> list[Message]:
        """Return an own proposal with the newest polka one could have, made of one vote."""
        if self.is_own(message) and isinstance(message, BlockProposal):
            old = message.proposal
            return [self.propose(old, old.block_id, old.round - 1)]
        return super().replace(message, receiver, calm)


ADVERSARIES: dict[str, type[Adversary]] = {
    kind.__name__.lower(): kind
    for kind in (Twins, Liar, Equivocator, Deserter, Schemer, Forger, Spoiler, Silent)
}
"""All of them, by name."""
