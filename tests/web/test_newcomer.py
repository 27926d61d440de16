"""A node that fetches the state says so at its address, and then serves its chain there."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from factories import GrowingChain, make_chain, make_key
from node.snapshot_world import World, forge
from web_harness import BYTES, is_problem

from mlchain import crypto
from mlchain.client.client import Client
from mlchain.ledger.genesis import dump_genesis
from mlchain.ledger.merkle import CHUNKS
from mlchain.node import main
from mlchain.node.config import load_config
from mlchain.node.membership import Keys
from mlchain.web import answers
from mlchain.web.api import HttpApi

DOCS = Path(__file__).parents[2] / "docs" / "http.md"
HELD = 40
"""Chunks that the peers give before they wait."""

CHAIN_PATHS = (
    "/readyz", "/v1/blocks", "/v1/blocks/1", "/v1/validators", "/v1/jobs", "/v1/stream", "/docs",
    "/v1/data/bafk", "/v1/accounts/mlc1x",
)  # fmt: skip


@pytest.fixture(scope="module")
def chain() -> GrowingChain:
    chain = make_chain(4, 1)
    chain.grow(3)
    return chain


class Held(World):
    """Peers that stop in the middle of a snapshot, and a node whose API is asked meanwhile."""

    def __init__(self, chain: GrowingChain, folder: Path, monkeypatch) -> None:
        super().__init__(chain, folder)
        self.most = HELD
        genesis = folder / "genesis.json"
        genesis.write_text(dump_genesis(chain.genesis))
        self.home = folder / "home"
        flags = {"genesis": genesis, "home": self.home, "sync": "snapshot"}
        self.config = load_config(flags, {}, folder, folder)
        monkeypatch.setattr(main, "make_transport", lambda *_: self.transport("new"))

    async def run(self, ask: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        """Run the peers, the node from its beginning, and beside them whoever asks it."""
        with HttpApi(port=0) as api:
            async with trio.open_nursery() as nursery:
                for name in self.names:
                    nursery.start_soon(self.live, name)
                keys = Keys(make_key("new/peer"), None, None)
                nursery.start_soon(main._run, self.config, keys, api, "")
                with trio.fail_after(60):
                    while api._listener is None:
                        await trio.sleep(0.01)
                    url = f"http://127.0.0.1:{api._listener.getsockname()[1]}"
                    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
                        await ask(http)
                nursery.cancel_scope.cancel()

    async def live(self, name: str) -> None:
        async with self.serve(name).run():
            await trio.sleep_forever()


async def until_held(http: httpx.AsyncClient) -> dict[str, Any]:
    """The status once the peers give nothing more."""
    while True:
        status: dict[str, Any] = (await http.get("/v1/status")).json()
        if status["state_sync"]["chunks"] == HELD:
            return status
        await trio.sleep(0.01)


async def until_ready(http: httpx.AsyncClient) -> None:
    while (await http.get("/readyz")).status_code != 200:
        await trio.sleep(0.01)


def test_who_asks_is_told_how_far_it_is_and_then_what_the_chain_says(chain, tmp_path, monkeypatch):
    world = Held(chain, tmp_path, monkeypatch)

    async def ask(http: httpx.AsyncClient) -> None:
        status = await until_held(http)
        assert (status["height"], status["syncing"]) == (0, True)
        assert status["genesis"] == chain.genesis.hash.hex()
        assert {peer["name"]: peer["connected"] for peer in status["peers"]} == dict.fromkeys(
            world.names, True
        )
        sync = status["state_sync"]
        assert (sync["phase"], sync["height"], sync["of"]) == (
            "fetching",
            chain.store.height,
            CHUNKS,
        )
        assert {peer["name"] for peer in sync["peers"]} == set(world.names)
        assert sum(peer["chunks"] for peer in sync["peers"]) == HELD
        assert sync["bytes"] > 0 and not any(peer["refused"] for peer in sync["peers"])
        assert msgspec.convert(status, answers.Status)

        assert (await http.get("/healthz")).json() == {"ok": True}
        assert (await http.get("/v1/genesis")).text == dump_genesis(chain.genesis)
        for path in CHAIN_PATHS:
            answer = await http.get(path)
            assert is_problem(answer, 503, "fetching_state"), path
            assert answer.json()["detail"] == f"still fetching the state: {HELD} of 256 chunks"
            assert answer.json()["progress"] == sync and answer.headers["retry-after"]
        refused = await http.post("/v1/txs", content=b"x", headers=BYTES)
        assert is_problem(refused, 503, "fetching_state")
        metrics = (await http.get("/metrics")).text
        assert f"mlchain_state_sync_chunks {HELD}.0" in metrics
        told = set(re.findall(r"`(mlchain_state_sync_\w+)", DOCS.read_text()))
        assert told == set(re.findall(r"^(mlchain_state_sync_\w+)", metrics, re.MULTILINE))

        world.go.set()
        await until_ready(http)
        status = (await http.get("/v1/status")).json()
        assert status["height"] == chain.store.height and "state_sync" not in status
        account = crypto.address(chain.alice.public)
        assert (await http.get(f"/v1/accounts/{account}")).json()["balance"] > 0
        assert "state_sync" not in (await http.get("/metrics")).text

    trio.run(world.run, ask)


def test_the_operator_sees_who_lied_and_may_stop_the_process(chain, tmp_path, monkeypatch):
    world = Held(chain, tmp_path, monkeypatch)
    world.spoil["b"] = forge
    ended = []
    monkeypatch.setattr("mlchain.web.admin.end_process", lambda: ended.append(True))

    async def ask(http: httpx.AsyncClient) -> None:
        refused: list[str] = []
        while not refused:
            sync = (await http.get("/v1/status")).json()["state_sync"]
            refused = [peer["name"] for peer in sync["peers"] if peer["refused"]]
            await trio.sleep(0.01)
        assert refused == ["b"]
        assert (await http.post("/v1/node/stop")).status_code == 503 and not ended
        with Client(f"unix:{world.home / 'admin.sock'}") as operator:
            assert (await trio.to_thread.run_sync(operator.status))["state_sync"]["chunks"]
            await trio.to_thread.run_sync(operator.stop_node)
        assert ended == [True]
        world.go.set()
        await until_ready(http)

    trio.run(world.run, ask)
