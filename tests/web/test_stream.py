"""Live blocks: every block once and in order, whether it was stored before or comes now."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import trio
from factories import make_chain
from vm.asking import RIGHT, Scene
from web_harness import Web, is_problem, json_events, open_web

from mlchain.node.prediction_view import PredictionViews
from mlchain.web import app as web_app
from mlchain.web import stream as web_stream


class Listener:
    """A browser's view of the stream, over a plain socket."""

    def __init__(self, socket: trio.SocketStream) -> None:
        self._socket = socket
        self.text = ""

    async def until(self, is_enough: Any) -> list[tuple[str, str, Any]]:
        with trio.fail_after(5):
            while not is_enough(self.text):
                piece = await self._socket.receive_some()
                assert piece, "the server closed the stream"
                self.text += piece.decode()
        # hypercorn frames each event as one chunk: drop the lengths between the lines
        lines = self.text.split("\r\n\r\n", 1)[1].split("\r\n")
        return json_events("".join(lines[1::2]))

    async def until_block(self, height: int) -> list[tuple[str, str, Any]]:
        return await self.until(lambda text: f"id: {height}\n" in text and text.endswith("\r\n"))


@asynccontextmanager
async def listen(web: Web, last: str = "") -> AsyncIterator[Listener]:
    socket = await trio.open_tcp_stream("127.0.0.1", web.port)
    head = "GET /v1/stream HTTP/1.1\r\nHost: x\r\n"
    head += f"Last-Event-ID: {last}\r\n" if last else ""
    async with socket:
        await socket.send_all(head.encode() + b"\r\n")
        yield Listener(socket)


def heights(events: list[tuple[str, str, Any]]) -> list[int]:
    return [data["height"] for _, kind, data in events if kind == "block"]


def test_a_new_listener_gets_the_head_and_then_every_block():
    async def main() -> None:
        async with open_web(make_chain()) as web:
            web.chain.grow(3)
            async with listen(web) as listener:
                assert heights(await listener.until_block(3)) == [3]
                web.chain.grow(2)
                assert heights(await listener.until_block(5)) == [3, 4, 5]

    trio.run(main)


def test_who_names_the_last_height_gets_every_block_since_then_the_live_ones():
    chain = make_chain(1, 1)
    chain.run_job()

    async def main() -> None:
        async with open_web(chain) as web:
            top = chain.store.height
            async with listen(web, last="2") as listener:
                await listener.until_block(top)
                chain.grow()
                events = await listener.until_block(top + 1)
            assert heights(events) == list(range(3, top + 2))
            assert [identity for identity, kind, _ in events if kind == "block"] == [
                str(height) for height in range(3, top + 2)
            ]
            what = [data["what"] for _, kind, data in events if kind == "job"]
            assert what == ["committed", "final", "committed", "final"]

    trio.run(main)


def test_a_listener_from_the_future_waits_for_the_next_block():
    async def main() -> None:
        async with open_web(make_chain()) as web:
            async with listen(web, last="900") as listener:
                await listener.until(lambda text: "retry" in text)
                web.chain.grow()
                assert heights(await listener.until_block(1)) == [1]
            assert is_problem(
                await web.http.get("/v1/stream", headers={"last-event-id": "x"}), 422, "invalid"
            )

    trio.run(main)


def test_a_silent_stream_is_pinged(monkeypatch):
    monkeypatch.setattr(web_stream.BlockStream.__init__, "__defaults__", (0.02,))

    async def main() -> None:
        async with open_web(make_chain()) as web, listen(web) as listener:
            await listener.until(lambda text: text.count(": ping") >= 2)

    trio.run(main)


def test_streams_are_counted_and_given_back(monkeypatch):
    monkeypatch.setattr(web_app, "MAX_STREAMS", 2)

    async def main() -> None:
        async with open_web(make_chain()) as web:
            async with listen(web) as one, listen(web) as two:
                await one.until_block(0)
                await two.until_block(0)
                assert is_problem(await web.http.get("/v1/stream"), 503, "busy")
            with trio.fail_after(5):
                while len(web.node.subscribers) > 1:  # the metrics' own
                    await trio.sleep(0.01)
            async with listen(web) as three:
                assert heights(await three.until_block(0)) == [0]

    trio.run(main)


def test_a_listener_that_the_node_cuts_off_comes_back_with_its_height():
    async def main() -> None:
        async with open_web(make_chain()) as web:
            async with listen(web) as listener:
                await listener.until_block(0)
                for subscriber in web.node.subscribers:
                    subscriber.close()
                with trio.fail_after(5):
                    while await listener._socket.receive_some():
                        pass
            web.chain.grow(2)
            async with listen(web, last="0") as listener:
                assert heights(await listener.until_block(2)) == [1, 2]

    trio.run(main)


def test_a_listener_that_does_not_read_is_let_go(monkeypatch):
    monkeypatch.setattr(web_stream, "SEND_TIMEOUT_S", 0.02)

    async def main() -> None:
        async with open_web(make_chain()) as web:
            stream = web_stream.BlockStream(web.node, 0)

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    await trio.sleep_forever()

            with trio.fail_after(5):
                await stream({}, trio.sleep_forever, send)
            assert len(web.node.subscribers) == 1, "the metrics' own"

    trio.run(main)


def test_a_request_that_ended_in_a_block_is_an_event_of_it():
    scene = Scene()
    request = scene.asked()
    found = scene.answer(request, scene.all_say(RIGHT))
    views = PredictionViews(scene.world.state, {})
    query = SimpleNamespace(
        job_events=lambda height: [], predictions=views, block_row=lambda height: {}
    )
    text = web_stream.block_events(query, found.height)
    assert json.loads(text.split("event: prediction\ndata: ")[1].split("\n")[0]) == {
        "prediction": request.hex(), "what": "answered", "height": found.height,
    }  # fmt: skip
    assert "prediction" not in web_stream.block_events(query, found.height - 1)
