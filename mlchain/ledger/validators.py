"""The validator set: who votes, with what weight, and who proposes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated

from msgspec import Meta

from mlchain import codec, crypto
from mlchain.codec import PublicKey, Record

MAX_VALIDATORS = 128


class Validator(Record, frozen=True):
    """One member: the key that votes and its weight (members of a consortium weigh 1)."""

    key: PublicKey
    weight: Annotated[int, Meta(ge=1, le=2**40)]


class _Members(Record, frozen=True):
    validators: Annotated[tuple[Validator, ...], Meta(min_length=1, max_length=MAX_VALIDATORS)]


class ValidatorSet:
    """Validators in key order, with the arithmetic of quorums over their weights W.

    A quorum is strictly more than 2/3 of W: floor(2W/3) + 1. A blocking third is strictly more
    than 1/3 of W: floor(W/3) + 1.
    """

    def __init__(
        self, validators: tuple[Validator, ...], turns: Mapping[bytes, int] | None = None
    ) -> None:
        """`turns`: how often each proposes in a round of the schedule; by default equally often."""
        self.validators = tuple(sorted(validators, key=lambda v: v.key))
        self.keys = tuple(v.key for v in self.validators)
        assert len(set(self.keys)) == len(self.keys) > 0, "a set has distinct members"
        self._weights = {v.key: v.weight for v in self.validators}
        self._index = {key: i for i, key in enumerate(self.keys)}
        self.total = sum(self._weights.values())
        self.quorum = 2 * self.total // 3 + 1
        self.third = self.total // 3 + 1
        self.turns = tuple(turns.get(key, 1) if turns else 1 for key in self.keys)

    def __len__(self) -> int:
        return len(self.validators)

    def __contains__(self, key: object) -> bool:
        return key in self._weights

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ValidatorSet) and self.validators == other.validators

    def __hash__(self) -> int:
        return hash(self.validators)

    @property
    def faults(self) -> int:
        """f: how many members of equal weight may fail while the chain stays safe."""
        return (len(self.validators) - 1) // 3

    @cached_property
    def hash(self) -> bytes:
        """Digest of the set, as it stands in headers."""
        return crypto.digest("mlchain/validators", codec.encode(_Members(self.validators)))

    def weight(self, key: bytes) -> int:
        """Weight of `key`, 0 for a stranger."""
        return self._weights.get(key, 0)

    def index(self, key: bytes) -> int:
        """Return the place of a member in key order."""
        return self._index[key]

    def proposer(self, height: int, round_: int) -> bytes:
        """Return who proposes in (height, round)."""
        schedule = make_schedule(self.turns)
        return self.keys[schedule[(height + round_) % len(schedule)]]


@lru_cache(maxsize=64)
def make_schedule(turns: tuple[int, ...]) -> tuple[int, ...]:
    """Return whose turn it is, as indices into key order, over one round of the schedule.

    Smooth weighted round-robin: in every slot each gains its turns, the richest proposes and pays
    the sum. Nobody proposes twice within f + 1 slots, counted around the end: so among f + 1
    proposers in a row, who each propose in the first round of their height, one is honest.
    """
    total, faults = sum(turns), (len(turns) - 1) // 3
    credit = [0] * len(turns)
    slots: list[int] = []
    for slot in range(total):
        near = dict.fromkeys(slots[max(0, slot - faults) :])
        near |= dict.fromkeys(slots[: max(0, faults - (total - 1 - slot))])
        credit = [have + gain for have, gain in zip(credit, turns, strict=True)]
        free = [index for index in range(len(turns)) if index not in near]
        chosen = max(free, key=lambda index: (credit[index], -index))
        credit[chosen] -= total
        slots.append(chosen)
    return tuple(slots)
