"""Row 33: choose who answers a `drawn:K` request, until all that are drawn are liars.

Two could choose: a proposer, among the certificates that it may put into its block, and the last
validator to show what the seed is made of. In the controls the seed is the beacon, which has in it
what the certificate holds, or is made of what was shown in time.
"""

from __future__ import annotations

from itertools import combinations

from factories import make_key
from msgspec.structs import replace
from vm.asking import ASK, RIGHT, Scene

from mlchain import crypto
from mlchain.consensus.work.answers import draw_committee
from mlchain.consensus.work.tickets import BEACON
from mlchain.ledger.commit import Commit, make_commit
from mlchain.vm import committee, predicting
from mlchain.vm.families.governance import ChangeKeys
from mlchain.vm.families.predictions import OPEN, PREDICTIONS, PredictionState
from mlchain.vm.families.renewal import public_element
from mlchain.vm.votes import get_beacon

FAULTY = 1
COLLUDER = "validator-3"
DRAWN = "drawn:1"


def asked(scene: Scene, place: int = 0) -> bytes:
    request = scene.asked(tier=DRAWN, fee=1_000, inline=b"[1,2,3,%d]" % place)
    assert scene.at(request).state == PredictionState.DRAWING
    return request


def drawn(scene: Scene, request: bytes) -> list[str]:
    return [scene.world.names[key] for key in scene.at(request).committee]


def certificates(scene: Scene) -> list[Commit]:
    """All that a proposer of the next block can make of the votes it has."""
    world, identity = scene.world, scene.world.store.head_id
    votes = [world.precommit(name, world.height, identity) for name in world.validators]
    sizes = range(len(votes) - FAULTY, len(votes) + 1)
    return [make_commit(list(chosen)) for k in sizes for chosen in combinations(votes, k)]


def choices(scene: Scene, request: bytes) -> dict[tuple[bytes, ...], None]:
    """The committees that a proposer of the next block has to choose from."""
    world, found = scene.world, {}
    whole = world.last_commit
    for certificate in certificates(scene):
        world.last_commit = certificate
        _, _, state = world.compose()
        prediction = PREDICTIONS.get(state, request)
        if prediction.state == PredictionState.OPEN:
            found[prediction.committee] = None
    world.last_commit = whole
    return found


def test_whoever_proposes_finds_one_committee_to_be_drawn_whatever_it_leaves_out():
    scene = Scene()
    for place in range(4):
        request = asked(scene, place)
        (only,) = choices(scene, request)
        scene.world.block()
        assert scene.at(request).committee == only and len(only) == 1


def test_control_drawn_by_the_beacon_a_proposer_has_a_colluder_drawn_nearly_always(monkeypatch):
    monkeypatch.setattr(
        predicting,
        "find_committee",
        lambda block, request, size, contributors, height: draw_committee(
            get_beacon(block.state), request, block.validators.keys, size
        ),
    )
    scene, friend, can = Scene(), Scene().world.key(COLLUDER).public, 0
    for place in range(8):
        request = asked(scene, place)
        can += (friend,) in choices(scene, request)
        scene.world.block()
    assert can >= 5, "0.76 of them; 0.25 would be fair"


def test_a_vote_left_out_delays_the_draw_and_changes_nothing():
    scene, late = Scene(), Scene()
    request = asked(scene)
    scene.world.block()
    late.world.absent = (COLLUDER,)
    assert asked(late) == request
    late.world.absent = ()
    late.world.block()
    assert late.at(request).state == PredictionState.DRAWING
    late.world.block()
    assert drawn(late, request) == drawn(scene, request)


def hidden(scene: Scene) -> bytes:
    """A contributor sees what the others showed, and votes no more until the chain gives it up."""
    scene.world.absent = (COLLUDER,)
    request = asked(scene)
    scene.world.blocks(FAULTY)
    assert scene.at(request).state == PredictionState.DRAWING
    scene.world.block()
    return request


