"""What validators say of one thing stays within its bound, however many came and went meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from vm.test_vm_custody import ME as ACCUSED
from vm.test_vm_custody import YOU, Scene, make_scene
from vm.world import World

from mlchain.consensus.work.attestation import Outcome, Reviewed, Verdict
from mlchain.consensus.work.commitment import commit_id
from mlchain.crypto import digest
from mlchain.errors import StoreCorrupted
from mlchain.ledger.state import State
from mlchain.ledger.validators import MAX_VALIDATORS
from mlchain.vm import settlement, votes
from mlchain.vm.context import BlockContext
from mlchain.vm.families.custody import CUSTODY_CLAIMS
from mlchain.vm.families.jobs import SEGMENTS, Attested, Ballot, Review
from mlchain.vm.families.members import get_validator_set

GONE = tuple(digest("test-gone", bytes([i])) for i in range(MAX_VALIDATORS))
"""As many as a list holds; of these nobody is a validator any more."""


def context(world: World) -> BlockContext:
    """The next block, on a state of its own."""
    state, genesis = world.state(), world.genesis

    return BlockContext(
        state, genesis.chain_id, genesis.params, world.height + 1, 10**6, bytes(32),
        get_validator_set(state),
    )  # fmt: skip


def stored(block: BlockContext) -> State:
    """The state as the next block reads it: of encoded records."""
    block.state.changes()
    return block.state


def attestations() -> tuple[str, ...]:
    world = World()
    job = world.running()
    world.commit(job)
    block, segment = context(world), world.segment(job)
    full = tuple(Attested(key, bytes(32), bytes(32)) for key in GONE)
    SEGMENTS.put(block.state, replace(segment, attestations=full), job, 0)
    for name in world.validators:
        said = world.attestation(name, job)
        assert votes._process_attestation(block, world.key(name).public, said, world.height + 1)
    found = SEGMENTS.get(stored(block), job, 0)
    return named(world, found.attestations)


def ballots() -> tuple[str, ...]:
    world = World()
    job = world.running()
    world.commit(job)
    world.accuse(YOU, job, 3)
    block, segment = context(world), world.segment(job)
    claim = replace(segment.claim, ballots=tuple(Ballot(key, 0) for key in GONE))
    SEGMENTS.put(block.state, replace(segment, claim=claim), job, 0)
    verdict = Verdict(job, 0, commit_id(segment.commit), 3, int(Outcome.EQUAL))
    for name in world.validators:
        votes._process_verdict(block, world.key(name).public, verdict)
    return named(world, SEGMENTS.get(stored(block), job, 0).claim.ballots)


def reviews() -> tuple[str, ...]:
    world = World()
    job = world.running()
    world.commit(job)
    world.harden(job)
    block, segment = context(world), world.segment(job)
    full = tuple(Review(key, 1) for key in sorted(GONE))
    SEGMENTS.put(block.state, replace(segment, reviews=full), job, 0)
    for name in world.validators:
        said = Reviewed(job, 0, commit_id(segment.commit), 2)
        votes._process_review(block, world.key(name).public, said)
    return named(world, SEGMENTS.get(stored(block), job, 0).reviews)


def custody_ballots() -> tuple[str, ...]:
    scene: Scene = make_scene()
    world, chunk = scene.world, scene.chunks[0]
    assert scene.claim(chunk, scene.opening(chunk)).code == "ok"
    block, place = context(world), (scene.job, 0, world.key(ACCUSED).public, chunk)
    claim = scene.on_chain(chunk)
    full = replace(claim, ballots=tuple(Ballot(key, 0) for key in GONE))
    CUSTODY_CLAIMS.put(block.state, full, *place)
    commit = commit_id(world.segment(scene.job).commit)
    verdict = Verdict(scene.job, 0, commit, chunk, int(Outcome.EQUAL), place[2])
    for name in world.validators:
        settlement.process_custody_verdict(block, world.key(name).public, verdict)
    return named(world, CUSTODY_CLAIMS.get(stored(block), *place).ballots)


def named(world: World, said: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(world.names.get(one.validator, "gone") for one in said)


LISTS = [attestations, ballots, reviews, custody_ballots]


@pytest.mark.parametrize("fill", LISTS)
def test_in_a_full_list_a_validator_takes_the_place_of_one_that_left(fill: Callable[[], Any]):
    assert sorted(fill()) == [f"validator-{i}" for i in range(4)]


@pytest.mark.parametrize("fill", LISTS)
def test_control_a_list_that_forgets_nobody_outgrows_its_bound_and_no_block_can_be_read(
    fill: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
):
    for module in (votes, settlement):
        monkeypatch.setattr(module, "with_said", lambda kept, said, validators: (*kept, said))
    with pytest.raises(StoreCorrupted):
        fill()
