"""Row 9: whoever learns which chunks a validator re-runs before the commit is final, forges others.

Nothing leaves a node about a segment before the certificate of the block with its commit: no fetch,
no ticket, no verdict. In a whole cluster, request by request: `tests/node/test_order_of_audits.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from attacks.arena import CHUNKS, detection, faults, finders, forge, size_of
from factories import make_key
from vm.world import World

from mlchain.consensus.work.attestation import decode_extension
from mlchain.errors import NotFound
from mlchain.ledger.state import State
from mlchain.node.auditor import Auditor
from mlchain.node.chain import Chain
from mlchain.node.duties import Duties
from mlchain.vm.families.segments import CommitSegment

ME = "validator-0"


class Wire:
    """In place of the network: notes the first thing that would be fetched of a segment."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def load(self, *_: Any) -> Any:
        self.asked.append("program and data of the job")
        raise NotFound("nothing is here")


class Scene:
    """A real auditor; its node knows a commit, which no block holds yet."""

    def __init__(self) -> None:
        self.world, self.wire, own = World(), Wire(), make_key(ME)
        self.job = self.world.running()
        commit = CommitSegment(self.world.make_commit(self.job))
        self.commit = self.world.transaction(self.world.worker_of(self.job), commit)
        self.duties = Duties(self.world.genesis, own)
        chain = Chain(self.world.store, own.public, lambda ref, commit: True)
        chain.add_transaction(self.commit)
        nothing: Any = None
        wire: Any = self.wire
        self.auditor = Auditor(own.public, chain, wire, nothing, self.duties, nothing)

    def see(self, state: State) -> tuple[list[str], bool]:
        """Let the auditor act on a state: what it asks for, and whether its vote shows anything."""
        self.auditor.chain._view = state

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.auditor.run)
                await trio.testing.wait_all_tasks_blocked()
                self.auditor.on_block()
                await trio.sleep(5)
                nursery.cancel_scope.cancel()

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        said = decode_extension(self.duties.extension(self.world.height + 1))
        return self.wire.asked, bool(said.attestations or said.verdicts)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_commit_that_waits_in_the_mempool_makes_nobody_ask_for_anything(scene):
    assert scene.see(scene.world.state()) == ([], False)


def test_once_its_block_is_final_the_same_auditor_asks(scene):
    scene.world.block(scene.commit)
    asked, shows = scene.see(scene.world.state())
    assert asked and not shows


def test_control_a_node_that_acts_on_a_proposed_block_asks_before_it_is_final(scene):
    _, _, proposed = scene.world.compose(scene.commit)
    asked, _ = scene.see(proposed)
    assert asked and scene.world.segment(scene.job).commit is None


VALIDATORS, FORGED, JOBS, TRIES = 4, 8, 200, 12


def evades(job: int, tries: int) -> bool:
    """A worker, with a proposer on its side, puts its commit on chain when nobody will find it.

    Each try forges other chunks. What is asked for tells whose slice would show the forgery; the
    commit is then withdrawn before it is final, at the same height, under the same tickets.
    """
    honest = range(faults(VALIDATORS), VALIDATORS)
    size = size_of(VALIDATORS) // 4  # as of a longer job, so that one try finds it most times
    return any(not finders(forge(FORGED, n), job, honest, size) for n in range(tries))


def test_control_with_fetches_before_the_certificate_the_worker_forges_where_nobody_looks():
    with_leak = sum(evades(job, TRIES) for job in range(10))
    without = sum(evades(job, 1) for job in range(10))
    assert with_leak > 2 * without and with_leak >= 7


def test_without_a_leak_there_is_one_try_and_the_formula_holds():
    found = detection(VALIDATORS, FORGED, JOBS, size_of(VALIDATORS) // 4)
    assert abs(found.sigmas) < 3 and found.jobs == JOBS and size_of(VALIDATORS) < CHUNKS
