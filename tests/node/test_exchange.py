"""Content exchange: every block verified, from several peers, resumable, liars left out."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256

import pytest
import trio

from mlchain import codec
from mlchain.errors import (
    CodecError,
    NotFound,
    StoreCorrupted,
    Timeout,
    Unreachable,
    VerificationFailed,
)
from mlchain.ledger.content import ContentStore
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.unixfs import CHUNK_BYTES, cid_of
from mlchain.node.exchange import (
    BLOCKS_IN_FLIGHT,
    GET_BLOCK,
    HAVE,
    MAX_FAULTS,
    MAX_HAVE_IDS,
    Exchange,
    HaveQuestion,
)
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import PeerAddress

KEYS = [bytes([n]) * 32 for n in range(1, 6)]
ASKER, ONE, TWO, THREE = KEYS[:4]
FILE = b"".join(bytes([n]) * CHUNK_BYTES for n in range(9)) + b"tail"
BLOCKS = 11  # nine full leaves, the tail and the node above them


class Node:
    """One member with a store of its own, whose answers a test can spoil."""

    def __init__(self, hub: Hub, key: bytes) -> None:
        peers = {other: PeerAddress("memory", 0) for other in KEYS if other != key}
        self.transport = MemoryTransport(hub, key, peers)
        self.kv = MemoryKeyValue()
        self.store = ContentStore(self.kv)
        self.exchange = Exchange(self.transport, self.store)
        self.exchange.serve()
        self.served: list[bytes] = []
        self.in_flight = self.most_in_flight = 0

    def answer_with(self, answer) -> None:
        """Serve what `answer(cid)` returns; None stands for the honest block."""
        honest = self.transport.services[GET_BLOCK].handler

        async def handler(peer, cid):
            self.served.append(cid)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            try:
                await trio.lowlevel.checkpoint()
                spoiled = answer(cid)
                return await honest(peer, cid) if spoiled is None else spoiled
            finally:
                self.in_flight -= 1

        self.transport.serve(GET_BLOCK, handler)


@asynccontextmanager
async def network(*holders: bytes, file: bytes = FILE):
    """Yield nodes by key; `holders` have the file and count what they serve."""
    hub = Hub()
    nodes = {key: Node(hub, key) for key in (ASKER, ONE, TWO, THREE)}
    for key in holders:
        nodes[key].store.put(file)
        nodes[key].answer_with(lambda cid: None)
    async with AsyncExitStack() as stack:
        for node in nodes.values():
            await stack.enter_async_context(node.transport.run())
        yield hub, nodes


def scenario(test):
    """Run an async test under trio, with an end."""

    def run():
        async def bounded():
            with trio.fail_after(20):
                await test()

        trio.run(bounded)

    run.__name__ = test.__name__
    return run


@scenario
async def test_a_file_is_fetched_from_several_peers_each_block_once():
    async with network(ONE, TWO) as (_, nodes):
        asker = nodes[ASKER]
        await asker.exchange.fetch(cid_of(FILE), [ONE, TWO])
        assert asker.store.get(cid_of(FILE)) == FILE
        served = nodes[ONE].served + nodes[TWO].served
        assert len(served) == len(set(served)) == BLOCKS
        assert len(nodes[ONE].served) > 2 and len(nodes[TWO].served) > 2, "both shared the load"
        assert sum(asker.exchange.fetched_bytes.values()) > len(FILE)


@scenario
async def test_what_is_here_is_not_asked_for():
    async with network(ONE) as (_, nodes):
        nodes[ASKER].store.put(FILE)
        await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE])
        assert nodes[ONE].served == []


@scenario
async def test_a_fetch_that_was_cut_off_goes_on_where_it_was():
    async with network(ONE, TWO) as (_, nodes):
        asker = nodes[ASKER]
        nodes[ONE].answer_with(lambda cid: None)
        nodes[ONE].served.clear()
        with trio.CancelScope() as scope:
            real = asker.store.put_block
            stored = []

            def put_block(cid, block):
                real(cid, block)
                stored.append(cid)
                if len(stored) == 4:
                    trio.from_thread.run_sync(scope.cancel)

            asker.store.put_block = put_block
            await asker.exchange.fetch(cid_of(FILE), [ONE])
        assert scope.cancelled_caught and not asker.store.has(cid_of(FILE))
        await asker.exchange.fetch(cid_of(FILE), [TWO])
        assert asker.store.get(cid_of(FILE)) == FILE
        assert not set(stored[:4]) & set(nodes[TWO].served)
        assert 0 < len(nodes[TWO].served) <= BLOCKS - 4


@scenario
async def test_a_peer_that_serves_wrong_bytes_is_skipped_and_counted():
    async with network(ONE, TWO) as (_, nodes):
        asker = nodes[ASKER]
        nodes[ONE].answer_with(lambda cid: b"\0" * 100)
        await asker.exchange.fetch(cid_of(FILE), [ONE, TWO])
        assert asker.store.get(cid_of(FILE)) == FILE
        assert asker.exchange.faults[ONE] >= 1 and asker.exchange.faults[TWO] == 0
        assert len(nodes[TWO].served) == BLOCKS, "the honest peer gave everything"
        assert asker.exchange.fetched_bytes[ONE] == 0


@scenario
async def test_without_verification_a_lying_peer_gets_its_bytes_into_the_store():
    async with network(ONE, TWO) as (_, nodes):
        asker = nodes[ASKER]
        lie = FILE[:CHUNK_BYTES].replace(b"\0", b"\1")
        nodes[ONE].answer_with(lambda cid: lie if cid == cid_of(FILE[:CHUNK_BYTES]) else None)

        def believe(cid, block):
            asker.kv.write({b"i" + cid: len(block).to_bytes(4, "big"), b"b" + cid: block})

        asker.store.put_block = believe
        await asker.exchange.fetch(cid_of(FILE), [ONE])
        assert asker.exchange.faults[ONE] == 0
        with pytest.raises(StoreCorrupted):
            asker.store.get(cid_of(FILE))


@scenario
async def test_a_peer_that_lies_again_and_again_is_not_asked_any_more():
    async with network(ONE) as (_, nodes):
        asker = nodes[ASKER]
        nodes[ONE].answer_with(lambda cid: b"lie")
        for _ in range(MAX_FAULTS):
            with pytest.raises(Unreachable, match="no peer to ask"):
                await asker.exchange.fetch(cid_of(FILE), [ONE])
        assert not asker.exchange.trusts(ONE)
        nodes[ONE].answer_with(lambda cid: None)
        nodes[ONE].served.clear()
        with pytest.raises(Unreachable):
            await asker.exchange.fetch(cid_of(FILE), [ONE])
        assert nodes[ONE].served == []


@scenario
async def test_an_answer_larger_than_a_block_is_the_sender_s_fault():
    async with network(ONE, TWO) as (_, nodes):
        nodes[ONE].answer_with(lambda cid: bytes(CHUNK_BYTES + 1))
        await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE, TWO])
        assert nodes[ASKER].exchange.faults[ONE] >= 1


@scenario
async def test_peers_with_different_parts_complete_each_other():
    async with network(ONE, TWO) as (_, nodes):
        leaves = [cid_of(FILE[i : i + CHUNK_BYTES]) for i in range(0, len(FILE), CHUNK_BYTES)]
        for node, lost in ((nodes[ONE], leaves[::2]), (nodes[TWO], leaves[1::2])):
            node.kv.write({}, [kind + cid for cid in lost for kind in (b"b", b"i")])
        await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE, TWO])
        assert nodes[ASKER].store.get(cid_of(FILE)) == FILE
        assert not nodes[ASKER].exchange.faults, "to have only a part is no fault"


@scenario
async def test_a_block_that_nobody_has_is_not_found_and_the_rest_is_kept():
    async with network(ONE) as (_, nodes):
        leaf = cid_of(b"tail")
        nodes[ONE].kv.write({}, [b"b" + leaf, b"i" + leaf])
        with pytest.raises(NotFound, match="none of 1 peers has it"):
            await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE])
        assert nodes[ASKER].store.missing(cid_of(FILE)) == [leaf]


@scenario
async def test_a_peer_out_of_reach_is_left_out():
    async with network(ONE, TWO) as (hub, nodes):
        hub.cut(ASKER, ONE)
        await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE, TWO])
        assert nodes[ASKER].exchange.faults[ONE] == 0
        hub.cut(ASKER, TWO)
        with pytest.raises(Unreachable, match="no peer to ask"):
            await nodes[ASKER].exchange.fetch(cid_of(FILE + b"more"), [ONE, TWO])
        with pytest.raises(Unreachable):
            await nodes[ASKER].exchange.fetch(cid_of(FILE + b"more"), [])


def be_late_once(node: Node) -> None:
    """Let a node not answer the first question about one block."""
    late = [cid_of(b"tail")]

    def answer(cid):
        if cid in late:
            late.remove(cid)
            raise Timeout("no answer in 10 s")

    node.answer_with(answer)


@scenario
async def test_one_answer_that_is_late_does_not_end_a_fetch():
    async with network(ONE) as (_, nodes):
        be_late_once(nodes[ONE])
        await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE])
        assert nodes[ASKER].store.get(cid_of(FILE)) == FILE


@scenario
async def test_without_a_second_question_it_would():
    async with network(ONE) as (_, nodes):
        be_late_once(nodes[ONE])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mlchain.node.exchange._Fetch.starts_again", lambda self: False)
            with pytest.raises((Unreachable, NotFound)):
                await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE])


@scenario
async def test_no_more_blocks_are_in_flight_than_the_bound():
    file = b"".join(n.to_bytes(4, "big") * (CHUNK_BYTES // 4) for n in range(60))
    async with network(ONE, TWO, file=file) as (_, nodes):
        await nodes[ASKER].exchange.fetch(cid_of(file), [ONE, TWO])
        most = nodes[ONE].most_in_flight + nodes[TWO].most_in_flight
        assert 2 < most <= BLOCKS_IN_FLIGHT


@scenario
async def test_a_file_beyond_the_allowed_size_stops_after_its_first_block():
    async with network(ONE) as (_, nodes):
        with pytest.raises(CodecError, match="at most 1000 allowed"):
            await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE], max_bytes=1000)
        with pytest.raises(CodecError, match="at most 1000 allowed"):
            await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE], max_bytes=1000)
        assert nodes[ONE].served == [cid_of(FILE)]
        await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE], max_bytes=len(FILE))


@scenario
async def test_two_fetches_of_one_file_ask_once_for_each_block():
    async with network(ONE) as (_, nodes):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(nodes[ASKER].exchange.fetch, cid_of(FILE), [ONE])
        assert len(nodes[ONE].served) == BLOCKS


@scenario
async def test_an_id_that_names_no_file_of_this_chain_is_refused():
    async with network(ONE) as (_, nodes):
        nodes[ONE].answer_with(lambda cid: b"junk")
        junk = b"\x01\x70\x12\x20" + sha256(b"junk").digest()
        with pytest.raises(VerificationFailed, match="layout"):
            await nodes[ASKER].exchange.fetch(junk, [ONE])
        for bad in (b"", bytes(36), b"x" * 100):
            with pytest.raises(CodecError, match="not a content id"):
                await nodes[ASKER].exchange.fetch(bad, [ONE])


@scenario
async def test_holders_are_those_who_say_so():
    async with network(ONE, THREE) as (hub, nodes):
        nodes[TWO].transport.serve(HAVE, lambda peer, question: _bytes(b"\2"))
        asker = nodes[ASKER].exchange
        assert await asker.holders(cid_of(FILE), [THREE, TWO, ONE, ONE]) == [THREE, ONE]
        hub.cut(ASKER, THREE)
        assert await asker.holders(cid_of(FILE), [THREE, TWO, ONE]) == [ONE]


async def _bytes(value):
    return value


@scenario
async def test_a_question_about_several_blocks_is_answered_byte_for_byte():
    async with network(ONE) as (_, nodes):
        cids = (cid_of(FILE), cid_of(b"other"), cid_of(b"tail"))
        question = codec.encode(HaveQuestion(cids))
        request = nodes[ASKER].transport.request
        assert await request(ONE, HAVE, question, 3, 5) == b"\1\0\1"


@scenario
async def test_malformed_questions_are_answered_with_an_error():
    async with network(ONE) as (_, nodes):
        request = nodes[ASKER].transport.request
        too_many = codec.encode(HaveQuestion((cid_of(FILE),) * (MAX_HAVE_IDS + 1)))
        for question in (b"", b"\xc1", codec.encode(HaveQuestion((b"short",))), too_many):
            with pytest.raises(CodecError):
                await request(ONE, HAVE, question, 2000, 5)
        for question in (b"", b"x" * 36, cid_of(FILE) + b"x"):
            with pytest.raises(CodecError):
                await request(ONE, GET_BLOCK, question, CHUNK_BYTES, 5)


@scenario
async def test_a_damaged_block_is_not_served():
    async with network(ONE) as (_, nodes):
        leaf = cid_of(b"tail")
        nodes[ONE].kv.write({b"b" + leaf: b"tall"})
        with pytest.raises(NotFound):
            await nodes[ASKER].exchange.fetch(cid_of(FILE), [ONE])
        assert not nodes[ASKER].exchange.faults
