"""A rota: what cannot be had makes way for what can."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from mlchain.errors import NotFound, Timeout
from mlchain.node.rota import FETCH_S, Rota, fetching

PAUSE_S = 1.0


async def nothing() -> None:
    pass


class Files:
    """Some can be had, some are never there, and some never end."""

    def __init__(self, **files: str) -> None:
        self.files = files
        self.tries: list[str] = []
        self.done: dict[str, float] = {}

    async def find(self):
        return {
            name.encode(): lambda name=name: self._try(name)
            for name in self.files
            if name not in self.done
        }

    async def _try(self, name: str) -> None:
        self.tries.append(name)
        if self.files[name] == "endless":
            with fetching(0):
                await trio.sleep_forever()
        if self.files[name] == "nowhere":
            raise NotFound("nobody has it")
        self.done[name] = trio.current_time()

    def watch(self, seconds: float, places: int = 2) -> None:
        async def main() -> None:
            with trio.move_on_after(seconds):
                await Rota(places, PAUSE_S, 30.0).run(self.find)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_never_ends_takes_one_place_and_the_others_go_on() -> None:
    files = Files(slow="endless", one="here", two="here")
    files.watch(PAUSE_S)
    assert list(files.done) == ["one", "two"]


def test_what_never_ends_gives_its_place_back_and_new_things_go_first() -> None:
    files = Files(**{f"slow{i}": "endless" for i in range(4)}, last="here")
    files.watch(2 * FETCH_S + 2 * PAUSE_S)
    assert list(files.done) == ["last"]
    assert sorted(files.tries[:4]) == ["slow0", "slow1", "slow2", "slow3"]
    assert "last" in files.tries[4:6]  # beside the one that failed first


def test_control_one_after_the_other_without_end_the_last_never_comes(monkeypatch) -> None:
    monkeypatch.setattr("mlchain.node.rota.FETCH_S", 10**9)
    files = Files(slow="endless", last="here")
    files.watch(10 * FETCH_S, places=1)
    assert files.done == {}


def test_what_is_nowhere_is_tried_less_and_less_often() -> None:
    files = Files(lost="nowhere")
    files.watch(100)
    assert 5 <= len(files.tries) <= 9


def test_what_is_due_no_more_is_forgotten() -> None:
    rota = Rota(2, PAUSE_S, 30.0)
    rota._failures[b"gone"], rota._rests[b"gone"] = 3, 100.0
    assert rota.choose({b"new": nothing}, 0.0) == [b"new"]
    assert rota.choose({b"gone": nothing}, 0.0) == [b"gone"]


def test_a_file_that_takes_too_long_is_a_failure() -> None:
    async def main() -> None:
        with pytest.raises(Timeout, match="not here after 61 s"), fetching(1 << 20):
            await trio.sleep_forever()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
