"""Who asks for what takes long waits alone: others get their relays and their traces."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio
import trio.testing
from factories import make_key

from mlchain import codec
from mlchain.errors import MlchainError, NotFound
from mlchain.node import artifacts as artifacts_module
from mlchain.node.artifacts import Artifacts, ChunkRequest
from mlchain.node.defence import Defence
from mlchain.node.trace_wire import TraceQuestion

OWN, WORKER, OBSERVER = b"own", b"worker", b"observer"
VALIDATORS = tuple(b"validator-%d" % n for n in range(5))
CHUNK = codec.encode(ChunkRequest(bytes(32), 0, 0, 3))
TRACE = codec.encode(TraceQuestion(bytes(32), 0, 0, 3, None, ()))


class Served:
    """Questions to one handler, in the order in which they were begun, and how they ended."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.ended: dict[int, str] = {}
        self.release = trio.Event()
        self.nursery: trio.Nursery | None = None
        self.handler = None

    async def ask(self, *peers: bytes) -> dict[int, str]:
        """Let these peers ask, one after the other; return how those ended that have."""
        for peer in peers:
            self.nursery.start_soon(self._ask, peer)
            await trio.testing.wait_all_tasks_blocked()
        return self.ended

    async def _ask(self, peer: bytes) -> None:
        number = self._number = getattr(self, "_number", -1) + 1
        try:
            await self.handler(peer)
            self.ended[number] = "answered"
        except MlchainError as error:
            self.ended[number] = type(error).__name__

    async def work(self) -> None:
        self.begun.append(b"")
        await self.release.wait()


def play(scenario) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            served = Served()
            served.nursery = nursery
            await scenario(served)
            nursery.cancel_scope.cancel()

    trio.run(main)


def relay(served: Served) -> None:
    """A validator that relays the chunks of a worker which never answers."""

    async def request(*asked: object) -> bytes:
        await served.work()
        return b"state"

    def read(place: object, offset: int) -> bytes:
        raise NotFound("not here")

    members = SimpleNamespace(validator_peers=VALIDATORS, peer_of=lambda key: key or None)
    transport = SimpleNamespace(public_key=OWN, request=request)
    artifacts = Artifacts(None, members, transport, None, None, SimpleNamespace(read=read))
    artifacts.worker_of = lambda request: WORKER
    served.handler = lambda peer: artifacts.serve_chunk(peer, CHUNK)


@pytest.mark.parametrize("places", [artifacts_module.MAX_RELAYED, 4])
def test_relays_for_one_validator_take_one_place(monkeypatch, places):
    monkeypatch.setattr(artifacts_module, "MAX_RELAYED", places)

    async def scenario(served: Served) -> None:
        relay(served)
        liars, honest = VALIDATORS[:4], VALIDATORS[4]
        ended = await served.ask(*liars, *liars)
        assert ended == dict.fromkeys(range(4, 8), "Rejected"), "refused at once, not queued"
        await served.ask(honest)
        has_room = places > len(liars)  # the control: as few as there are liars
        assert (8 in served.ended) is not has_room
        served.release.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (served.ended[8] == "answered") is has_room
        assert await served.ask(liars[0]) and served.ended[9] == "answered", "when the first ended"

    play(scenario)


def test_nothing_is_relayed_for_others_than_validators():
    async def scenario(served: Served) -> None:
        relay(served)
        assert await served.ask(OBSERVER) == {0: "NotFound"}
        assert not served.begun

    play(scenario)


def test_one_question_of_each_accuser_waits_for_its_turn():
    async def scenario(served: Served) -> None:
        async def answer_claim(*asked: object) -> object:
            await served.work()
            raise NotFound("enough for this test")

        compute = SimpleNamespace(answer_claim=answer_claim)
        defence = Defence(make_key("w"), None, None, compute, None, None)
        case = SimpleNamespace(handle=1, chunk=3, state=b"", job=None)
        defence._cases[(bytes(32), 0, 0), 3] = case
        served.handler = lambda peer: defence.serve(peer, TRACE)
        flooder, honest = VALIDATORS[:2]
        assert await served.ask(flooder, flooder, flooder) == {1: "Rejected", 2: "Rejected"}
        await served.ask(honest)
        assert len(served.begun) == 1, "one at a time"
        served.release.set()
        await trio.testing.wait_all_tasks_blocked()
        assert served.ended[0] == served.ended[3] == "NotFound" and len(served.begun) == 2

    play(scenario)