def test_who_hides_its_element_has_everybody_compute_and_nobody_else_drawn():
    scene = Scene()
    request = hidden(scene)
    found = scene.at(request)
    assert (found.state, found.committee) == (PredictionState.OPEN, ())
    assert scene.answer(request, scene.all_say(RIGHT)).value == RIGHT


def test_control_drawn_by_what_was_shown_in_time_the_last_to_show_chooses_between_two(monkeypatch):
    def of_those_who_showed(block, request, size, contributors, height):
        if block.height <= height + FAULTY:
            return original(block, request, size, contributors, height)
        length = block.params.ticket_heights
        shown = [
            element
            for key in contributors
            if (element := public_element(block.state, key, BEACON, height, length))
        ]
        seed = crypto.digest("mlchain/committee-seed", *shown)
        return draw_committee(seed, request, block.validators.keys, size)

    original = predicting.find_committee
    monkeypatch.setattr(predicting, "find_committee", of_those_who_showed)
    shown, hiding = Scene(), Scene()
    request = asked(shown)
    shown.world.block()
    assert hidden(hiding) == request
    assert drawn(hiding, request) != drawn(shown, request), "it takes the one it likes"


def test_a_validator_that_was_silent_before_is_waited_for_by_nobody():
    scene = Scene()
    scene.world.absent = (COLLUDER,)
    scene.world.block()
    request = asked(scene)
    scene.world.block()
    assert len(drawn(scene, request)) == 1


def test_some_contributors_are_honest_whatever_certificate_the_block_that_asks_carries():
    """So its proposer, who can choose them, cannot know the seed: it lacks their elements."""
    scene = Scene()
    request = scene.world.transaction("alice", replace(ASK, tier=DRAWN, fee=1_000))
    assert len(certificates(scene)) == 5
    for certificate in certificates(scene):
        scene.world.last_commit = certificate
        _, _, state = scene.world.compose(request)
        ((identity,),) = OPEN.changed(state)
        contributors = PREDICTIONS.get(state, identity).committee
        assert len(contributors) > 2 * FAULTY


def test_a_block_with_too_few_contributors_has_everybody_compute(monkeypatch):
    """After most validators were replaced at once: those who remain may all collude."""
    monkeypatch.setattr(
        committee, "public_element", lambda state, key, *of: b"" if key == first else None
    )
    scene = Scene()
    first = scene.world.key("validator-0").public
    request = scene.asked(tier=DRAWN, fee=1_000)
    assert (scene.at(request).state, scene.at(request).committee) == (PredictionState.OPEN, ())


def joined(scene: Scene) -> bool:
    """One colluder hides its element over the end of an epoch; another, who knows all of them,
    takes a key that the seed draws. Whether it is drawn."""
    world, hider, other = scene.world, "validator-6", "validator-5"
    scene.world.blocks(98 - 1 - world.height)
    height = world.height + 1
    world.absent = (hider,)
    request = scene.asked(tier=DRAWN, fee=2_000)
    keys = scene.at(request).committee
    parts = [key + world.element(world.names[key], BEACON, height) for key in keys]
    seed = crypto.digest("mlchain/committee-seed", *parts)
    key = world.key(other).public
    voters = [world.key(name).public for name in world.validators if name != other]
    name = next(
        name
        for name in (f"fresh-{i}" for i in range(1_000))
        if draw_committee(seed, request, (*voters, make_key(name).public), 1)
        == (make_key(name).public,)
    )
    assert world.do(other, ChangeKeys(world.replacing(other, name))).code == "ok"
    assert name in world.validators and key not in world.validators
    world.block()
    assert scene.at(request).state == PredictionState.DRAWING
    world.absent = ()
    world.blocks(2)
    assert scene.at(request).state == PredictionState.OPEN
    return name in drawn(scene, request)


def test_a_key_that_came_when_the_seed_could_be_known_is_not_drawn():
    assert not joined(Scene(7))


def test_control_among_all_that_vote_by_then_it_is(monkeypatch):
    monkeypatch.setattr(committee, "is_newer", lambda state, key, height: False)
    assert joined(Scene(7))
