"""Claims about custody digests, settled on chain: who is slashed, and who is not (section 9)."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from vm import reporting
from vm.world import AHEAD, BOND, PARAMS, World

from mlchain.consensus.work.attestation import Outcome, Verdict
from mlchain.consensus.work.commitment import commit_id
from mlchain.consensus.work.custody import KEY_DELAY, Opening, open_result, result_root
from mlchain.consensus.work.sampling import draw_slice
from mlchain.consensus.work.tickets import BEACON, CUSTODY, PURPOSES, TICKETS
from mlchain.crypto import digest
from mlchain.ledger.block import Receipt
from mlchain.vm import settlement
from mlchain.vm.families import custody, jobs
from mlchain.vm.families.custody import (
    CUSTODY_CLAIMS,
    MAX_OPEN,
    ClaimDigest,
    ClaimState,
    CustodyClaim,
    ShowDigest,
    audit_begin,
    audit_end,
)
from mlchain.vm.families.jobs import DRAW_GAS, LIST_GAS
from mlchain.vm.gas import BYTE_GAS

ME, YOU = "validator-0", "validator-1"
"""The accused, and the auditor."""


class Scene(NamedTuple):
    world: World
    job: bytes
    chunks: tuple[int, ...]
    digests: tuple[bytes, ...]

    def opening(self, chunk: int) -> Opening:
        return open_result(self.chunks, self.digests, chunk)

    def claim(self, chunk: int = -1, opening: Opening | None = None, sender: str = YOU) -> Receipt:
        chunk = self.chunks[0] if chunk < 0 else chunk
        key = self.world.key(ME).public
        claim = ClaimDigest(self.job, 0, key, chunk, opening, digest("test-salt"), 0)
        announced = self.world.announced(sender, claim)
        self.world.ripen()
        return self.world.do(sender, announced)

    def show(self, key: bytes | None = None, opening: Opening | None = None) -> Receipt:
        element = key or self.world.chain(ME, CUSTODY).at(self.height)
        chunk = self.chunks[0]
        shown = opening or self.opening(chunk)
        return self.world.do(ME, ShowDigest(self.job, 0, chunk, element, shown))

    @property
    def height(self) -> int:
        return self.world.segment(self.job).commit_height

    def on_chain(self, chunk: int = -1) -> CustodyClaim | None:
        chunk = self.chunks[0] if chunk < 0 else chunk
        key = self.world.key(ME).public
        return CUSTODY_CLAIMS.get(self.world.state(), self.job, 0, key, chunk)

    def judge(self, outcome: Outcome, *names: str, chunk: int = -1) -> None:
        commit, key = self.world.segment(self.job).commit, self.world.key(ME).public
        chunk = self.chunks[0] if chunk < 0 else chunk
        for name in names or tuple(self.world.validators):
            verdict = Verdict(self.job, 0, commit_id(commit), chunk, int(outcome), key)
            self.world.say(name, "verdicts", verdict)
        self.world.blocks(2)

    def is_out(self, name: str) -> bool:
        return name not in self.world.validators


def make_scene(absent: str = "", waits: bool = True, **changes: Any) -> Scene:
    """A segment that all attested and that is HARD; its keys are due. One may vote no more."""
    world = World()
    job = world.running(**changes)
    world.commit(job)
    chunks = world.slice_of(ME, job)
    digests = tuple(digest("test-digest", bytes([i])) for i in range(len(chunks)))
    root = result_root(chunks, digests)
    for name in world.validators:
        changes = {"result_root": root} if name == ME else {}
        world.say(name, "attestations", world.attestation(name, job, **changes))
    world.blocks(3)
    world.absent = (absent,)
    world.block(finalise=(world.ref(job),))
    if waits:
        world.blocks(audit_begin(world.segment(job), PARAMS) - world.height - 1)
    return Scene(world, job, chunks, digests)


@pytest.fixture
def scene() -> Scene:
    return make_scene()


def fault_kinds(scene: Scene) -> list[tuple[str, str, int]]:
    names = scene.world.names
    return [(f.kind, names[f.offender], f.slashed) for f in scene.world.faults()]


def test_a_digest_that_a_quorum_makes_otherwise_costs_its_maker_slash_and_seat(scene):
    before = scene.world.balance(YOU)
    assert scene.claim(opening=scene.opening(scene.chunks[0])).code == "ok"
    scene.judge(Outcome.DIFFERS, "validator-1", "validator-2", "validator-3")
    assert fault_kinds(scene) == [("wrong-digest", ME, PARAMS.slash_lazy)]
    assert scene.world.balance(YOU) == before + PARAMS.slash_lazy // 2
    assert scene.is_out(ME) and scene.on_chain() is None


def test_a_digest_that_a_quorum_confirms_costs_the_accuser_its_slash(scene):
    assert scene.claim(opening=scene.opening(scene.chunks[0])).code == "ok"
    scene.judge(Outcome.EQUAL, ME, "validator-2", "validator-3")
    assert fault_kinds(scene) == [("false-accusation", YOU, PARAMS.slash_validator)]
    assert not scene.is_out(ME) and scene.world.bond(ME) == BOND
    again = scene.claim(opening=scene.opening(scene.chunks[0]))
    assert "was right" in again.message


def test_control_without_the_vote_of_the_accused_no_honest_one_is_ever_cleared(scene):
    """Three are a quorum; the accuser lies, so two of the others and the accused make it."""
    scene.claim(opening=scene.opening(scene.chunks[0]))
    scene.judge(Outcome.EQUAL, "validator-2", "validator-3")
    scene.world.blocks(PARAMS.dispute_window)
    assert fault_kinds(scene) == [], "it lapsed, and the false accuser got away"


def test_when_nobody_can_tell_nobody_pays(scene):
    scene.claim(opening=scene.opening(scene.chunks[0]))
    scene.judge(Outcome.UNSERVED)
    scene.world.blocks(PARAMS.dispute_window)
    assert fault_kinds(scene) == [] and scene.on_chain().state == ClaimState.CLOSED


def test_a_digest_that_is_asked_for_and_never_shown_counts_as_none(scene):
    assert scene.claim().code == "ok"
    scene.world.blocks(PARAMS.custody_window - 1)
    assert fault_kinds(scene) == []
    scene.world.block()
    assert fault_kinds(scene) == [("digest-not-shown", ME, PARAMS.slash_lazy)]
    assert scene.is_out(ME)


def test_who_shows_it_on_chain_loses_nothing_by_a_claim_that_it_was_not_given(scene):
    scene.claim()
    assert scene.show().code == "ok"
    scene.world.blocks(PARAMS.custody_window + 1)
    assert fault_kinds(scene) == [] and not scene.is_out(ME)


def test_what_was_shown_on_chain_can_be_claimed_wrong_as_it_stands(scene):
    scene.claim()
    scene.show()
    assert scene.on_chain().state == ClaimState.SHOWN
    assert scene.claim().code == "ok" and scene.on_chain().state == ClaimState.DISPUTED
    scene.judge(Outcome.DIFFERS)
    assert fault_kinds(scene) == [("wrong-digest", ME, PARAMS.slash_lazy)]


def show_last(scene: Scene) -> None:
    """Be asked at the first moment and answer at the last, when nobody can ask any more."""
    assert scene.claim().code == "ok"
    scene.world.blocks(PARAMS.custody_window - 1)
    assert scene.show().code == "ok"
    assert scene.world.height > audit_end(scene.world.segment(scene.job), PARAMS)


def test_who_shows_it_in_the_last_block_has_not_run_out_the_clock(scene):
    show_last(scene)
    assert scene.claim().code == "ok"
    scene.judge(Outcome.DIFFERS)
    assert fault_kinds(scene) == [("wrong-digest", ME, PARAMS.slash_lazy)] and scene.is_out(ME)


def test_control_if_the_window_were_the_segments_alone_it_would_get_away(scene, monkeypatch):
    for module in (custody, settlement):
        monkeypatch.setattr(
            module, "claim_end", lambda segment, claim, params: audit_end(segment, params)
        )
    show_last(scene)
    assert scene.on_chain() is None, "forgotten in the block in which it was shown"
    assert "can be claimed wrong from" in scene.claim().message
    scene.world.blocks(PARAMS.custody_window)
    assert fault_kinds(scene) == [] and not scene.is_out(ME)


def test_what_is_shown_last_can_be_claimed_for_one_window_and_is_not_asked_for_again(scene):
    show_last(scene)
    scene.world.blocks(PARAMS.custody_window - 1)
    assert scene.on_chain().state == ClaimState.SHOWN
    scene.world.blocks(2)
    assert scene.on_chain() is None and fault_kinds(scene) == []
    assert "can be claimed wrong from" in scene.claim().message


def test_who_asks_first_keeps_nobody_out_that_has_the_digest_in_hand(scene):
    assert scene.claim(sender="validator-2").code == "ok"
    assert "asked for already" in scene.claim().message
    assert scene.claim(opening=scene.opening(scene.chunks[0])).code == "ok"
    assert scene.world.names[scene.on_chain().accuser] == YOU
    scene.judge(Outcome.DIFFERS)
    assert fault_kinds(scene) == [("wrong-digest", ME, PARAMS.slash_lazy)]


def test_control_if_asking_kept_others_out_a_friend_would_win_it_a_whole_window(scene, monkeypatch):
    monkeypatch.setattr(custody, "may_claim", lambda before, opening: before.state == 1)
    assert scene.claim(sender="validator-2").code == "ok"
    assert "asked for already" in scene.claim(opening=scene.opening(scene.chunks[0])).message
    assert scene.on_chain().state == ClaimState.ASKED


def test_who_claims_a_right_digest_that_was_only_asked_for_pays_alone(scene):
    scene.claim(sender="validator-2")
    scene.claim(opening=scene.opening(scene.chunks[0]))
    scene.judge(Outcome.EQUAL)
    assert fault_kinds(scene) == [("false-accusation", YOU, PARAMS.slash_validator)]


def test_an_accuser_that_gets_the_opening_at_last_needs_no_second_place(scene):
    for chunk in scene.chunks[:MAX_OPEN]:
        assert scene.claim(chunk).code == "ok"
    assert scene.claim(opening=scene.opening(scene.chunks[0])).code == "ok"


def test_one_that_votes_no_more_still_has_to_show_its_key():
    """Its precommits are missing, so its key is not on chain: it cannot hide behind that."""
    scene = make_scene(absent=ME)
    assert "not on chain" in scene.claim(opening=scene.opening(scene.chunks[0])).message
    assert scene.claim().code == "ok"
    assert scene.show().code == "ok"
    assert scene.claim().code == "ok" and scene.on_chain().state == ClaimState.DISPUTED


WRONG_SHOWS = {
    "another key": (lambda s: {"key": s.world.chain(ME, CUSTODY).at(s.height - 1)}, "key"),
    "another digest": (
        lambda s: {"opening": Opening(bytes(32), s.opening(s.chunks[0]).proof)},
        "another root",
    ),
    "the opening of another chunk": (lambda s: {"opening": s.opening(s.chunks[1])}, "root"),
}


@pytest.mark.parametrize("name", WRONG_SHOWS)
def test_a_digest_is_not_shown_by(scene, name):
    changes, reason = WRONG_SHOWS[name]
    scene.claim()
    assert reason in scene.show(**changes(scene)).message
    assert scene.on_chain().state == ClaimState.ASKED


def test_nothing_is_shown_that_nobody_asks_for(scene):
    assert "nobody asks" in scene.show().message


REFUSED = {
    "a chunk that is not in its slice": (
        lambda s: s.claim(next(c for c in range(200) if c not in s.chunks)),
        "not in its slice",
    ),
    "a digest that it did not commit to": (
        lambda s: s.claim(opening=Opening(bytes(32), s.opening(s.chunks[0]).proof)),
        "another root",
    ),
    "by a worker": (lambda s: s.claim(sender="worker-0"), "only a validator"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_claim_of(scene, name):
    try:
        receipt = REFUSED[name][0](scene)
    except Exception as error:  # not even included
        receipt = error
    assert REFUSED[name][1] in str(receipt)


def test_claims_begin_when_the_key_is_due_and_end_with_the_window():
    scene = make_scene(waits=False)
    world, segment = scene.world, scene.world.segment(scene.job)
    begin, end = audit_begin(segment, PARAMS), audit_end(segment, PARAMS)
    world.blocks(begin - world.height - 2 - AHEAD)
    assert f"from {begin} to {end}" in scene.claim().message
    assert (scene.claim().code, scene.show().code) == ("ok", "ok")
    world.blocks(end - world.height - 1 - AHEAD)
    assert scene.claim(scene.chunks[1]).code == "ok"
    assert f"from {begin} to {end}" in scene.claim(scene.chunks[2]).message


def test_an_accuser_has_few_claims_open_at_a_time(scene):
    for chunk in scene.chunks[:MAX_OPEN]:
        assert scene.claim(chunk).code == "ok"
    assert "are open" in scene.claim(scene.chunks[MAX_OPEN]).message
    assert scene.claim(scene.chunks[MAX_OPEN], sender="validator-2").code == "ok"


def test_settled_claims_are_forgotten_when_no_new_one_can_be_made(scene):
    scene.claim()
    scene.show()
    segment = scene.world.segment(scene.job)
    scene.world.blocks(audit_end(segment, PARAMS) - scene.world.height)
    assert scene.on_chain() is not None
    scene.world.blocks(scene.on_chain().height + PARAMS.custody_window - scene.world.height)
    assert scene.on_chain() is not None
    scene.world.block()
    assert scene.on_chain() is None


# ---- elements shown before their time


def report(world: World, purpose: str, height: int, element: bytes = b"") -> Receipt:
    shown = element or world.chain(ME, purpose).at(height)
    return reporting.report(world, "alice", ME, purpose, height, shown)


AGES = {TICKETS: 1, BEACON: 0, CUSTODY: PARAMS.attest_window + KEY_DELAY}


@pytest.mark.parametrize("purpose", PURPOSES)
def test_whoever_holds_an_element_before_its_time_has_its_owner_slashed(purpose):
    world = World()
    world.blocks(30)
    before = world.balance("alice")
    height = world.height + 1 - AGES[purpose] + 1
    assert report(world, purpose, height).code == "ok"
    assert [(f.kind, world.names[f.offender]) for f in world.faults()] == [("early-reveal", ME)]
    assert world.balance("alice") == before + PARAMS.slash_lazy // 2
    assert ME not in world.validators


@pytest.mark.parametrize("purpose", PURPOSES)
def test_an_element_that_an_honest_validator_may_have_shown_costs_nothing(purpose):
    world = World()
    world.blocks(30)
    height = world.height + 1 - AGES[purpose]
    assert "was secret" in report(world, purpose, height).message
    assert not world.faults()


def test_an_element_that_is_not_its_own_proves_nothing():
    world = World()
    world.blocks(30)
    other = world.chain(YOU, CUSTODY).at(100)
    assert "not of its registered chain" in report(world, CUSTODY, 100, element=other).message
    assert not world.faults()


# ---- what claims cost everybody ------------------------------------------------------------------


def count_draws(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the slices that are drawn from now on."""
    drawn: list[int] = []

    def draw(ticket: bytes, root: bytes, total: int, size: int) -> tuple[int, ...]:
        drawn.append(size)
        return draw_slice(ticket, root, total, size)

    monkeypatch.setattr(jobs, "draw_slice", draw)
    return drawn


def test_a_claim_pays_for_every_chunk_of_the_slice_that_it_has_drawn_again():
    few, all_of_it = make_scene(tier="economic"), make_scene(tier="replicated")
    assert (len(few.chunks), len(all_of_it.chunks)) == (1, 200)
    for ask in (Scene.claim, Scene.show):
        gas = [ask(scene).gas_used for scene in (few, all_of_it)]
        more = gas[1] - gas[0] + BYTE_GAS * 3  # a chunk's number has 1 to 3 bytes more
        assert more >= LIST_GAS * 200 - (DRAW_GAS + LIST_GAS)


def test_a_claim_at_a_wrong_height_draws_nothing(scene, monkeypatch):
    early, drawn = make_scene(waits=False), count_draws(monkeypatch)
    assert "can be claimed wrong from" in early.claim().message
    assert not drawn
    assert scene.claim().code == "ok"
    assert drawn, "control: at its time it does"


def test_an_answer_with_a_wrong_key_draws_nothing(scene, monkeypatch):
    scene.claim()
    drawn = count_draws(monkeypatch)
    assert "not the one of that height" in scene.show(key=digest("test-no-key")).message
    assert not drawn
