"""Keeping votes: who voted for what, with which weight, in a bounded space.

Both votes of an equivocator are kept, and each counts toward the quorum it names. That is safe,
for a quorum only needs its *correct* members to vote once; and it is needed: if every node kept
the first vote it happened to see, nodes would disagree for ever on whether a quorum exists.
"""

from __future__ import annotations

from mlchain.ledger.commit import Vote, VoteKind
from mlchain.ledger.validators import ValidatorSet

MAX_VALUES = 2
"""Different values kept of one validator per kind and round, besides those of known blocks."""


class _Ballot:
    """All votes of one kind in one round."""

    __slots__ = ("bits", "by_value", "of_voter", "weight", "weights")

    def __init__(self) -> None:
        self.by_value: dict[bytes, dict[bytes, Vote]] = {}
        self.of_voter: dict[bytes, list[Vote]] = {}
        self.weights: dict[bytes, int] = {}
        self.bits: dict[bytes, int] = {}
        self.weight = 0


class VoteBook:
    """The votes of one height, all of them authenticated and from members."""

    def __init__(self, validators: ValidatorSet) -> None:
        self.validators = validators
        self.quorum = validators.quorum
        self._ballots: dict[tuple[int, int], _Ballot] = {}
        self._quorate: dict[tuple[int, int, bytes], None] = {}
        self._decisions: dict[tuple[int, bytes], None] = {}

    def admits(self, vote: Vote, known_block: bool) -> bool:
        """Tell whether `vote` is new and within the bounds; `known_block`: we hold its block."""
        ballot = self._ballots.get((vote.kind, vote.round))
        earlier = ballot.of_voter.get(vote.validator, ()) if ballot else ()
        for known in earlier:
            if known.block_id == vote.block_id:
                return False
        return len(earlier) < MAX_VALUES or known_block

    def add(self, vote: Vote, known_block: bool) -> bool:
        """Keep `vote` if it is admitted; tell whether it was."""
        if not self.admits(vote, known_block):
            return False
        key = (vote.kind, vote.round)
        ballot = self._ballots.get(key)
        if ballot is None:
            ballot = self._ballots[key] = _Ballot()
        weight = self.validators.weight(vote.validator)
        ballot.by_value.setdefault(vote.block_id, {})[vote.validator] = vote
        earlier = ballot.of_voter.setdefault(vote.validator, [])
        if not earlier:
            ballot.weight += weight
        earlier.append(vote)
        total = ballot.weights.get(vote.block_id, 0) + weight
        ballot.weights[vote.block_id] = total
        bit = 1 << self.validators.index(vote.validator)
        ballot.bits[vote.block_id] = ballot.bits.get(vote.block_id, 0) | bit
        if total >= self.quorum:
            self._quorate[vote.kind, vote.round, vote.block_id] = None
            if vote.kind == VoteKind.PRECOMMIT:
                self._decisions[vote.round, vote.block_id] = None
        return True

    def of(self, kind: int, round_: int, voter: bytes) -> list[Vote]:
        """Return the votes `voter` cast, in order of arrival."""
        ballot = self._ballots.get((kind, round_))
        return list(ballot.of_voter.get(voter, ())) if ballot else []

    def weight(self, kind: int, round_: int, block_id: bytes) -> int:
        """Return the weight behind one value."""
        ballot = self._ballots.get((kind, round_))
        return ballot.weights.get(block_id, 0) if ballot else 0

    def has_quorum(self, kind: int, round_: int, block_id: bytes) -> bool:
        """Tell whether more than two thirds stand behind one value."""
        return (kind, round_, block_id) in self._quorate

    def has_any_quorum(self, kind: int, round_: int) -> bool:
        """Tell whether more than two thirds voted at all, for whatever."""
        ballot = self._ballots.get((kind, round_))
        return ballot is not None and ballot.weight >= self.quorum

    def decisions(self) -> list[tuple[int, bytes]]:
        """Return (round, block id or nil) of every quorum of precommits, in order of arrival."""
        return list(self._decisions)

    def voters(self, kind: int, round_: int, block_id: bytes) -> int:
        """Return who stands behind one value: bit i is the validator i in key order."""
        ballot = self._ballots.get((kind, round_))
        return ballot.bits.get(block_id, 0) if ballot else 0

    def cast_for(self, kind: int, round_: int, block_id: bytes) -> list[Vote]:
        """Return the votes behind one value, in key order."""
        ballot = self._ballots.get((kind, round_))
        if ballot is None:
            return []
        votes = ballot.by_value.get(block_id, {})
        return [votes[key] for key in sorted(votes)]

    def tallies(self) -> list[tuple[int, int, bytes]]:
        """Return every (round, kind, value) voted for, in order."""
        return sorted((r, k, b) for (k, r), ballot in self._ballots.items() for b in ballot.weights)

    def forget(self, below: int, keep: tuple[int, ...]) -> None:
        """Drop all rounds before `below` but those in `keep`."""
        for kind, round_ in [k for k in self._ballots if k[1] < below and k[1] not in keep]:
            for block_id in self._ballots.pop((kind, round_)).weights:
                self._quorate.pop((kind, round_, block_id), None)
                if kind == VoteKind.PRECOMMIT:
                    self._decisions.pop((round_, block_id), None)
