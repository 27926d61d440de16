"""What a custodian keeps, asks and presses as a made-up chain goes by: nothing trains here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from vm.test_vm_custody import ME, YOU, Scene, make_scene
from vm.world import AHEAD, PARAMS, World

from mlchain.errors import NotFound
from mlchain.ledger.genesis import Params
from mlchain.ledger.state import State
from mlchain.node import custodian as custodian_module
from mlchain.node import worker as worker_module
from mlchain.node.custodian import Custodian
from mlchain.node.spool import Spool
from mlchain.node.worker import Worker
from mlchain.vm.families.custody import ClaimDigest, ClaimState, audit_end
from mlchain.vm.families.jobs import Segment


@dataclass
class ChainOf:
    """The blocks of a world, as a node has them."""

    world: World
    params = PARAMS

    @property
    def height(self) -> int:
        return self.world.height

    @property
    def validators(self) -> tuple[bytes, ...]:
        return tuple(self.world.key(name).public for name in self.world.validators)

    def state(self) -> State:
        return self.world.state()


class Sent(list[ClaimDigest]):
    """An outbox that only notes what is sent."""

    def salt(self, payload: ClaimDigest) -> bytes:
        return bytes(32)

    def send_announced(self, payload: ClaimDigest) -> None:
        self.append(payload)


def custodian_of(scene: Scene, name: str, folder: Path) -> tuple[Custodian, Sent]:
    parts: Any = (ChainOf(scene.world), None, None, None, sent := Sent(), Spool(folder))
    custodian = Custodian(scene.world.key(name).public, bytes(32), *parts)
    custodian.on_block()
    return custodian, sent


def keep_digests(scene: Scene, book: Spool) -> tuple[bytes, int, int]:
    place = (scene.job, 0, scene.world.segment(scene.job).attempt)
    book.start(place, scene.digests[0])
    for digest in scene.digests[1:]:
        book.append(place, digest)
    return place


def ask_last(scene: Scene, custodian: Custodian) -> None:
    """Ask for a digest in the last block in which one can be asked for, and let that pass."""
    end = audit_end(scene.world.segment(scene.job), PARAMS)
    scene.world.blocks(end - scene.world.height - AHEAD - 1)
    assert scene.claim().code == "ok" and scene.world.height == end
    scene.world.blocks(2)
    custodian.on_block()


def ends_with_asking(
    state: State, job: bytes, index: int, segment: Segment, height: int, params: Params
) -> bool:
    return height <= audit_end(segment, params)


def test_who_is_asked_in_the_last_block_has_its_digests_still(tmp_path):
    scene = make_scene()
    custodian, _ = custodian_of(scene, ME, tmp_path)
    place = keep_digests(scene, custodian.book)
    ask_last(scene, custodian)
    assert custodian.book.read(place, 0) == scene.digests[0]
    assert scene.show().code == "ok"
    scene.world.blocks(PARAMS.custody_window + 1)
    custodian.on_block()
    with pytest.raises(NotFound):  # nobody can ask, or claim it wrong, any more
        custodian.book.read(place, 0)


def test_control_kept_until_asking_ends_they_are_gone_when_they_are_due(tmp_path, monkeypatch):
    monkeypatch.setattr(custodian_module, "is_under_audit", ends_with_asking)
    scene = make_scene()
    custodian, _ = custodian_of(scene, ME, tmp_path)
    place = keep_digests(scene, custodian.book)
    ask_last(scene, custodian)
    assert scene.on_chain().state == ClaimState.ASKED
    with pytest.raises(NotFound):
        custodian.book.read(place, 0)


def is_state_owed(scene: Scene, folder: Path) -> bool:
    """Tell whether the worker keeps its states, one block after the last for asking has passed."""
    custodian, _ = custodian_of(scene, ME, folder / "digests")
    ask_last(scene, custodian)
    segment = scene.world.segment(scene.job)
    parts: Any = (ChainOf(scene.world), None, None, Spool(folder / "states"), None)
    return Worker(segment.worker, *parts)._is_asked((scene.job, 0, segment.attempt))


def test_a_worker_keeps_its_states_while_somebody_is_asked(tmp_path):
    scene = make_scene()
    assert is_state_owed(scene, tmp_path)
    scene.show()
    assert scene.claim().code == "ok", "everybody re-runs it from those states"


def test_control_kept_until_asking_ends_the_states_are_gone_too(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_module, "is_under_audit", ends_with_asking)
    assert not is_state_owed(make_scene(), tmp_path)


def test_who_only_asked_claims_nothing_wrong_when_it_is_shown(tmp_path):
    """It may have missed the block in which its question came; what is shown may be right."""
    scene = make_scene()
    custodian, sent = custodian_of(scene, YOU, tmp_path)
    place = (scene.job, 0, scene.world.key(ME).public, scene.chunks[0])
    custodian._claim(scene.world.state(), place, None, b"")
    assert [claim.opening for claim in sent] == [None]
    scene.claim(sender=YOU)
    scene.show()
    trio.run(custodian.press, scene.world.state())
    assert len(sent) == 1


def test_control_what_is_found_wrong_is_pressed_although_somebody_asks_for_it(tmp_path):
    scene = make_scene()
    custodian, sent = custodian_of(scene, YOU, tmp_path)
    place = (scene.job, 0, scene.world.key(ME).public, scene.chunks[0])
    opening = scene.opening(scene.chunks[0])
    scene.claim(sender="validator-2")
    custodian._claim(scene.world.state(), place, opening, opening.digest)
    trio.run(custodian.press, scene.world.state())
    assert [claim.opening for claim in sent] == [opening, opening]
