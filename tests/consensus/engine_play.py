"""Plays a transcript through the engine and compares it with what the engine says now.

    > prevote bc 0 X                            an input: b and c prevote X in round 0
    precommit 0 X                               what the engine says to that
    = round 0 precommit, locked 0 X, valid 0 X  where it stands now
    > at ab 1                                   an input: a and b are known to be in round 1
    wait propose 1 1100                         it goes there, and waits 1,100 ms for a proposal

Validators are a, b, c, … in key order. The height is a multiple of their number, so a proposes in
round 0, b in round 1, and so on. Whatever the engine casts comes back to it as its own vote, as
from the driver. Lines that begin with # are for the reader.
"""

from __future__ import annotations

from difflib import ndiff
from textwrap import dedent

from mlchain.consensus.actions import (
    Action,
    Cast,
    Check,
    Decision,
    Propose,
    Schedule,
    Step,
    Verdict,
)
from mlchain.consensus.effects import Timeouts
from mlchain.consensus.engine import Engine
from mlchain.ledger.commit import NIL, Vote, VoteKind
from mlchain.ledger.validators import Validator, ValidatorSet

TIMEOUTS = Timeouts(propose_ms=1000, vote_ms=500, step_ms=100, cap_ms=1250)
NAMES = "abcdefghij"


def key_of(name: str) -> bytes:
    return name.encode() * 32


def members(*weights: int) -> ValidatorSet:
    return ValidatorSet(
        tuple(Validator(key_of(n), w) for n, w in zip(NAMES, weights, strict=False))
    )


def id_of(name: str) -> bytes:
    return NIL if name == "nil" else name.encode() * 32


def name_of(block_id: bytes) -> str:
    return block_id[:1].decode() or "nil"


def vote_of(name: str, kind: VoteKind, round_: int, block: str, height: int = 0) -> Vote:
    return Vote(kind, height, round_, id_of(block), key_of(name), b"", bytes(64))


class Play:
    """One engine under the hands of a script."""

    def __init__(self, me: str | None = "d", weights: tuple[int, ...] = (1, 1, 1, 1)) -> None:
        self.validators = members(*weights)
        self.me = me
        height = 5 * len(weights)
        self.engine = Engine(height, self.validators, key_of(me) if me else None, TIMEOUTS)

    def __call__(self, script: str) -> None:
        """Play `script`; fail with the difference if the engine says anything else."""
        wanted = [line.strip() for line in dedent(script).strip().splitlines()]
        said: list[str] = []
        for line in wanted:
            if line.startswith(">"):
                said += [line, *self.tell(line[1:])]
            elif line.startswith("="):
                said.append(self.state())
            elif line.startswith("#") or not line:
                said.append(line)
        assert said == wanted, "\n".join(["", *ndiff(wanted, said)])

    def tell(self, line: str) -> list[str]:
        """Give one input and return what the engine says."""
        engine, (verb, *rest) = self.engine, line.split()
        said: list[str] = []
        if verb == "demand":
            engine.demand()
        elif verb == "proposal":
            place = int(rest[0]), id_of(rest[1]), int(rest[3]) if len(rest) > 2 else -1
            if not engine.admits_proposal(*place):
                return ["not admitted"]
            engine.add_proposal(*place)
        elif verb == "at":
            for voter in rest[0]:
                engine.seen(key_of(voter), int(rest[1]))
        elif verb == "built":
            engine.set_verdict(id_of(rest[0]), Verdict.VALID)
            engine.add_proposal(engine.round, id_of(rest[0]), -1)
        elif verb == "timeout":
            engine.timeout(Step[rest[0].upper()], int(rest[1]))
        elif verb in ("prevote", "precommit"):
            for voter in rest[0]:
                vote = vote_of(voter, VoteKind[verb.upper()], int(rest[1]), rest[2], engine.height)
                if not engine.add_vote(vote):
                    said.append(f"not new from {voter}")
                said += self._advance()
        else:
            engine.set_verdict(id_of(rest[0]), Verdict[verb.upper()])
        return said + self._advance()

    def state(self) -> str:
        engine = self.engine
        locked = f"{engine.locked_round} {name_of(engine.locked_id)}"
        valid = f"{engine.valid_round} {name_of(engine.valid_id)}"
        locked = "-" if engine.locked_round < 0 else locked
        valid = "-" if engine.valid_round < 0 else valid
        step = engine.step.name.lower()
        return f"= round {engine.round} {step}, locked {locked}, valid {valid}"

    def _advance(self) -> list[str]:
        said = []
        while actions := self.engine.advance():
            for action in actions:
                said.append(self._say(action))
                self._take_back(action)
        return said

    def _take_back(self, action: Action) -> None:
        if self.me is None:
            return
        if isinstance(action, Cast):
            block = name_of(action.block_id)
            own = vote_of(self.me, action.kind, action.round, block, self.engine.height)
            self.engine.add_vote(own)
        elif isinstance(action, Propose) and action.block_id != NIL:
            self.engine.add_proposal(action.round, action.block_id, action.pol_round)

    @staticmethod
    def _say(action: Action) -> str:
        if isinstance(action, Schedule):
            return f"wait {action.step.name.lower()} {action.round} {action.delay_ms}"
        if isinstance(action, Cast):
            return f"{action.kind.name.lower()} {action.round} {name_of(action.block_id)}"
        if isinstance(action, Check):
            return f"check {name_of(action.block_id)}"
        if isinstance(action, Decision):
            return f"decide {action.round} {name_of(action.block_id)}"
        if action.block_id == NIL:
            return f"build {action.round}"
        return f"propose {action.round} {name_of(action.block_id)} pol {action.pol_round}"


def play_from(script: str, me: str = "d") -> Play:
    """Return a play that has come as far as `script` says."""
    play = Play(me)
    play(script)
    return play


PREVOTED_X = """
    > proposal 0 X
    wait propose 0 1000
    check X
    > valid X
    prevote 0 X
"""
"""How most scenarios begin."""
