"""Partitions: the seed is nobody's choice, and the parts are what everybody makes of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from vm.world import World

from mlchain.consensus.work.attestation import Available
from mlchain.crypto import digest
from mlchain.ledger.transaction import transaction_id
from mlchain.ledger.unixfs import cid_of
from mlchain.ml_runtime import Dataset, make_plan
from mlchain.ml_runtime.partition import partition
from mlchain.vm.drawing import draw_seed
from mlchain.vm.families import partitions
from mlchain.vm.families.data import DATASETS, RegisterData, is_available
from mlchain.vm.families.members import get_validator_set
from mlchain.vm.families.merges import MERGES, MergeModels, get_merges, is_standing, merge_id
from mlchain.vm.families.models import MODELS
from mlchain.vm.families.partitions import (
    DRAWS,
    NAMINGS,
    OPEN_NAMINGS,
    Draw,
    DrawPartitions,
    NamePartitions,
    Part,
    get_draws,
    naming_id,
)
from mlchain.vm.families.submit import SubmitJob
from mlchain.vm.votes import get_beacon

ROWS, TEST_ROWS, PARTS = 40, 7, 3


@cache
def dataset() -> Dataset:
    x = np.arange(2.0 * ROWS).reshape(ROWS, 2) + 1
    return Dataset.from_arrays(x, x.sum(axis=1), shared_scale=False)


@cache
def content() -> bytes:
    return cid_of(dataset().encode())


def register(world: World, rows: int = ROWS) -> None:
    size = len(dataset().encode())
    assert world.do("alice", RegisterData(content(), size, rows, 2)).code == "ok"


def request(world: World, parts: int = PARTS) -> bytes:
    asked = world.transaction("alice", DrawPartitions(content(), parts, TEST_ROWS))
    (receipt,) = world.block(asked)
    assert receipt.code == "ok", receipt.message
    return transaction_id(asked)


def hold(world: World, *names: str, what: bytes = b"") -> None:
    for name in names or world.validators:
        if what:
            world.say(name, "available", Available(what))
        else:
            world.announce(name, content())
    world.blocks(2)


def get(world: World, draw: bytes) -> Draw:
    found = DRAWS.get(world.state(), draw)
    assert found is not None
    return found


def drawn(world: World | None = None) -> tuple[World, bytes]:
    """A world in which a seed is drawn."""
    world = world or World()
    register(world)
    hold(world)
    draw = request(world)
    world.blocks(2)
    assert get(world, draw).seed
    return world, draw


def make_parts(seed: bytes, parts: int = PARTS) -> tuple[Part, ...]:
    made = partition(dataset(), seed, parts, TEST_ROWS)
    return tuple(Part(cid_of(p.encode()), len(p.encode()), p.rows) for p in made)


def name(world: World, draw: bytes, parts: tuple[Part, ...]) -> bytes:
    receipt = world.do("alice", NamePartitions(draw, parts))
    assert receipt.code == "ok", receipt.message
    return naming_id(draw, parts)


def verify(world: World, draw: bytes, seed: bytes = b"") -> None:
    """Every validator makes the parts itself and confirms what it finds to be so."""
    found = naming_id(draw, make_parts(seed or get(world, draw).seed))
    if any(identity == found for (_, identity), _ in OPEN_NAMINGS.items(world.state(), draw)):
        hold(world, what=found)


def test_the_seed_is_of_a_beacon_that_comes_two_blocks_after_the_request():
    world = World()
    register(world)
    hold(world)
    draw = request(world)
    known = get_beacon(world.state())
    assert get(world, draw).seed == b""
    world.block()
    assert get(world, draw).seed == b""
    world.block()
    seed = get(world, draw).seed
    assert seed == draw_seed(get_beacon(world.state()), draw)
    assert seed != draw_seed(known, draw), "who asked knew another beacon"


def test_no_seed_is_drawn_before_a_quorum_holds_the_data():
    world = World()
    register(world)
    draw = request(world)
    world.blocks(3)
    hold(world, "validator-0", "validator-1")
    world.blocks(3)
    assert get(world, draw).seed == b""
    hold(world, "validator-2")
    assert get(world, draw).seed == b"", "the beacon of that block is known to its voters"
    world.blocks(2)
    assert get(world, draw).seed


def test_parts_that_a_quorum_made_itself_are_datasets_that_it_holds():
    world, draw = drawn()
    parts = make_parts(get(world, draw).seed)
    name(world, draw, parts)
    assert DATASETS.get(world.state(), parts[0].content) is None
    verify(world, draw)
    assert get(world, draw).named == parts
    voters = get_validator_set(world.state())
    for part in parts:
        record = DATASETS.get(world.state(), part.content)
        assert (record.size, record.rows, record.features) == (part.size, part.rows, 2)
        assert is_available(world.state(), part.content, voters)
    assert [identity for identity, _ in get_draws(world.state(), content())] == [draw]


def test_less_than_a_quorum_names_nothing_and_who_comes_later_holds_the_parts_too():
    world, draw = drawn()
    said = name(world, draw, make_parts(get(world, draw).seed))
    hold(world, "validator-0", "validator-1", what=said)
    assert get(world, draw).named == ()
    hold(world, "validator-2", what=said)
    first = get(world, draw).named[0].content
    assert len(DATASETS.get(world.state(), first).holders) == 3
    hold(world, "validator-3", what=said)
    assert len(DATASETS.get(world.state(), first).holders) == 4


SEEDS = 20


def forged(parts: tuple[Part, ...], at: int) -> tuple[Part, ...]:
    """Other rows in one part, or parts in another order."""
    if at % 2:
        return (parts[1], parts[0], *parts[2:])
    return (replace(parts[0], content=cid_of(digest("other-rows"))), *parts[1:])


def test_over_many_draws_every_honest_naming_is_accepted_and_every_forged_one_refused():
    world, accepted, refused, seen = World(), 0, 0, {}
    register(world)
    hold(world)
    for number in range(SEEDS):
        draw = request(world)
        world.blocks(2)
        seed = get(world, draw).seed
        seen[seed] = None
        name(world, draw, forged(make_parts(seed), number))
        verify(world, draw)
        refused += get(world, draw).named == ()
        name(world, draw, make_parts(seed))
        verify(world, draw)
        accepted += get(world, draw).named == make_parts(seed)
        assert not list(OPEN_NAMINGS.items(world.state(), draw)), "the forged one is forgotten"
    assert (accepted, refused, len(seen)) == (SEEDS, SEEDS, SEEDS)
    assert len(list(NAMINGS.items(world.state()))) == SEEDS


def test_control_verifiers_that_draw_rows_of_their_own_refuse_honest_namings():
    world, draw = drawn()
    parts = make_parts(get(world, draw).seed)
    name(world, draw, parts)
    verify(world, draw, seed=digest("a seed of the verifier's own"))
    assert get(world, draw).named == ()
    verify(world, draw)
    assert get(world, draw).named == parts


def test_control_a_quorum_of_liars_could_name_other_rows():
    world, draw = drawn()
    parts = forged(make_parts(get(world, draw).seed), 0)
    hold(world, what=name(world, draw, parts))
    assert get(world, draw).named == parts


def test_numbers_that_somebody_squatted_under_a_parts_id_give_way():
    world, draw = drawn()
    parts = make_parts(get(world, draw).seed)
    world.do("alice", RegisterData(parts[0].content, 1, 1, 1))
    hold(world, "validator-0", what=parts[0].content)
    name(world, draw, parts)
    verify(world, draw)
    assert DATASETS.get(world.state(), parts[0].content).rows == parts[0].rows


def confirm(world: World, said: bytes) -> None:
    """Confirm what is said, in words that fit a dataset of this id."""
    for validator in world.validators:
        world.announce(validator, said)
    world.blocks(2)


def test_to_confirm_what_is_said_holds_no_dataset_of_the_same_id():
    world, draw = drawn()
    said = name(world, draw, make_parts(get(world, draw).seed))
    world.do("alice", RegisterData(said, 1, 1, 1))
    confirm(world, said)
    assert DATASETS.get(world.state(), said).holders == ()


def test_control_an_id_that_might_be_a_content_id_would_hold_it(monkeypatch):
    monkeypatch.setattr(partitions, "SAID", b"\x01\x55\x12\x20")
    world, draw = drawn()
    said = name(world, draw, make_parts(get(world, draw).seed))
    world.do("alice", RegisterData(said, 1, 1, 1))
    confirm(world, said)
    assert len(DATASETS.get(world.state(), said).holders) == 4


@pytest.mark.parametrize(
    "payload, words",
    [
        (DrawPartitions(cid_of(b"?"), 3, 0), "not registered"),
        (DrawPartitions(content(), 3, 38), "do not make"),
        (NamePartitions(bytes(32), ()), "no such draw"),
    ],
)
def test_what_cannot_be_is_refused(payload, words):
    world = World()
    register(world)
    assert words in world.do("alice", payload).message


def test_parts_are_named_once_after_the_seed_and_by_their_number():
    world = World()
    register(world)
    hold(world)
    draw = request(world)
    early = world.do("alice", NamePartitions(draw, ()))
    assert "not drawn yet" in early.message
    world.block()
    parts = make_parts(get(world, draw).seed)
    assert "2 parts of 3" in world.do("alice", NamePartitions(draw, parts[:2])).message
    name(world, draw, parts)
    verify(world, draw)
    assert "have their names" in world.do("alice", NamePartitions(draw, parts)).message


def test_parts_that_together_would_fill_disks_are_refused():
    world = World()
    world.do("alice", RegisterData(content(), 1 << 30, 1000, 2))
    assert "bytes" in world.do("alice", DrawPartitions(content(), 100, 900)).message


# ---- merges


def trained(world: World, parts: int = PARTS, **changes: Any) -> tuple[bytes, tuple[bytes, ...]]:
    """A draw with a settled job on each of its parts, of made-up states."""
    register(world)
    hold(world)
    draw = request(world, parts)
    world.blocks(2)
    named = make_parts(get(world, draw).seed, parts)
    name(world, draw, named)
    hold(world, what=naming_id(draw, named))
    return draw, tuple(job_on(world, part, **changes) for part in named)


def job_on(world: World, part: Part, **changes: Any) -> bytes:
    train_rows = part.rows - TEST_ROWS
    job = SubmitJob(
        "part", make_plan("ridge", features=2, optimiser="", batch=5, outputs=1).encode(),
        part.content, train_rows, TEST_ROWS, 40, 2, 20, "audited", 1_000_003, b"",
    )  # fmt: skip
    asked = world.transaction("alice", replace(job, **changes))
    (receipt,) = world.block(asked)
    assert receipt.code == "ok", receipt.message
    identity = transaction_id(asked)
    world.blocks(3)
    world.settle(identity)
    return identity


MODEL = cid_of(b"a merged model")


def standing(world: World, draw: bytes) -> list[bytes]:
    state = world.state()
    found = get_merges(state, draw)
    return [merge.content for said, merge in found if is_standing(state, said, merge)]


def test_a_merge_stands_once_a_quorum_made_the_same_file_and_another_one_never():
    world = World()
    draw, jobs = trained(world)
    for content in (cid_of(b"forged"), MODEL):
        receipt = world.do("alice", MergeModels(draw, jobs, content, 9))
        assert receipt.code == "ok", receipt.message
    hold(world, "validator-0", "validator-1", what=merge_id(draw, jobs, MODEL, 9))
    assert standing(world, draw) == []
    hold(world, what=merge_id(draw, jobs, MODEL, 9))
    assert standing(world, draw) == [MODEL]
    again = world.do("alice", MergeModels(draw, jobs, MODEL, 9))
    assert "said before" in again.message


def test_a_merge_falls_with_a_model_that_was_forged():
    world = World()
    draw, jobs = trained(world)
    world.do("alice", MergeModels(draw, jobs, MODEL, 9))
    said = merge_id(draw, jobs, MODEL, 9)
    hold(world, what=said)
    state = world.state()
    merge = MERGES.get(state, said)
    assert is_standing(state, said, merge)
    model = MODELS.get(state, jobs[1])
    MODELS.put(state, replace(model, revoked_height=7), jobs[1])
    assert not is_standing(state, said, merge)


def test_only_settled_jobs_on_all_rows_of_each_part_with_one_plan_are_merged():
    world = World()
    draw, jobs = trained(world)
    first = get(world, draw).named[0]
    fewer = job_on(world, first, train_rows=6)
    other = make_plan("ridge", features=2, optimiser="", batch=5, outputs=1, alpha=2).encode()
    planned = job_on(world, first, plan=other)
    for found, words in (
        (jobs[:2], "2 jobs for 3 parts"),
        ((jobs[1], jobs[0], jobs[2]), "job 1 is not on"),
        ((fewer, *jobs[1:]), "job 1 is not on"),
        ((planned, *jobs[1:]), "another plan"),
        ((bytes(32), *jobs[1:]), "no model that stands"),
    ):
        assert words in world.do("alice", MergeModels(draw, found, MODEL, 9)).message
    assert "no draw" in world.do("alice", MergeModels(bytes(32), jobs, MODEL, 9)).message
