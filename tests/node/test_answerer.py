"""The answerer begins with what a block asks before the block is final."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from vm.asking import ASK, RIGHT, Scene

from mlchain.ledger.state import State
from mlchain.ledger.transaction import transaction_id
from mlchain.ledger.unixfs import cid_of
from mlchain.node.answerer import Answerer
from mlchain.node.chain import Chain
from mlchain.node.duties import Duties
from mlchain.vm.answering import is_answer_of
from mlchain.vm.families.governance import Leave
from mlchain.vm.families.predictions import PREDICTIONS, PredictionState

ME = "validator-0"


class Asked:
    """A validator that computes, and a block with a request that is being voted on."""

    def __init__(self, **changes: Any) -> None:
        self.scene = Scene()
        self.world = self.scene.world
        key = self.world.key(ME)
        self.duties = Duties(self.world.genesis, key)
        self.computed: list[bytes] = []
        content = SimpleNamespace(put=cid_of)
        self.chain = Chain(self.world.store, key.public, lambda ref, commit: True)
        self.answerer = Answerer(
            key.public, bytes(32), self.chain, SimpleNamespace(content=content), self,
            self.duties, lambda: None,
        )  # fmt: skip
        rota = SimpleNamespace(wake=lambda: None)
        self.answerer.shelf = SimpleNamespace(fetch=self.fetch, run=trio.sleep_forever, rota=rota)
        self.asking = self.world.transaction("alice", replace(ASK, fee=500, **changes))
        self.request = transaction_id(self.asking)

    async def fetch(self, content: bytes, file: object) -> bytes:
        return b"model"

    async def ask_model(self, model: bytes, data: bytes, rows: int, is_evaluation: bool) -> object:
        self.computed.append(data)
        return SimpleNamespace(outcome=0, answer=RIGHT)

    def candidate(self) -> State:
        return self.world.compose(self.asking)[2]

    async def settle(self) -> None:
        with trio.move_on_after(5):
            while not self.duties.is_pending:
                await trio.sleep(0.01)


def test_a_vote_for_the_block_that_asks_binds_already_and_shows_nothing():
    asked = Asked()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.answerer.run)
            await trio.testing.wait_all_tasks_blocked()
            asked.answerer.look_ahead(asked.candidate())
            await asked.settle()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert asked.computed == [b"[1,2,3,4]"]
    ((request, commitment),) = asked.duties._commitments.items()
    assert request == asked.request and asked.duties._answers == {}
    for name in asked.world.validators:  # what it binds to is what it will show
        said = commitment if name == ME else replace(commitment, hash=bytes(32))
        asked.world.say(name, "commitments", said)
    asked.world.block(asked.asking)
    asked.world.block()
    found = PREDICTIONS.get(asked.world.state(), request)
    assert (found.state, found.height - found.asked) == (PredictionState.CLOSED, 1)
    assert is_answer_of(found, asked.world.key(ME).public, asked.answerer._answers[request])


def test_a_vote_for_the_block_that_draws_the_committee_binds_already():
    asked = Asked(tier="drawn:3")
    asked.world.block(asked.asking)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.answerer.run)
            await trio.testing.wait_all_tasks_blocked()
            state = asked.world.compose()[2]
            drawn = PREDICTIONS.get(state, asked.request)
            assert asked.world.key(ME).public in drawn.committee
            asked.answerer.look_ahead(state)
            await asked.settle()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert list(asked.duties._commitments) == [asked.request]


@pytest.mark.parametrize("is_leaving", [True, False])
def test_who_has_asked_to_leave_binds_itself_to_nothing_more(is_leaving):
    asked = Asked()
    if is_leaving:
        asked.world.do(ME, Leave())
        asked.asking = asked.world.transaction("alice", replace(ASK, fee=500))
    asked.chain._view = asked.world.state()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.answerer.run)
            await trio.testing.wait_all_tasks_blocked()
            asked.answerer.look_ahead(asked.candidate())
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert asked.duties.is_pending is not is_leaving
    assert asked.computed == ([] if is_leaving else [b"[1,2,3,4]"])


@pytest.mark.parametrize("is_asked", [True, False])
def test_what_another_block_asked_is_forgotten_with_the_next_one(is_asked):
    asked = Asked()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.answerer.run)
            await trio.testing.wait_all_tasks_blocked()
            asked.answerer.look_ahead(asked.candidate())
            await asked.settle()
            asked.world.block(*([asked.asking] if is_asked else []))
            asked.chain._view = asked.world.state()
            asked.duties.settle(asked.chain.state())
            asked.answerer.on_block()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert (asked.request in asked.answerer._answers) is is_asked
    assert asked.duties.is_pending is is_asked
