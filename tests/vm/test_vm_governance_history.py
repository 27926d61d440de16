"""Whatever members do, in any order: a minority changes nothing, the set stays in bounds."""

from __future__ import annotations

from typing import Any

import pytest
from factories import make_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from vm.world import BOND, PARAMS, World, make_genesis

from mlchain.ledger.validators import ValidatorSet
from mlchain.vm import epochs
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.changes import RemoveMember, SetParam, change_digest
from mlchain.vm.families.governance import PROPOSALS, Approve, ChangeKeys, Leave, Proposal, Propose
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.params import get_params

EPOCH = 5
SHORT = replace(PARAMS, epoch_blocks=EPOCH, unbonding_blocks=30)

ACTIONS = ("param", "remove", "join", "rotate", "leave", "slash", "approve", "approve", "approve")
Steps = list[tuple[str, int, int]]
steps = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5), st.integers(0, 60)), max_size=30
)


class History:
    """A world in which anything goes, and who approved what, kept apart from the chain."""

    def __init__(self, validators: int) -> None:
        self.world = World(genesis=make_genesis(validators, params=SHORT))
        self.operators = {name: name for name in self.world.validators}
        """Who acts behind a name: another key of one operator is not another operator."""
        self.yes: dict[int, set[str]] = {}
        self.names = 0

    def act(self, action: str, who: int, what: int) -> None:
        """One member does one thing, which the chain may refuse; then a block."""
        world, voters = self.world, self.world.validators
        name = voters[who % len(voters)]
        numbers = [number for (number,), _ in PROPOSALS.items(world.state())]
        if action == "slash":
            if len(voters) > 3:
                world.block(evidence=(world.double_vote(name),))
        elif action == "approve" and numbers:
            number = numbers[what % len(numbers)]
            digest = change_digest(PROPOSALS.get(world.state(), number).change)
            if self.send(name, Approve(number, digest)):
                self.yes[number].add(self.operators[name])
        elif action == "leave":
            self.send(name, Leave())
        elif action == "rotate":
            new = self.new_name()
            self.operators[new] = self.operators[name]
            self.send(name, ChangeKeys(world.replacing(name, new)))
        elif action in ("param", "remove", "join"):
            self.propose(action, name, what)
        self.check_boundary()

    def propose(self, action: str, name: str, what: int) -> None:
        world = self.world
        if action == "param":
            change: Any = SetParam("heartbeat_ms", 1_000 + what)
        elif action == "remove":
            change = RemoveMember(make_key(world.validators[what % len(world.validators)]).public)
        else:
            new = self.new_name()
            world.do("alice", Transfer(make_key(new).public, BOND))
            self.operators[new] = new
            change = world.add(new)
        before = {number for (number,), _ in PROPOSALS.items(world.state())}
        if self.send(name, Propose(change)):
            (number,) = {n for (n,), _ in PROPOSALS.items(world.state())} - before or {0}
            self.yes[number] = {self.operators[name]}

    def send(self, name: str, payload: Any) -> bool:
        before = self.facts()
        done = self.world.do(name, payload).code == "ok"
        if self.world.height % EPOCH != EPOCH - 1:
            assert self.facts() == before, "between two epochs nothing changes"
        return done

    def new_name(self) -> str:
        self.names += 1
        return f"n{self.names}"

    def facts(self) -> tuple[Any, Any]:
        state = self.world.state()
        return get_validator_set(state), get_params(state)

    def check_boundary(self) -> None:
        """End the epoch, and hold what became effective against our own books."""
        world = self.world
        while (world.height + 1) % EPOCH != EPOCH - 1:
            world.block()
        open_ = {number: p for (number,), p in PROPOSALS.items(world.state())}
        before, (_, params) = set(world.validators), self.facts()
        total = len(before)
        voters = {self.operators[name] for name in before}
        world.block()
        after = set(world.validators)
        for number, proposal in open_.items():
            if world.outcome(number) == "effective" and not proposal.is_own:
                yes = self.yes[number] & voters
                assert 3 * len(yes) > 2 * total, f"{proposal.change} by {len(yes)} of {total}"
        assert after, "somebody votes"
        most = 1 if total < 7 else total // 3
        assert len(before - after) <= most and len(after - before) <= most
        if all(3 * len(self.yes.get(n, set()) & voters) <= 2 * total for n in open_):
            assert self.facts()[1] == params, "no minority changes the parameters"


def play(validators: int, actions: Steps) -> None:
    history = History(validators)
    for action in actions:
        history.act(*action)


relaxed = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@relaxed
@given(steps)
def test_no_history_lets_a_minority_change_anything(actions):
    """Supply is counted after every block, by `World`."""
    play(4, actions)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from((1, 2, 3, 4, 7)), steps)
def test_many_histories_and_sizes(validators, actions):
    play(validators, actions)


# ---- the control: counting them in another way --------------------------------------------------

REMOVED: Steps = [("param", 0, 1), ("approve", 1, 0), ("slash", 0, 0), ("approve", 1, 0)]
"""Two of four approve, one of them is removed, a third approves: two of three, no quorum."""
TWICE: Steps = [("param", 0, 1), ("approve", 1, 0), ("rotate", 0, 0)]


def test_two_of_three_with_a_removed_one_change_nothing():
    play(4, REMOVED)


def count_everybody(proposal: Proposal, validators: ValidatorSet) -> int:
    return len(proposal.approvals)


def test_control_counting_removed_members_lets_a_minority_through(monkeypatch):
    monkeypatch.setattr(epochs, "approved_weight", count_everybody)
    with pytest.raises(AssertionError, match="by 2 of 3"):
        play(4, REMOVED)


def test_control_counting_an_approval_twice_lets_a_minority_through(monkeypatch):
    """One operator approves with its old key and, after it has changed it, with the new one."""

    def run() -> None:
        history = History(4)
        for action in TWICE:
            history.act(*action)
        (number,) = history.yes
        (new,) = [n for n in history.world.validators if n.startswith("n")]
        digest = change_digest(PROPOSALS.get(history.world.state(), number).change)
        assert history.send(new, Approve(number, digest))
        history.check_boundary()

    run()
    monkeypatch.setattr(epochs, "approved_weight", count_everybody)
    with pytest.raises(AssertionError, match="by 2 of 4"):
        run()
