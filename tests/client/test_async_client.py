"""The client to be awaited, under both event loops; and the stream of blocks, in both clients."""

from __future__ import annotations

import inspect
import json

import anyio
import pytest
from chain_node import serve_chain
from factories import make_dataset
from fake_node import JOB_ID, STATUS, FakeNode, job, problem, serve

from mlchain.client import AsyncClient, Client, Event
from mlchain.client.estimators.receipts import ChainReceipt
from mlchain.client.events import EventReader
from mlchain.client.scaling import unscaled
from mlchain.client.submit import Terms
from mlchain.client.training import TrainingJob
from mlchain.crypto import SecretKey
from mlchain.errors import CodecError, NotFound, Rejected, Timeout, Unreachable, VerificationFailed
from mlchain.ledger import unixfs
from mlchain.ledger.transaction import decode_transaction, verify_transaction
from mlchain.ml_runtime import make_plan
from mlchain.vm.families.accounts import Transfer

ALICE = SecretKey(b"a" * 32)
LOOPS = pytest.mark.parametrize("loop", ["trio", "asyncio"])


@pytest.fixture
def node():
    with serve() as fake:
        fake.routes["GET /v1/status"] = STATUS
        yield fake


def public(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(member)
    }


def test_both_clients_have_the_same_methods_with_the_same_parameters():
    waiting, awaited = public(Client), public(AsyncClient)
    parts = {"request_draw", "name_parts", "submit_parts", "merge_jobs", "send_merge"}
    assert set(awaited) - set(waiting) == {"submit_job", *parts}
    assert set(waiting) <= set(awaited)
    for name, signature in waiting.items():
        assert signature.parameters == awaited[name].parameters, name


@LOOPS
def test_answers_and_errors_are_those_of_the_client_that_waits(node: FakeNode, loop):
    node.routes["GET /v1/jobs"] = {"jobs": [job("running")]}
    node.routes["GET /v1/jobs/7f"] = problem(404, "not_found", "no such job")
    node.routes["GET /v1/blocks"] = b"hello"

    async def main():
        async with AsyncClient(node.url) as client:
            assert (await client.status())["height"] == 12
            assert (await client.jobs("running", 5))[0]["id"] == JOB_ID
            with pytest.raises(NotFound, match="no such job"):
                await client.job("7f")
            with pytest.raises(CodecError, match="else than a JSON"):
                await client.blocks()

    anyio.run(main, backend=loop)


@LOOPS
def test_a_method_of_several_questions_asks_each_once(node: FakeNode, loop):
    node.routes[f"GET /v1/accounts/{ALICE.public.hex()}"] = {"nonce": 7}
    node.routes["POST /v1/txs"] = {"id": "ab" * 32}

    async def main():
        async with AsyncClient(node.url) as client:
            assert await client.send(Transfer(b"b" * 32, 10), ALICE) == "ab" * 32

    anyio.run(main, backend=loop)
    asked = [route.split("/")[2] for route, _ in node.requests]
    assert asked == ["accounts", "status", "txs"]
    transaction = decode_transaction(node.requests[-1][1])
    verify_transaction(transaction)
    assert transaction.body.nonce == 7


@LOOPS
def test_content_is_compared_with_its_id_here_too(node: FakeNode, loop):
    cid = unixfs.cid_text(unixfs.cid_of(b"rows"))
    node.routes[f"GET /v1/data/{cid}"] = [b"rows", b"other rows"]

    async def main():
        async with AsyncClient(node.url) as client:
            assert await client.data(cid) == b"rows"
            with pytest.raises(VerificationFailed, match="other bytes"):
                await client.data(cid)

    anyio.run(main, backend=loop)


@LOOPS
def test_waiting_ends_with_the_job_its_failure_or_the_patience(node: FakeNode, loop):
    states = [job("submitted"), job("running"), job("settled")]
    node.routes[f"GET /v1/jobs/{JOB_ID}"] = states
    node.routes["GET /v1/jobs/aa"] = job("expired")
    node.routes["GET /v1/jobs/bb"] = job("running")
    node.routes["GET /v1/txs/ab"] = [{"state": "pending"}, {"state": "included", "code": "late"}]

    async def main():
        async with AsyncClient(node.url, poll_s=0.001) as client:
            assert (await client.wait_for_job(JOB_ID))["state"] == "settled"
            with pytest.raises(Rejected, match="in time"):
                await client.wait_for_job("aa")
            with pytest.raises(Timeout, match="worker-1 to train segment 1 of 2"):
                await client.wait_for_job("bb", patience_s=0.02)
            with pytest.raises(Rejected, match="late"):
                await client.wait("ab")

    anyio.run(main, backend=loop)


