"""A worker names files in its commits; nobody downloads more than such a file can be."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from factories import make_key
from msgspec.structs import replace
from vm.world import World

from mlchain.errors import CodecError
from mlchain.ledger.content import ContentStore
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.unixfs import CHUNK_BYTES, cid_of
from mlchain.node.artifacts import Artifacts
from mlchain.node.exchange import Exchange
from mlchain.node.membership import Keys, Membership
from mlchain.node.spool import Spool
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import PeerAddress

HUGE = b"".join(bytes([n]) * CHUNK_BYTES for n in range(8))


@asynccontextmanager
async def asker(world: World, folder):
    """Yield the artifacts of validator-0; worker-0 serves a huge file."""
    hub, stores = Hub(), {}
    peers = [make_key(name + "/peer").public for name in ("validator-0", "worker-0")]
    async with trio.open_nursery() as nursery:
        for own in peers:
            others = {peer: PeerAddress("memory", 0) for peer in peers if peer != own}
            transport = MemoryTransport(hub, own, others)
            stores[own] = ContentStore(MemoryKeyValue())
            exchange = Exchange(transport, stores[own])
            exchange.serve()
            if own == peers[0]:
                members = Membership(Keys(make_key("x"), None, None), transport, world.state())
                artifacts = Artifacts(
                    world.genesis, members, transport, stores[own], exchange, Spool(folder)
                )
            started = trio.Event()

            async def run(transport=transport, started=started):
                async with transport.run():
                    started.set()
                    await trio.sleep_forever()

            nursery.start_soon(run)
            await started.wait()
        stores[peers[1]].put(HUGE)
        yield artifacts
        nursery.cancel_scope.cancel()


def test_a_leaf_list_has_32_bytes_a_chunk_and_no_more_is_fetched(tmp_path):
    world = World()
    job_id = world.running()
    world.commit(job_id)
    job, segment = world.job(job_id), world.segment(job_id)
    commit = replace(segment.commit, leaves_content=cid_of(HUGE))

    async def fetch() -> None:
        async with asker(world, tmp_path) as artifacts:
            with pytest.raises(CodecError, match="at most"):
                await artifacts.fetch_leaves(job_id, job, replace(segment, commit=commit))
            assert len(artifacts.content.missing(cid_of(HUGE), 100)) == 8, "none of its leaves"

    trio.run(fetch)


def test_what_is_here_already_is_not_read_beyond_the_bound(tmp_path):
    async def fetch() -> None:
        async with asker(World(), tmp_path) as artifacts:
            content = artifacts.content.put(HUGE)
            with pytest.raises(CodecError):
                await artifacts.fetch_content(content, len(HUGE) - 1)
            assert await artifacts.fetch_content(content, len(HUGE)) == HUGE

    trio.run(fetch)
