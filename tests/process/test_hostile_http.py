"""HTTP clients that mean no good: answers stay clear, the node stays up and small."""

import json
import random
import socket
import threading
import time

import httpx
import pytest
from process_network import Network, sender_key, until
from spoil import spoilt

from mlchain import codec
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.ledger.unixfs import cid_of, cid_text
from mlchain.vm.families.accounts import Transfer
from mlchain.web.data_routes import MAX_UPLOADS

NAME = "validator-1"
MAX_GROWTH_BYTES = 120 << 20
OCTETS = {"content-type": "application/octet-stream"}
JUNK = ["", "%00", "..%2f..%2fetc%2fpasswd", "-1", "9" * 40, "0x10", "é", "a" * 3000, "%ff%fe", "*"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    network = Network(tmp_path_factory.mktemp("net"), 1, 1)
    try:
        network.start(NAME)
        network.wait_ready(NAME)
        yield network
    finally:
        network.stop()


@pytest.fixture
def http(network):
    """A client of the node; afterwards the node answers, makes blocks, and met no bug."""
    before = network.resident_bytes(NAME)
    with httpx.Client(base_url=network.plans[NAME].url, timeout=60, trust_env=False) as client:
        yield client
    assert network.alive == [NAME]
    key, node = sender_key(0), network.client(NAME)
    nonce = int(node.account(key.public.hex())["nonce"])
    identity = node.send(Transfer(bytes(32), 1), key, nonce=nonce)
    until(lambda: node.transaction(identity)["state"] == "included", "a transfer")
    assert network.resident_bytes(NAME) - before < MAX_GROWTH_BYTES
    assert "Traceback" not in network.log(NAME), network.log(NAME)[-4000:]


def check(answer: httpx.Response) -> None:
    """An answer is good, or a problem that says in words what is wrong."""
    assert answer.status_code < 500, (answer.request.url, answer.text[:300])
    if answer.status_code >= 400:
        problem = json.loads(answer.text)
        assert problem["status"] == answer.status_code and problem["detail"], answer.text[:300]


def paths(http) -> list[str]:
    return list(http.get("/openapi.json").json()["paths"])


def test_bad_ids_in_every_path_are_refused_in_words(http):
    for path in paths(http):
        for junk in JUNK if "{" in path else []:
            name = path[path.index("{") : path.index("}") + 1]
            check(http.get(path.replace(name, junk)))
    for query in ("limit=0", "limit=-1", "limit=1e9", "before=x", "limit=" + "9" * 50, "state=%00"):
        check(http.get(f"/v1/blocks?{query}"))
        check(http.get(f"/v1/jobs?{query}"))
    check(http.get("/v1/jobs?state=none-such"))
    for header in ("-1", "x", "9" * 40):
        check(http.get("/v1/stream", headers={"last-event-id": header}))


def test_methods_that_do_not_belong_are_refused(http):
    for path in paths(http):
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"):
            answer = http.request(method, path)
            assert answer.status_code in (404, 405), (method, path, answer.status_code)


def transactions(network) -> list[bytes]:
    key = sender_key(1)
    body = TransactionBody(
        network.genesis.chain_id, key.public, 0, 10**6, 1, Transfer.KIND,
        codec.encode(Transfer(bytes(32), 1)),
    )  # fmt: skip
    return [codec.encode(sign_transaction(body, key))]


def test_spoilt_transactions_are_refused_in_words(http, network):
    for data in [b"", *spoilt(5, transactions(network), 150)]:
        check(http.post("/v1/txs", content=data, headers=OCTETS))
    check(http.post("/v1/txs", content=bytes(20 << 20), headers=OCTETS))
    for kind in ("", "text/plain", "application/json", "multipart/form-data; boundary=x"):
        answer = http.post("/v1/txs", content=b"x", headers={"content-type": kind})
        assert answer.status_code == 415


def test_any_bytes_may_be_stored_and_come_back(http):
    draw = random.Random(6)
    for size in (0, 1, 262_144, 262_145, 2_000_000):
        data = draw.randbytes(size)
        answer = http.post("/v1/data", content=data, headers=OCTETS)
        assert answer.json()["cid"] == cid_text(cid_of(data))
        assert http.get(f"/v1/data/{answer.json()['cid']}").content == data


RAW = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /v1/status HTTP/9.9\r\nhost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    b"POST /v1/txs HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
    b"POST /v1/txs HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\nabc",
    b"POST /v1/data HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n"
    b"content-length: 999999999999\r\n\r\nabc",
    b"POST /v1/data HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n"
    b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
    b"POST /v1/txs HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 7\r\n\r\nabc",
    b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\n" + b"x: " + b"y" * 300_000 + b"\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nhttp2-settings: \xff\xff\r\n"
    b"connection: upgrade, http2-settings\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nhttp2-settings: A\r\n"
    b"connection: upgrade, http2-settings\r\n\r\n",
    b"GET /v1/stream HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n",
]


def connect(network: Network) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.plans[NAME].http_port), timeout=10)


def test_what_is_not_http_is_refused_or_cut_off(http, network):
    draw = random.Random(7)
    for data in [*RAW, *(draw.randbytes(2000) for _ in range(20))]:
        with connect(network) as stream:
            try:
                stream.sendall(data)
                stream.shutdown(socket.SHUT_WR)
                first = stream.recv(4096)
            except OSError:
                continue  # cut off while we were talking
            status = first.split(b" ")[1][:3] if first.startswith(b"HTTP/1") else b"400"
            assert not status.startswith(b"5"), (data[:60], first[:200])


def test_clients_that_say_little_for_long_do_not_keep_others_waiting(http, network):
    starts = [b"GET /v1/sta", RAW[6], RAW[7], b"POST /v1/txs HTTP/1.1\r\nhost: x\r\n"]
    slow = [connect(network) for _ in range(200)]
    try:
        for number, stream in enumerate(slow):
            stream.sendall(starts[number % len(starts)])
        for _ in range(3):
            time.sleep(0.5)
            for stream in slow:
                try:
                    stream.send(b"a")
                except OSError:
                    continue  # cut off: as good
            answer = http.get("/v1/status")
            assert answer.status_code == 200
    finally:
        for stream in slow:
            stream.close()


def test_slow_uploads_do_not_keep_others_from_uploading(http, network):
    slow = [connect(network) for _ in range(MAX_UPLOADS)]
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.5):
            for stream in slow:
                try:
                    stream.send(b"a")
                except OSError:
                    continue  # given up, as it should be

    for stream in slow:
        stream.sendall(RAW[6].replace(b"999999999999", b"1000000"))
    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        answer = http.post("/v1/data", content=b"me too", headers=OCTETS, timeout=60)
        assert answer.status_code == 200
    finally:
        stop.set()
        thread.join()
        for stream in slow:
            stream.close()