@LOOPS
def test_many_questions_are_under_way_at_once_and_can_be_given_up(node: FakeNode, loop):
    async def main():
        async with AsyncClient(node.url) as client, anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(client.status)
        async with AsyncClient(node.url, poll_s=60) as client:
            node.routes["GET /v1/txs/ab"] = {"state": "pending"}
            with anyio.move_on_after(0.2) as scope:
                await client.wait("ab")
            assert scope.cancelled_caught

    anyio.run(main, backend=loop)
    assert len(node.requests) >= 20


@LOOPS
def test_a_job_from_its_submission_to_its_receipt(tmp_path, loop):
    dataset = make_dataset()
    plan = make_plan("softmax", features=4, classes=3, batch=8)
    work = TrainingJob(plan.encode(), dataset.encode(), 4, 60, 0, 16, 2, 8, (), unscaled(4), None)

    async def main():
        with serve_chain(tmp_path) as node:
            async with AsyncClient(node.url) as client:
                terms = Terms("blobs", "audited", 100_000, 7)
                identity = await client.submit_job(work, terms, node.chain.alice)
                await client.wait(identity)
                await client.wait_for_job(identity)
                data, genesis = await client.receipt(identity), await client.genesis()
                assert ChainReceipt(data, genesis).verify("all").equal == 8

    anyio.run(main, backend=loop)


# ---- the stream -------------------------------------------------------------------------------


def block(height: int) -> bytes:
    document = json.dumps({"height": height})
    return f": ping\n\nid: {height}\nevent: block\ndata: {document}\n\n".encode()


def test_events_go_on_where_the_connection_broke(node: FakeNode):
    cut = b'event: job\ndata: {"id": "ab"}\n\n' + block(5) + b"event: block\ndata: {"
    node.routes["GET /v1/stream"] = [cut, block(6), problem(503, "busy", "too many streams")]
    seen: list[Event] = []
    with Client(node.url) as client, pytest.raises(Unreachable, match="too many streams"):
        for event in client.events(after=4):
            seen.append(event)
    assert [(event.kind, event.height) for event in seen] == [
        ("job", 4),
        ("block", 5),
        ("block", 6),
    ]
    assert [headers.get("last-event-id") for headers in node.headers] == ["4", "5", "6"]


@LOOPS
def test_events_are_awaited_too(node: FakeNode, loop):
    node.routes["GET /v1/stream"] = [block(5), block(6)]

    async def main():
        heights = []
        async with AsyncClient(node.url) as client, client.events() as events:
            async for event in events:
                heights.append(event.height)
                if event.height == 6:
                    break
        return heights

    assert anyio.run(main, backend=loop) == [5, 6]
    assert [headers.get("last-event-id") for headers in node.headers] == [None, "5"]


@LOOPS
def test_what_ends_the_awaited_stream_comes_out_as_it_is(node: FakeNode, loop):
    node.routes["GET /v1/stream"] = [block(5), problem(503, "busy", "too many streams")]

    async def main():
        async with AsyncClient(node.url) as client:
            with pytest.raises(Unreachable, match="too many streams"):
                async with client.events() as events:
                    async for _ in events:
                        pass
            with pytest.raises(ZeroDivisionError):
                async with client.events() as events:
                    1 / 0  # noqa: B018

    anyio.run(main, backend=loop)


@pytest.mark.parametrize("line", ["data: {", "data: [1]", "data: " + "[" * 100_000])
def test_an_event_that_is_no_object_is_refused(line):
    reader = EventReader()
    reader.feed(line)
    with pytest.raises(CodecError):
        reader.feed("")


def test_an_id_that_is_no_height_is_not_taken():
    reader = EventReader(3)
    for line in ("id: -1", "id: x", "id: " + "9" * 40, "id: ٣", "retry: 5", "unknown: 1"):
        reader.feed(line)
    assert reader.last == 3


def test_a_line_without_end_is_refused_before_it_ends_and_so_is_an_event_of_many(monkeypatch):
    monkeypatch.setattr("mlchain.client.events.MAX_LINE", 100)
    reader = EventReader()
    assert not list(reader.take(b"data: " + b"x" * 90))
    with pytest.raises(CodecError, match="more than 100"):
        list(reader.take(b"xxxxx"))
    reader = EventReader()
    with pytest.raises(CodecError, match="more than 100"):
        for _ in range(5):
            list(reader.take(b"data: " + b"x" * 30 + b"\n"))


@pytest.mark.parametrize("step", [1, 2, 7, 100])
def test_events_come_out_however_their_bytes_arrive(step):
    wire = ': hi\nevent: block\nid: 4\ndata: {"é": "\u2028"}\n\ndata: {}\r\n\r\n'.encode()
    reader = EventReader()
    got = [e for i in range(0, len(wire), step) for e in reader.take(wire[i : i + step])]
    assert [(e.kind, e.data) for e in got] == [("block", {"é": "\u2028"}), ("", {})]
