"""A client of one node's HTTP API: reads, signed transactions, and waits that explain themselves.

The node is trusted with little: transactions are signed on this side, content is compared with its
id, and a receipt carries its own proof.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from mlchain import codec
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
    rows_of,
    sending,
    streaming,
)
from mlchain.client.progress import (
    FINAL_STATES,
    describe_job,
    require_settled,
)
from mlchain.consensus.light import MAX_PATH_BYTES, LightPath, LightQuestion, StateAnswer
from mlchain.crypto import SecretKey
from mlchain.errors import (
    CodecError,
    VerificationFailed,
)
from mlchain.ledger import unixfs
from mlchain.ledger.pages import MAX_PAGE_BYTES, BlockPage
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.vm.context import Payload
from mlchain.vm.gas import intrinsic_gas

MAX_LIGHT_BYTES = 2 * MAX_PATH_BYTES

ENVELOPE_BYTES = 512
"""Most bytes that the body around a payload, and its signature, add to a transaction."""
EXECUTION_GAS = 200_000
"""Gas most requests stay far below; what is not used is not charged."""


class Client:
    """One node, over HTTP. Close it, or use it as a context manager.

    `timeout_s` bounds one request, `poll_s` is the pause between two questions while waiting.

    Every method raises `Unreachable` when nobody answers, `NotFound`, or `Rejected` with the
    node's own words.
    """

    def __init__(
        self, url: str = DEFAULT_URL, *, timeout_s: float = 10.0, poll_s: float = 0.3
    ) -> None:
        self.url = url.rstrip("/")
        self.poll_s, self.timeout_s = poll_s, timeout_s
        with reaching(url):
            self._http = httpx.Client(**connection(self.url, timeout_s))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def http(self) -> httpx.Client:
        """The connections, for whoever streams files over them."""
        return self._http

    # Reading

    def status(self) -> Json:
        """Return what the node knows: chain id, head, peers, validators, mempool."""
        return self._object("/v1/status")

    def account(self, account: str) -> Json:
        """Return `balance` (micro-credits) and `nonce` of an address or hex key."""
        return self._object(f"/v1/accounts/{account}")

    def transaction(self, identity: str) -> Json:
        """Return where a transaction stands: pending, included (with code), replaced or unknown."""
        return self._object(f"/v1/txs/{identity}")

    def jobs(self, state: str = "", limit: int = 50) -> list[Json]:
        """Return the newest jobs, all or those in one state."""
        query: Query = {"limit": limit} | ({"state": state} if state else {})
        return rows_of(self._json("/v1/jobs", query), "jobs")

    def job(self, identity: str) -> Json:
        """Return one job by its id or a unique beginning of it."""
        return self._object(f"/v1/jobs/{identity}")

    def receipt(self, identity: str) -> bytes:
        """Return the receipt of a settled job: everything needed to check it offline."""
        return self._request("GET", f"/v1/jobs/{identity}/receipt")

    def light_path(self, question: LightQuestion) -> LightPath:
        """Return certified headers that lead to a block (`client.light` judges them)."""
        query: Query = {"after": question.after, "height": question.height}
        data = self._request("GET", "/v1/light", query)
        return codec.decode(LightPath, data, MAX_LIGHT_BYTES)

    def block_page(self, after: int) -> BlockPage:
        """Return whole blocks after height `after`; nothing of them is checked yet."""
        data = self._request("GET", "/v1/chain", {"after": after})
        return codec.decode(BlockPage, data, MAX_PAGE_BYTES)

    def prove(self, key: bytes) -> StateAnswer:
        """Return the value of a state key with its proof (`client.light` judges it)."""
        data = self._request("GET", f"/v1/state/{key.hex()}")
        return codec.decode(StateAnswer, data, MAX_LIGHT_BYTES)

    def frauds(self, identity: str) -> list[Json]:
        """Return which fraud files the node made about a job: segment, attempt and chunk."""
        return rows_of(self._json(f"/v1/jobs/{identity}/fraud"), "files")

    def fraud(self, identity: str, segment: int, attempt: int, chunk: int) -> bytes:
        """Return one fraud file."""
        return self._request("GET", f"/v1/jobs/{identity}/fraud/{segment}/{attempt}/{chunk}")

    def model(self, identity: str) -> bytes:
        """Return the trained model of a settled job."""
        return self._request("GET", f"/v1/jobs/{identity}/model")

    def registry(self, limit: int = 50) -> list[Json]:
        """Return the last version of each registered name."""
        return rows_of(self._json("/v1/registry", {"limit": limit}), "models")

    def registered(self, model: str) -> Json:
        """Return a registered model by NAME, NAME@VERSION or content id."""
        return self._object(f"/v1/registry/{quote(model, safe='@')}")

    def prediction(self, identity: str, wait_s: float = 0) -> Json:
        """Return a request and its answer; waits on the node's side for at most `wait_s`."""
        path = (
            f"/v1/predictions/{identity}?wait={wait_s:g}"
            if wait_s
            else "/v1/predictions/" + identity
        )
        return self._object(path)

    def prediction_receipt(self, identity: str) -> bytes:
        """Return the receipt of an answer: everything needed to check it offline."""
        return self._request("GET", f"/v1/predictions/{identity}/receipt")

    def data(self, content_id: str) -> bytes:
        """Return content by its id, compared with it.

        Raises:
            VerificationFailed: the node sent other bytes.
        """
        data = self._request("GET", f"/v1/data/{content_id}")
        if not unixfs.find_profile(unixfs.parse_cid(content_id), data):
            raise VerificationFailed(f"{self.url} sent other bytes than {content_id} names")
        return data

    def data_info(self, content_id: str) -> Json:
        """Return what the node knows of a content id: size, profile, whether it is whole."""
        unixfs.parse_cid(content_id)
        return self._object(f"/v1/data/{content_id}/info")

    def holders(self, content_id: str) -> Json:
        """Return which validators hold a dataset: `registered`, `available`, and their names."""
        unixfs.parse_cid(content_id)
        return self._object(f"/v1/data/{content_id}/holders")

    def draws(self, content_id: str) -> list[Json]:
        """Return the draws of partitions of a dataset, the latest first."""
        unixfs.parse_cid(content_id)
        return rows_of(self._json(f"/v1/data/{content_id}/draws"), "draws")

    def draw(self, identity: str) -> Json:
        """Return a draw: `state`, `seed`, the `named` parts and `merges`."""
        return self._object(f"/v1/draws/{identity}")

    def data_files(self, limit: int = 50, before: int | None = None) -> Json:
        """Return files that our own node keeps, newest first, `used` bytes and `quota`.

        `before` of the answer, if it is not None, asks for those that come after them.
        """
        query = f"?limit={limit}" + ("" if before is None else f"&before={before}")
        return self._object("/v1/content" + query)

    def pin_data(self, content_id: str, is_wanted: bool = True) -> Json:
        """Have our own node fetch and keep a file, or let it go."""
        unixfs.parse_cid(content_id)
        verb = "pin" if is_wanted else "unpin"
        return self._object(f"/v1/data/{content_id}/{verb}", "POST", b"")

    def collect_data(self) -> Json:
        """Have our own node remove what nobody needs: `freed` and `used` bytes."""
        return self._object("/v1/content/collect", "POST", b"")

    def set_log_level(self, level: str) -> None:
        """Have our own node log from `level` on: debug, info, warning or error."""
        self._object(f"/v1/node/log-level?level={level}", "POST", b"")

    def stop_node(self) -> None:
        """Have our own node end."""
        self._object("/v1/node/stop", "POST", b"")

    def governance(self) -> Json:
        """Return epoch, parameters, rules, members and proposals."""
        return self._object("/v1/governance")

    def validators(self) -> list[Json]:
        """Return the members that vote."""
        return rows_of(self._json("/v1/validators"), "validators")

    def blocks(self, before: int | None = None, limit: int = 20) -> list[Json]:
        """Return blocks, newest first, below height `before`."""
        query: dict[str, str | int] = {"limit": limit}
        if before is not None:
            query["before"] = before
        return rows_of(self._json("/v1/blocks", query), "blocks")

    def block(self, height: int) -> Json:
        """Return one block."""
        return self._object(f"/v1/blocks/{height}")

    def genesis(self) -> str:
        """Return the text of the chain's genesis file."""
        return self._request("GET", "/v1/genesis").decode("utf-8", "replace")

    # Writing

    def put_data(self, data: bytes) -> str:
        """Store content at the node and return its id, which is computed here.

        Raises:
            VerificationFailed: the node computes another one.
        """
        ours = unixfs.cid_text(unixfs.cid_of(data))
        theirs = self._object("/v1/data", "POST", data)["cid"]
        if theirs != ours:
            raise VerificationFailed(f"the node names the data {theirs}, its bytes are {ours}")
        return ours

    def post_transaction(self, data: bytes) -> str:
        """Hand in an encoded transaction and return its id.

        Raises:
            Rejected: it can never be included as it is.
        """
        return str(self._object("/v1/txs", "POST", data)["id"])

    def send(
        self,
        payload: Payload,
        key: SecretKey,
        *,
        gas: int = EXECUTION_GAS,
        gas_price: int = 1,
        nonce: int | None = None,
    ) -> str:
        """Sign `payload`, hand it in, and return the transaction's id.

        `gas` is what its execution may use beyond the cost of its bytes; the rest is not charged.
        Without `nonce` the account's next one is asked for: wait for one transaction before the
        next, or count on.
        """
        body = self.prepare(payload, key.public, gas=gas, gas_price=gas_price, nonce=nonce)
        return self.post_transaction(codec.encode(sign_transaction(body, key)))

    def prepare(
        self,
        payload: Payload,
        sender: bytes,
        *,
        gas: int = EXECUTION_GAS,
        gas_price: int = 1,
        nonce: int | None = None,
    ) -> TransactionBody:
        """Return what `sender` has to sign to send `payload`; the arguments are those of `send`."""
        data = codec.encode(payload)
        if nonce is None:
            nonce = int(self.account(sender.hex())["nonce"])
        return TransactionBody(
            chain_id=str(self.status()["chain_id"]),
            sender=sender,
            nonce=nonce,
            gas_limit=intrinsic_gas(len(data) + ENVELOPE_BYTES) + gas,
            gas_price=gas_price,
            kind=payload.KIND,
            payload=data,
        )

    # Waiting

    def wait(self, identity: str, timeout_s: float = 30.0, notify: Notify | None = None) -> Json:
        """Return the transaction once a block includes it.

        Raises:
            Rejected: included, but it failed; says why.
            Timeout: not included in time; it may be later.
        """
        watch = Watch(timeout_s)
        while not is_included(found := self.transaction(identity)):
            waiting = describe_wait(identity, self.status())
            watch.require_time(f"waited {timeout_s:g} s for {waiting}", "mlchain status")
            if notify is not None:
                notify(f"waiting for {waiting}")
            time.sleep(self.poll_s)
        return found

    def follow(
        self, identity: str, patience_s: float = 120.0, notify: Notify | None = None
    ) -> Iterator[Json]:
        """Yield the job at first and after each change, until it is final.

        Final are settled, trapped and expired; the caller reads `state`.

        Raises:
            Timeout: nothing changed for `patience_s`; the job goes on without us.
        """
        watch = Watch(patience_s)
        while True:
            job = self.job(identity)
            if watch.is_new(job):
                yield job
            if job["state"] in FINAL_STATES:
                return
            watch.require_time(*describe_silence(job, self.status(), patience_s))
            if notify is not None:
                notify(describe_job(job))
            time.sleep(self.poll_s)

    def wait_for_job(
        self, identity: str, patience_s: float = 120.0, notify: Notify | None = None
    ) -> Json:
        """Return the job once it is settled.

        Raises:
            Rejected: it ended without a model.
            Timeout: nothing changed for `patience_s`; the job goes on without us.
        """
        job: Json = {}
        for found in self.follow(identity, patience_s, notify):
            job = found
        require_settled(job)
        return job

    def events(self, after: int | None = None, silence_s: float = SILENCE_S) -> Iterator[Event]:
        """Yield blocks as they become final, and what each did to jobs, until it is closed.

        Begins after block `after`, or now. A connection that breaks is opened again where it was.

        Raises:
            Unreachable: it cannot be opened, or nothing came for `silence_s`; nodes send something
                every 15 s.
        """
        reader = EventReader(after)
        while True:
            with (
                reaching(self.url),
                self._http.stream("GET", STREAM, **streaming(reader, silence_s)) as answer,
            ):
                if answer.status_code >= 300:
                    raise problem_error(answer.status_code, answer.read(), self.url + STREAM)
                reader.begin()
                for piece in answer.iter_bytes():
                    yield from reader.take(piece)

    # One request

    def _json(
        self, path: str, query: Query = None, method: str = "GET", body: bytes | None = None
    ) -> Any:
        data = self._request(method, path, query, body)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._foreign(path) from error

    def _object(self, path: str, method: str = "GET", body: bytes | None = None) -> Json:
        answer = self._json(path, None, method, body)
        if not isinstance(answer, dict):
            raise self._foreign(path)
        return answer

    def _foreign(self, path: str) -> CodecError:
        message = f"{self.url}{path} answered something else than a JSON document"
        return CodecError(message, "is this an mlchain node?")

    def _request(
        self, method: str, path: str, query: Query = None, body: bytes | None = None
    ) -> bytes:
        data = bytearray()
        with (
            reaching(self.url),
            self._http.stream(method, path, **sending(query, body)) as answer,
        ):
            for piece in answer.iter_bytes():
                append(data, piece, self.url + path)
        return checked(answer.status_code, bytes(data), self.url + path)
