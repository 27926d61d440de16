"""`AsyncClient`: the methods of `Client`, to be awaited; under trio and asyncio alike.

What a method of `Client` does is a function of the answers that it gets. So it is written once:
here it runs on the answers there are, stops where it asks for one more, and begins again with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import NamedTuple, TypeVar

import anyio
import httpx
from anyio.streams.memory import MemoryObjectReceiveStream

from mlchain.client.client import EXECUTION_GAS, Client
from mlchain.client.events import Event, EventReader
from mlchain.client.http import (
    DEFAULT_URL,
    SILENCE_S,
    STREAM,
    Json,
    Notify,
    Query,
    Watch,
    append,
    checked,
    connection,
    describe_silence,
    describe_wait,
    is_included,
    problem_error,
    reaching,
    sending,
    streaming,
)
from mlchain.client.merging import Merged, merge_jobs, send_merge, submit_parts
from mlchain.client.partitions import name_parts, request_draw
from mlchain.client.progress import FINAL_STATES, describe_job, require_settled
from mlchain.client.submit import Terms, submit_job
from mlchain.client.training import TrainingJob
from mlchain.consensus.light import LightPath, LightQuestion, StateAnswer
from mlchain.crypto import SecretKey
from mlchain.errors import MlchainError
from mlchain.ledger.pages import BlockPage
from mlchain.ledger.transaction import TransactionBody
from mlchain.vm.context import Payload
from mlchain.vm.families.submit import SubmitJob

T = TypeVar("T")


class Question(NamedTuple):
    """One request."""

    method: str
    path: str
    query: Query
    body: bytes | None


class _Asked(BaseException):
    """A method wants an answer that is not there yet."""

    def __init__(self, question: Question) -> None:
        self.question = question


class _Replay(Client):
    """A client whose answers are given beforehand."""

    def __init__(self, url: str, answers: list[bytes]) -> None:
        self.url, self._answers, self._next = url, answers, 0

    def _request(
        self, method: str, path: str, query: Query = None, body: bytes | None = None
    ) -> bytes:
        if self._next == len(self._answers):
            raise _Asked(Question(method, path, query, body))
        self._next += 1
        return self._answers[self._next - 1]


class _Arriving:
    """Events from the task that reads them, and in the end why it stopped."""

    def __init__(self, receive: MemoryObjectReceiveStream[Event]) -> None:
        self._receive = receive
        self.failure: MlchainError | None = None

    def __aiter__(self) -> _Arriving:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._receive.receive()
        except anyio.EndOfStream:
            raise self.failure or StopAsyncIteration from None


class AsyncClient:
    """One node, over HTTP. Close it, or use it as an async context manager.

    Every method is that of `Client` with this name, and raises what that one raises.
    """

    def __init__(
        self, url: str = DEFAULT_URL, *, timeout_s: float = 10.0, poll_s: float = 0.3
    ) -> None:
        self.url = url.rstrip("/")
        self.poll_s = poll_s
        with reaching(url):
            self._http = httpx.AsyncClient(
                **connection(self.url, timeout_s, httpx.AsyncHTTPTransport)
            )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # Reading

    async def status(self) -> Json:
        """Return what the node knows: chain id, head, peers, validators, mempool."""
        return await self._run(lambda c: c.status())

    async def account(self, account: str) -> Json:
        """Return `balance` (micro-credits) and `nonce` of an address or hex key."""
        return await self._run(lambda c: c.account(account))

    async def transaction(self, identity: str) -> Json:
        """Return where a transaction stands: pending, included (with code), replaced or unknown."""
        return await self._run(lambda c: c.transaction(identity))

    async def jobs(self, state: str = "", limit: int = 50) -> list[Json]:
        """Return the newest jobs, all or those in one state."""
        return await self._run(lambda c: c.jobs(state, limit))

    async def job(self, identity: str) -> Json:
        """Return one job by its id or a unique beginning of it."""
        return await self._run(lambda c: c.job(identity))

    async def receipt(self, identity: str) -> bytes:
        """Return the receipt of a settled job: everything needed to check it offline."""
        return await self._run(lambda c: c.receipt(identity))

    async def light_path(self, question: LightQuestion) -> LightPath:
        """Return certified headers that lead to a block (`client.light` judges them)."""
        return await self._run(lambda c: c.light_path(question))

    async def block_page(self, after: int) -> BlockPage:
        """Return whole blocks after height `after`; nothing of them is checked yet."""
        return await self._run(lambda c: c.block_page(after))

    async def prove(self, key: bytes) -> StateAnswer:
        """Return the value of a state key with its proof (`client.light` judges it)."""
        return await self._run(lambda c: c.prove(key))

    async def frauds(self, identity: str) -> list[Json]:
        """Return which fraud files the node made about a job: segment, attempt and chunk."""
        return await self._run(lambda c: c.frauds(identity))

    async def fraud(self, identity: str, segment: int, attempt: int, chunk: int) -> bytes:
        """Return one fraud file."""
        return await self._run(lambda c: c.fraud(identity, segment, attempt, chunk))

    async def model(self, identity: str) -> bytes:
        """Return the trained model of a settled job."""
        return await self._run(lambda c: c.model(identity))

    async def registry(self, limit: int = 50) -> list[Json]:
        """Return the last version of each registered name."""
        return await self._run(lambda c: c.registry(limit))

    async def registered(self, model: str) -> Json:
        """Return a registered model by NAME, NAME@VERSION or content id."""
        return await self._run(lambda c: c.registered(model))

    async def prediction(self, identity: str, wait_s: float = 0) -> Json:
        """Return a request and its answer; waits on the node's side for at most `wait_s`."""
        return await self._run(lambda c: c.prediction(identity, wait_s))

    async def prediction_receipt(self, identity: str) -> bytes:
        """Return the receipt of an answer: everything needed to check it offline."""
        return await self._run(lambda c: c.prediction_receipt(identity))

    async def data(self, content_id: str) -> bytes:
        """Return content by its id, compared with it."""
        return await self._run(lambda c: c.data(content_id))

    async def data_info(self, content_id: str) -> Json:
        """Return what the node knows of a content id: size, profile, whether it is whole."""
        return await self._run(lambda c: c.data_info(content_id))

    async def holders(self, content_id: str) -> Json:
        """Return which validators hold a dataset: `registered`, `available`, and their names."""
        return await self._run(lambda c: c.holders(content_id))

    async def draws(self, content_id: str) -> list[Json]:
        """Return the draws of partitions of a dataset, the latest first."""
        return await self._run(lambda c: c.draws(content_id))

    async def draw(self, identity: str) -> Json:
        """Return a draw: `state`, `seed`, the `named` parts and `merges`."""
        return await self._run(lambda c: c.draw(identity))

    async def data_files(self, limit: int = 50, before: int | None = None) -> Json:
        """Return files that our own node keeps; see `Client.data_files`."""
        return await self._run(lambda c: c.data_files(limit, before))

    async def governance(self) -> Json:
        """Return epoch, parameters, rules, members and proposals."""
        return await self._run(lambda c: c.governance())

    async def validators(self) -> list[Json]:
        """Return the members that vote."""
        return await self._run(lambda c: c.validators())

    async def blocks(self, before: int | None = None, limit: int = 20) -> list[Json]:
        """Return blocks, newest first, below height `before`."""
        return await self._run(lambda c: c.blocks(before, limit))

    async def block(self, height: int) -> Json:
        """Return one block."""
        return await self._run(lambda c: c.block(height))

    async def genesis(self) -> str:
        """Return the text of the chain's genesis file."""
        return await self._run(lambda c: c.genesis())

    # Writing

    async def put_data(self, data: bytes) -> str:
        """Store content at the node and return its id, which is computed here."""
        return await self._run(lambda c: c.put_data(data))

    async def pin_data(self, content_id: str, is_wanted: bool = True) -> Json:
        """Have our own node fetch and keep a file, or let it go."""
        return await self._run(lambda c: c.pin_data(content_id, is_wanted))

    async def collect_data(self) -> Json:
        """Have our own node remove what nobody needs: `freed` and `used` bytes."""
        return await self._run(lambda c: c.collect_data())

    async def set_log_level(self, level: str) -> None:
        """Have our own node log from `level` on: debug, info, warning or error."""
        await self._run(lambda c: c.set_log_level(level))

    async def stop_node(self) -> None:
        """Have our own node end."""
        await self._run(lambda c: c.stop_node())

    async def post_transaction(self, data: bytes) -> str:
        """Hand in an encoded transaction and return its id."""
        return await self._run(lambda c: c.post_transaction(data))

    async def prepare(
        self,
        payload: Payload,
        sender: bytes,
        *,
        gas: int = EXECUTION_GAS,
        gas_price: int = 1,
        nonce: int | None = None,
    ) -> TransactionBody:
        """Return what `send` would sign; see `Client.prepare`."""
        return await self._run(
            lambda c: c.prepare(payload, sender, gas=gas, gas_price=gas_price, nonce=nonce)
        )

    async def send(
        self,
        payload: Payload,
        key: SecretKey,
        *,
        gas: int = EXECUTION_GAS,
        gas_price: int = 1,
        nonce: int | None = None,
    ) -> str:
        """Sign `payload`, hand it in, and return the transaction's id; see `Client.send`."""
        return await self._run(
            lambda c: c.send(payload, key, gas=gas, gas_price=gas_price, nonce=nonce)
        )

    async def submit_job(self, job: TrainingJob, terms: Terms, key: SecretKey) -> str:
        """Store a job's dataset, sign and send the job, and return its id."""
        return await self._run(lambda c: submit_job(c, job, c.put_data(job.dataset), terms, key))

    async def request_draw(self, data: bytes, parts: int, test_rows: int, key: SecretKey) -> str:
        """Register a dataset that the node holds, ask for a draw, and return the draw's id."""
        return await self._run(lambda c: request_draw(c, data, parts, test_rows, key))

    async def name_parts(self, data: bytes, draw: Json, key: SecretKey) -> str:
        """Say what the parts of a draw are; return the transaction's id."""
        return await self._run(lambda c: name_parts(c, data, draw, key))

    async def submit_parts(self, requests: Sequence[SubmitJob], key: SecretKey) -> list[str]:
        """Sign and send the jobs on all parts (`merging.part_jobs`); return their ids."""
        return await self._run(lambda c: submit_parts(c, requests, key))

    async def merge_jobs(self, job: TrainingJob, draw: Json, jobs: Sequence[str]) -> Merged:
        """Merge here what the settled jobs on the parts of a draw left."""
        return await self._run(lambda c: merge_jobs(c, job, draw, jobs))

    async def send_merge(
        self, merged: Merged, draw: Json, jobs: Sequence[str], key: SecretKey
    ) -> str:
        """Say which file the jobs make; return the transaction's id."""
        return await self._run(lambda c: send_merge(c, merged, draw, jobs, key))

    # Waiting

    async def wait(
        self, identity: str, timeout_s: float = 30.0, notify: Notify | None = None
    ) -> Json:
        """Return the transaction once a block includes it; see `Client.wait`."""
        watch = Watch(timeout_s)
        while not is_included(found := await self.transaction(identity)):
            waiting = describe_wait(identity, await self.status())
            watch.require_time(f"waited {timeout_s:g} s for {waiting}", "mlchain status")
            if notify is not None:
                notify(f"waiting for {waiting}")
            await anyio.sleep(self.poll_s)
        return found

    async def follow(
        self, identity: str, patience_s: float = 120.0, notify: Notify | None = None
    ) -> AsyncIterator[Json]:
        """Yield the job at first and after each change, until it is final; see `Client.follow`."""
        watch = Watch(patience_s)
        while True:
            job = await self.job(identity)
            if watch.is_new(job):
                yield job
            if job["state"] in FINAL_STATES:
                return
            watch.require_time(*describe_silence(job, await self.status(), patience_s))
            if notify is not None:
                notify(describe_job(job))
            await anyio.sleep(self.poll_s)

    async def wait_for_job(
        self, identity: str, patience_s: float = 120.0, notify: Notify | None = None
    ) -> Json:
        """Return the job once it is settled; see `Client.wait_for_job`."""
        job: Json = {}
        async for found in self.follow(identity, patience_s, notify):
            job = found
        require_settled(job)
        return job

    @asynccontextmanager
    async def events(
        self, after: int | None = None, silence_s: float = SILENCE_S
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Give blocks as they become final, and what each did to jobs; see `Client.events`.

        As in `async with client.events() as events: async for event in events: …`. The connection
        is closed where the block ends, however it ends.
        """
        send, receive = anyio.create_memory_object_stream[Event](0)
        arriving, stopped_by = _Arriving(receive), None

        async def read() -> None:
            async with send:
                try:
                    await self._read_events(EventReader(after), silence_s, send.send)
                except MlchainError as error:
                    arriving.failure = error

        async with receive, anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            try:
                yield arriving
            except Exception as error:  # or it would come out in a group
                stopped_by = error
            tasks.cancel_scope.cancel()
        if stopped_by is not None:
            raise stopped_by

    async def _read_events(
        self, reader: EventReader, silence_s: float, take: Callable[[Event], Awaitable[None]]
    ) -> None:
        while True:
            with reaching(self.url):
                options = streaming(reader, silence_s)
                async with self._http.stream("GET", STREAM, **options) as answer:
                    if answer.status_code >= 300:
                        data = await answer.aread()
                        raise problem_error(answer.status_code, data, self.url + STREAM)
                    reader.begin()
                    async for piece in answer.aiter_bytes():
                        for event in reader.take(piece):
                            await take(event)

    # One request

    async def _run(self, method: Callable[[Client], T]) -> T:
        """Return what a method of `Client` returns, its questions asked one after the other."""
        answers: list[bytes] = []
        while True:
            try:
                return method(_Replay(self.url, answers))
            except _Asked as asked:
                question = asked.question
            answers.append(await self._request(question))

    async def _request(self, question: Question) -> bytes:
        data, where = bytearray(), self.url + question.path
        with reaching(self.url):
            options = sending(question.query, question.body)
            async with self._http.stream(question.method, question.path, **options) as answer:
                async for piece in answer.aiter_bytes():
                    append(data, piece, where)
        return checked(answer.status_code, bytes(data), where)
