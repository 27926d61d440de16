"""The search for the first difference between two traces, as messages between two parties.

Neither sends its trace. The two trees are walked down together: each message says which node of
the other's last list is the first that differs, shows the way from there up to what is known to
be the sender's own, and lists the sender's nodes some levels further down. Everything to the left
of that way is compared as well, so nobody can skip an earlier difference. The lists alternate, the
accuser's first, and are so cut that the accused sends the last: then the accuser knows all that
the accused has along the way, and needs nobody to write the proof.

No clock and no socket: messages come in and go out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

from msgspec import Meta

from mlchain.codec import Hash, Record, Uint
from mlchain.errors import VerificationFailed
from mlchain.ml_runtime import tree
from mlchain.ml_runtime.proof.claim import ChunkClaim
from mlchain.ml_runtime.proof.layout import ENTRIES, STEPS
from mlchain.ml_runtime.proof.trace import ChunkTrace

STEP_LEVELS = 7
"""Most levels of one list in the tree over steps: 128 hashes."""
ENTRY_LEVELS = 5
"""Most levels of one list in the tree over entries: 32 hashes."""


class Move(Record, frozen=True):
    """One message. `choice`: place in the other's last list, 0 in the first message.

    `siblings` lead from that node, as the sender has it, to the one its last list stood under;
    `nodes` are the sender's nodes below it.
    """

    choice: Uint
    siblings: Annotated[tuple[Hash, ...], Meta(max_length=64)]
    nodes: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=1 << STEP_LEVELS)]


class Stage(NamedTuple):
    """One list: of which tree, from which level down to which."""

    tags: tree.Tags
    size: int
    high: int
    low: int


def stages(steps: int, entries: int) -> list[Stage]:
    """Return how the way from the root of `steps` steps to one of `entries` entries is cut.

    Always an even number of lists: four for up to 128 steps and 2^15 entries, two for small ones.
    """
    outer = _cut(tree.height(steps), max(1, -(-tree.height(steps) // STEP_LEVELS)))
    lists = max(1, -(-tree.height(entries) // ENTRY_LEVELS))
    inner = _cut(tree.height(entries), lists + (len(outer) + lists) % 2)
    return [Stage(STEPS, steps, *pair) for pair in outer] + [
        Stage(ENTRIES, entries, *pair) for pair in inner
    ]


def _cut(height: int, parts: int) -> list[tuple[int, int]]:
    """Cut a height into parts as equal as can be, the larger ones first."""
    ends = [height - -(-height * i // parts) for i in range(parts + 1)]
    return [(ends[i], ends[i + 1]) for i in range(parts)]


@dataclass
class Search:
    """One party's side of the search; both sides are the same code.

    Raises VerificationFailed at a message that does not fit the other's claim: who sends such a
    one has refused to answer.
    """

    mine: ChunkTrace
    theirs: ChunkClaim
    found: tuple[int, int] | None = None
    """Step of the chunk and entry at which the traces first differ, once this side knows it."""
    steps: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """What is known of the other's tree over steps, by (level, place)."""
    entries: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """What is known of the other's tree over the entries of the differing step."""

    def __post_init__(self) -> None:
        claim = self.mine.claim
        mine, theirs = ((c.job, c.chunk, c.steps) for c in (claim, self.theirs))
        if mine != theirs:
            raise VerificationFailed("search: the claims are about different chunks")
        if claim.trace == self.theirs.trace:
            raise VerificationFailed("search: the traces are the same")
        self._stages = stages(claim.steps, self.mine.layout.count)
        self._heads = [0]
        """Under which node the list of each stage stands; the last is the stage that comes next."""
        self._step = 0
        self._known = self.theirs.trace  # their node at the head of the stage of my last list

    def begin(self) -> Move:
        """Return the accuser's first message."""
        return self._send(0, ())

    def reply(self, move: Move) -> Move | None:
        """Take the other's message; return the answer, None if `found` is known now."""
        self._take(move)
        number = len(self._heads) - 1
        pairs = zip(self._list(number), move.nodes, strict=True)
        choice = next(i for i, (mine, theirs) in enumerate(pairs) if mine != theirs)
        self._known = move.nodes[choice]
        place = self._choose(number, choice)
        if number == len(self._stages) - 1:
            self.found = self._step, place
            return None
        stage = self._stages[number]
        way = tree.opening(self._levels(stage), [place], stage.low, stage.high)
        return self._send(choice, way)

    def known_trees(self) -> tuple[tree.Levels, tree.Levels]:
        """Return the other's trees over steps and entries, true from the left up to `found`.

        What lies to the left is the same as mine; along the way their nodes are known.
        """
        trees = []
        for mine, theirs in ((self.mine.steps, self.steps), (self._inner, self.entries)):
            levels = [list(level) for level in mine]
            for (level, place), node in theirs.items():
                levels[level][place] = node
            trees.append(levels)
        return trees[0], trees[1]

    def _send(self, choice: int, way: Sequence[bytes]) -> Move:
        move = Move(choice, tuple(way), tuple(self._list(len(self._heads) - 1)))
        self._heads.append(-1)  # theirs to choose
        return move

    def _take(self, move: Move) -> None:
        """Check a message against the other's claim and my own trace; note what it shows."""
        if self._heads[-1] < 0:
            self._heads.pop()
            before = len(self._heads) - 1
            if move.choice >= len(self._list(before)):
                raise VerificationFailed("answer: it points outside the list")
            place = self._choose(before, move.choice)
        elif move.choice or move.siblings:
            raise VerificationFailed("answer: the first list stands under the root")
        number = len(self._heads) - 1
        stage, head = self._stages[number], self._heads[-1]
        if len(move.nodes) != len(self._list(number)):
            raise VerificationFailed("answer: the list has the wrong length")
        first = head << (stage.high - stage.low)
        node, seen = self._climb(stage, dict(enumerate(move.nodes, first)), ())
        self._note(stage, seen)
        if number:
            stage = self._stages[before]
            levels = self._levels(stage)
            if node == levels[stage.low][place]:
                raise VerificationFailed("answer: it points at what is the same")
            node, seen = self._climb(stage, {place: node}, move.siblings)
            for (level, at), other in seen.items():
                if at < place >> (level - stage.low) and levels[level][at] != other:
                    raise VerificationFailed("answer: it skips an earlier difference")
            self._note(stage, seen)
        if node != self._known:
            raise VerificationFailed("answer: it does not lead to what was claimed")

    def _climb(
        self, stage: Stage, nodes: dict[int, bytes], siblings: Sequence[bytes]
    ) -> tuple[bytes, dict[tuple[int, int], bytes]]:
        """Return the node at the head of a stage, sealed if it is a root, and all that was met."""
        size, rise = tree.width(stage.size, stage.low), stage.high - stage.low
        seen: dict[tuple[int, int], bytes] = {}
        (top,) = tree.climb(stage.tags, size, nodes, siblings, rise, seen, stage.low).values()
        is_root = stage.high == tree.height(stage.size)
        return (tree.seal(stage.tags, stage.size, top) if is_root else top), seen

    def _note(self, stage: Stage, seen: dict[tuple[int, int], bytes]) -> None:
        (self.steps if stage.tags is STEPS else self.entries).update(seen)

    def _choose(self, number: int, choice: int) -> int:
        """Descend from a stage's list to one of its nodes; return the node's place."""
        stage = self._stages[number]
        place = (self._heads[number] << (stage.high - stage.low)) + choice
        if number + 1 < len(self._stages):
            crosses = self._stages[number + 1].tags is not stage.tags
            if crosses:
                self._step, self._inner = place, self.mine.step_tree(place)
            self._heads.append(0 if crosses else place)
        return place

    def _list(self, number: int) -> list[bytes]:
        """Return my list of a stage."""
        stage = self._stages[number]
        span = stage.high - stage.low
        level = self._levels(stage)[stage.low]
        return level[self._heads[number] << span : (self._heads[number] + 1) << span]

    def _levels(self, stage: Stage) -> tree.Levels:
        return self.mine.steps if stage.tags is STEPS else self._inner
