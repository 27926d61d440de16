"""The load of `ledger.py`: signed transfers at a fixed rate, and when each was seen to be final.

It runs as a process of its own, so that it neither slows a node nor hides in one's figures. The
load is open: a transaction has its moment in advance, and its latency counts from then, so a node
that makes the sender wait is charged for the wait.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from dataclasses import dataclass

from mlchain import codec, crypto
from mlchain.ledger.transaction import TransactionBody, sign_transaction, transaction_id
from mlchain.vm.families.accounts import Transfer

GAS = 200_000
BATCH = 500
TICK_S = 0.02
"""A sender collects what is due this often: a client library would do no less."""
HEADERS = {"content-type": "application/octet-stream"}


def account(index: int) -> crypto.SecretKey:
    """Return the key of a benchmark account; worth nothing outside of it."""
    return crypto.SecretKey(crypto.digest("mlchain/bench-account", index.to_bytes(8, "big")))


class Accounts:
    """Pre-signed transfers of many accounts in turn; each account is bound to one node."""

    def __init__(self, chain_id: str, count: int) -> None:
        self._chain_id = chain_id
        self._keys = [account(i) for i in range(count)]
        self._sent = 0

    def sign(self, count: int) -> list[bytes]:
        """Return the next transfers; number i belongs to node i modulo the nodes."""
        many = len(self._keys)
        signed = []
        for number in range(self._sent, self._sent + count):
            key, to = self._keys[number % many], self._keys[(number * 7 + 1) % many]
            body = TransactionBody(
                chain_id=self._chain_id,
                sender=key.public,
                nonce=number // many,
                gas_limit=GAS,
                gas_price=1,
                kind=Transfer.KIND,
                payload=codec.encode(Transfer(to.public, 1)),
            )
            signed.append(codec.encode(sign_transaction(body, key)))
        self._sent += count
        return signed


class Watcher(threading.Thread):
    """Notes when each block is seen on a node's stream."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._http = http.client.HTTPConnection("127.0.0.1", port)
        self.seen: dict[int, float] = {}
        self.counts: dict[int, int] = {}
        self.finalised = 0
        self.start()

    def run(self) -> None:
        """Read events for ever."""
        self._http.request("GET", "/v1/stream")
        for line in self._http.getresponse():
            if line.startswith(b'data: {"height"'):
                now, row = time.monotonic(), json.loads(line[6:])
                self.seen[row["height"]] = now
                self.counts[row["height"]] = row["transactions"]
                self.finalised += row["transactions"]


@dataclass
class Sender:
    """Sends its share of the transactions to one node, over one connection."""

    port: int
    transactions: list[bytes]
    due: list[float]

    def run(self) -> None:
        """Send everything, each when it is due or as soon after as the node takes it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        at = 0
        while at < len(self.due):
            now = time.monotonic()
            end = at
            while end < len(self.due) and self.due[end] <= now and end - at < BATCH:
                end += 1
            if end == at:
                time.sleep(max(self.due[at] - now, TICK_S))
                continue
            post(connection, self.transactions[at:end])
            at = end
        connection.close()


def post(connection: http.client.HTTPConnection, transactions: list[bytes]) -> None:
    """Hand in some transactions; a refusal ends the benchmark, which makes only good ones."""
    if len(transactions) == 1:
        connection.request("POST", "/v1/txs", transactions[0], HEADERS)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"refused: {body!r}")
        return
    connection.request("POST", "/v1/txs/batch", codec.encode(tuple(transactions)), HEADERS)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200 or b'"error"' in body:
        raise SystemExit(f"refused: {body[:500]!r}")


def run_step(
    accounts: Accounts,
    ports: list[int],
    watcher: Watcher,
    rate: int,
    seconds: float,
    drain_s: float,
) -> tuple[dict[str, float], Offered]:
    """Offer `rate` transfers a second and return what became of them."""
    nodes = len(ports)
    transactions = accounts.sign(int(rate * seconds))
    first_block, done_before = max(watcher.seen, default=0), watcher.finalised
    start = time.monotonic() + 0.1
    due = [start + i / rate for i in range(len(transactions))]
    senders = [Sender(p, transactions[i::nodes], due[i::nodes]) for i, p in enumerate(ports)]
    threads = [threading.Thread(target=sender.run) for sender in senders]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, start + seconds - time.monotonic()))
    in_window = watcher.finalised - done_before
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + drain_s
    while watcher.finalised - done_before < len(transactions) and time.monotonic() < deadline:
        time.sleep(0.05)
    blocks = sorted(h for h in watcher.seen if h > first_block)
    times = [watcher.seen[h] for h in blocks if watcher.seen[h] <= start + seconds]
    return {
        "offered": rate,
        "sent": len(transactions),
        "included": watcher.finalised - done_before,
        "per_s": in_window / seconds,
        "interval_ms": 1e3 * (times[-1] - times[0]) / max(1, len(times) - 1) if times else 0.0,
    }, Offered(blocks, transactions, due)


@dataclass
class Offered:
    """What a step offered, and the blocks that came of it."""

    blocks: list[int]
    transactions: list[bytes]
    due: list[float]


def find_latencies(port: int, watcher: Watcher, offered: Offered) -> dict[str, float]:
    """Return how long transfers took from due to seen.

    Asking the node which block each is in costs it CPU of its own, so it is a step of its own.
    """
    rows = zip(offered.transactions, offered.due, strict=True)
    when = {transaction_id(data): at for data, at in rows}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    found = []
    for height in offered.blocks:
        if watcher.counts[height]:
            connection.request("GET", f"/v1/blocks/{height}")
            rows = json.loads(connection.getresponse().read())["transactions"]
            assert all(row["code"] == "ok" for row in rows), "transfers succeed"
            found += [watcher.seen[height] - when[bytes.fromhex(row["id"])] for row in rows]
    connection.close()
    found.sort()
    return {"p50_ms": _percentile(found, 0.50) * 1e3, "p99_ms": _percentile(found, 0.99) * 1e3}


def _percentile(sorted_values: list[float], share: float) -> float:
    if not sorted_values:
        return float("nan")
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def main() -> None:
    """Read {chain, ports, accounts} on the first line, then steps; answer each with JSON.

    A step is {rate, seconds, drain_s}, or {} to be told the latencies of the last one.
    """
    setting = json.loads(sys.stdin.readline())
    accounts = Accounts(setting["chain"], setting["accounts"])
    watcher = Watcher(setting["ports"][-1])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        step = json.loads(line)
        if step:
            result, offered = run_step(
                accounts, setting["ports"], watcher, step["rate"], step["seconds"], step["drain_s"]
            )
        else:
            result = find_latencies(setting["ports"][-1], watcher, offered)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
