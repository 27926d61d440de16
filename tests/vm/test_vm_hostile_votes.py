"""Whatever a validator writes into its votes, the next block can be made and checked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vm.asking import MODEL, RIGHT, Scene
from vm.world import CONTENT, PARAMS, World

from mlchain.consensus.work.answers import Answer, Commitment
from mlchain.consensus.work.attestation import Attestation, Available, Reviewed, Verdict
from mlchain.consensus.work.commitment import commit_id
from mlchain.crypto import digest
from mlchain.ledger.block import header_id
from mlchain.ledger.commit import make_commit
from mlchain.ledger.unixfs import cid_of
from mlchain.ledger.validators import Validator, ValidatorSet
from mlchain.vm.context import BlockContext
from mlchain.vm.families.data import DATASETS, add_holder
from mlchain.vm.families.members import FAULTS, slash_validator
from mlchain.vm.families.models import MODEL_FILES
from mlchain.vm.families.predictions import PredictionState

LIAR = "validator-0"
GARBAGE = b"garbage"
NUMBERS = st.sampled_from((0, 1, 7, 2**31, 2**63 - 1))
BYTES = st.sampled_from((b"", b"\xc0", GARBAGE, RIGHT, bytes(64), b"\xff" * 64))
PLACES = st.sampled_from((b"", CONTENT, MODEL, bytes(36), cid_of(GARBAGE), cid_of(RIGHT)))
OUTCOMES = st.sampled_from((0, 1, 2))


class Busy(Scene):
    """A committed segment, an open request, and two to which all are bound, the liar to garbage."""

    def __init__(self) -> None:
        super().__init__()
        self.job = self.world.running()
        self.world.commit(self.job)
        evaluation = {"inline": b"", "data": CONTENT, "is_evaluation": True, "rows": 10}
        self.requests = [self.asked(fee=10**6), self.asked(fee=10**6, **evaluation)]
        for request in self.requests:
            self.bind(request, self.all_say(RIGHT, validator_0=GARBAGE))
            assert self.at(request).state == PredictionState.CLOSED
        self.requests.append(self.asked(fee=10**6))

    def votes(self, **parts: Any) -> None:
        """Have the last block's votes carry this instead; what follows is not kept."""
        world, header = self.world, self.world.store.head
        world.saying = {LIAR: parts}
        signed = [world.precommit(n, header.height, header_id(header)) for n in world.validators]
        world.last_commit = make_commit(signed)


@pytest.fixture(scope="module")
def scene() -> Busy:
    return Busy()


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_vote_of_a_validator_keeps_the_next_block_from_being_made(scene, data):
    world, job = scene.world, scene.job
    ids = st.sampled_from((job, *scene.requests, bytes(32), digest("test-stranger")))
    salts = st.sampled_from((scene.salt(LIAR), bytes(32)))
    commits = st.sampled_from((commit_id(world.segment(job).commit), bytes(32)))
    accused = st.sampled_from((b"", b"x", bytes(32), world.key(LIAR).public))
    bits = st.sampled_from((1, 2**32 - 1))
    registered = [
        table.get(world.state(), it) for table, it in ((DATASETS, CONTENT), (MODEL_FILES, MODEL))
    ]
    facts = st.sampled_from((bytes(32), *(record.facts for record in registered)))
    parts: dict[str, st.SearchStrategy[Any]] = {
        "available": st.builds(Available, PLACES.filter(bool), facts),
        "attestations": st.builds(Attestation, ids, NUMBERS, commits, ids, ids),
        "verdicts": st.builds(Verdict, ids, NUMBERS, commits, NUMBERS, OUTCOMES, accused),
        "reviews": st.builds(Reviewed, ids, NUMBERS, commits, bits),
        "commitments": st.builds(Commitment, ids, ids),
        "answers": st.builds(Answer, ids, salts, OUTCOMES, PLACES, BYTES)
        | st.builds(Answer, ids, salts, st.just(0), st.just(cid_of(GARBAGE)), st.just(GARBAGE)),
    }
    said = {part: tuple(data.draw(st.lists(some, max_size=3))) for part, some in parts.items()}
    scene.votes(**said)
    assert world.compose()


def context(world: World) -> BlockContext:
    voters = ValidatorSet((Validator(bytes(32), 1),))
    return BlockContext(world.state(), "test-world", PARAMS, 9, 1, bytes(32), voters)


def test_many_faults_of_a_block_are_numbered_without_reading_all_of_them(monkeypatch):
    world = World()
    block, reads = context(world), []
    read = FAULTS.get
    monkeypatch.setattr(FAULTS, "get", lambda *key: (reads.append(key), read(*key))[1])
    monkeypatch.setattr(FAULTS, "items", None)
    key = world.key(LIAR).public
    for _ in range(100):
        slash_validator(block, key, "answer-withheld", b"", is_removed=False, amount=1)
    monkeypatch.undo()
    assert [number for (_, number), _ in FAULTS.items(block.state, 9)] == list(range(100))
    assert len(reads) <= 100 * 21


def test_who_holds_data_and_has_left_goes_when_the_next_comes():
    world = World()
    world.submit()
    state = world.state()
    keys = [world.key(name).public for name in world.validators]
    before = ValidatorSet(tuple(Validator(key, 1) for key in keys))
    said = Available(CONTENT, DATASETS.get(state, CONTENT).facts)
    for key in keys[:3]:
        add_holder(state, said, key, before)
    after = ValidatorSet(tuple(Validator(key, 1) for key in keys[1:]))
    add_holder(state, said, keys[3], after)
    add_holder(state, said, keys[0], after)
    assert DATASETS.get(state, CONTENT).holders == tuple(sorted(keys[1:]))
