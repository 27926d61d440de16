"""What we know of the peers, and what to tell them.

A status lists the votes its sender holds, so it is at once a request for the rest. Nothing is
assumed to have arrived: messages are lost, peers crash. And votes of *everybody* are passed on,
not only our own: the one peer that holds the missing vote may not be its author.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlchain.consensus.engine import Engine
from mlchain.consensus.inbox import Authenticator
from mlchain.consensus.messages import MAX_STATUS_ENTRIES, BlockProposal, Have, Status
from mlchain.ledger.commit import NIL, Vote
from mlchain.ledger.validators import ValidatorSet

MAX_PEERS = 512
MAX_STRIKES = 64
"""Forged or senseless messages of one peer in one height, after which it is not heard."""
MAX_ANSWER_VOTES = 128
EARLY_ROUNDS = 2
"""Rounds of the next height of which messages are kept."""
MAX_EARLY = 2
"""Messages kept for the next height per validator, kind and round."""
LISTED_ROUNDS = 8
"""Newest rounds listed in a status, besides the locked and the valid round."""


@dataclass(slots=True)
class Peer:
    """What one peer told us last."""

    height: int = 0
    strikes: int = 0
    status_answer_ms: int = 0
    """From when on its next status is answered: answers cost more than questions."""
    block_answer_ms: int = 0


class Peers:
    """All peers heard of, in a bounded table."""

    def __init__(self) -> None:
        self._peers: dict[bytes, Peer] = {}

    def get(self, key: bytes) -> Peer | None:
        """Return what is known of a peer; None: the table is full of others."""
        peer = self._peers.get(key)
        if peer is None and len(self._peers) < MAX_PEERS:
            peer = self._peers[key] = Peer()
        return peer

    def strikes(self, key: bytes) -> int:
        """Return how many forged or senseless messages a peer sent at this height."""
        return self._peers[key].strikes if key in self._peers else 0

    def at(self, height: int) -> list[bytes]:
        """Return the peers that said they are at `height`."""
        return [key for key, peer in self._peers.items() if peer.height == height]

    def ahead_of(self, height: int) -> list[bytes]:
        """Return the peers that say they are beyond `height`."""
        return [key for key, peer in self._peers.items() if peer.height > height]

    def forgive(self) -> None:
        """A new height: count anew."""
        for peer in self._peers.values():
            peer.strikes = 0


class Early:
    """Messages of the next height, from peers that decided this one before us."""

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, int, int], list[Vote | BlockProposal]] = {}

    def keep(
        self, message: Vote | BlockProposal, validators: ValidatorSet, inbox: Authenticator
    ) -> str | None:
        """Keep `message` until its height starts; return why not, or None.

        The members of the next height are not known yet; those of this one are the best guess,
        and whatever is missed comes again by gossip.

        Raises:
            InvalidSignature: forged.
        """
        vote = message if isinstance(message, Vote) else message.proposal
        kind = message.kind if isinstance(message, Vote) else 0
        kept = self._kept.get((vote.validator, kind, vote.round), [])
        if vote.round >= EARLY_ROUNDS or len(kept) >= MAX_EARLY or message in kept:
            return "known, or more than is kept"
        if isinstance(message, Vote):
            inbox.check_vote(message, validators)
        else:
            inbox.check_proposer(message.proposal, validators)
        self._kept.setdefault((vote.validator, kind, vote.round), []).append(message)
        return None

    def take(self, height: int) -> list[Vote | BlockProposal]:
        """Return, and forget, what was kept for `height`."""
        kept, self._kept = self._kept, {}
        return [m for messages in kept.values() for m in messages if _height(m) == height]


def _height(message: Vote | BlockProposal) -> int:
    return message.height if isinstance(message, Vote) else message.proposal.height


def make_status(engine: Engine) -> Status:
    """Return where `engine` stands and which votes it holds, those it needs most first."""
    marked = (engine.locked_round, engine.valid_round)
    size = (len(engine.validators) + 7) // 8
    have = []
    for round_, kind, block_id in _by_use(engine):
        if round_ <= engine.round - LISTED_ROUNDS and round_ not in marked:
            continue
        voters = engine.votes.voters(kind, round_, block_id).to_bytes(size, "little")
        have.append(Have(kind, round_, block_id, voters))
        if len(have) == MAX_STATUS_ENTRIES:
            break
    return Status(engine.height, engine.round, int(engine.step), tuple(have))


def missing_votes(engine: Engine, status: Status) -> list[Vote]:
    """Return the votes that matter and that the sender of `status` lacks, the most needed first.

    These are the votes of our current and previous round, and those of the rounds of our lock
    and of our valid value, without which our proposals and prevotes cannot be justified.
    """
    held = {(h.round, h.kind, h.block_id): h.voters for h in status.have}
    marked = (engine.locked_round, engine.valid_round)
    recent = max(engine.round - 1, status.round - LISTED_ROUNDS + 1)
    votes, index = engine.votes, engine.validators.index
    missing: list[Vote] = []
    for tally in _by_use(engine):
        round_, kind, block_id = tally
        if round_ < recent and round_ not in marked:
            continue
        bits = int.from_bytes(held.get(tally, b""), "little")
        if not votes.voters(kind, round_, block_id) & ~bits:
            continue
        for vote in engine.votes.cast_for(kind, round_, block_id):
            if not bits >> index(vote.validator) & 1:
                missing.append(vote)
    return missing[:MAX_ANSWER_VOTES]


def _by_use(engine: Engine) -> list[tuple[int, int, bytes]]:
    """Return (round, kind, block id) of the votes at hand, those that matter most first.

    First those of our round, of the last, and of our lock and valid value; then other earlier ones;
    and later rounds at the end, for a single vote can be of any of them and must not hide the rest.
    """
    marked = (engine.locked_round, engine.valid_round)

    def rank(tally: tuple[int, int, bytes]) -> tuple[bool, bool, int]:
        distance = abs(tally[0] - engine.round)
        return tally[0] > engine.round, distance > 1 and tally[0] not in marked, distance

    tallies = engine.votes.tallies()
    tallies.reverse()  # precommits before prevotes
    tallies.sort(key=rank)
    return tallies


def lacking_blocks(engine: Engine, overdue: bool) -> list[tuple[int, bytes]]:
    """Return (round, block id) to ask for: a block with a third behind it that is not at hand.

    Or nil, for any proposal of the current round, if that is `overdue`. At most one, the newest.
    """
    tallies = engine.votes.tallies()
    lacking = [
        (r, b) for r, _, b in tallies if b != NIL and engine.is_backed(r, b) and not engine.knows(b)
    ]
    if not lacking and overdue and engine.round >= 0 and engine.round not in engine.proposals:
        lacking.append((engine.round, NIL))
    return lacking[-1:]
