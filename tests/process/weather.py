"""What may happen to a network of processes: each fault is one class in `FAULTS`.

A fault begins, lasts, and ends; `end` undoes all of it. Faults that leave fewer validators than a
quorum say so, for nothing is decided while they last.
"""

from __future__ import annotations

import http.client
import random
import signal
import socket
import threading
import time
from urllib.parse import urlsplit

from hostile import Hostile
from process_network import sender_key, until
from soak_network import SoakNetwork

from mlchain import codec
from mlchain.client.client import Client
from mlchain.errors import MlchainError
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.vm.families.accounts import Transfer

HOUR_NS = 3600 * 10**9
FLOOD = 1_500
"""Transactions handed in by one account, without a pause."""
FLOODER = 3
"""The account that floods; the others are the clients whose transactions are followed."""


class Fault:
    """One thing that happens, to `who`."""

    name = ""
    stops_all = False

    def __init__(self, network: SoakNetwork, draw: random.Random) -> None:
        self.network, self.draw = network, draw
        self.who: list[str] = []

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        pass

    def one(self, names: list[str]) -> str:
        self.who = [self.draw.choice(names)]
        return self.who[0]


class Kill(Fault):
    """kill -9, and a start over what is on disk."""

    name = "kill"

    def begin(self) -> None:
        self.network.kill(self.one(self.network.honest))

    def end(self) -> None:
        self.network.start(*self.who)
        self.network.wait_ready(*self.who)


class KillAll(Kill):
    """All validators at one moment."""

    name = "kill-all"
    stops_all = True

    def begin(self) -> None:
        self.who = self.network.validators
        for name in self.who:
            self.network.processes[name].kill()
        for name in self.who:
            self.network.kill(name)


class Freeze(Fault):
    """The process stands still, as a machine does that swaps or is moved."""

    name = "freeze"

    def begin(self) -> None:
        self.network.processes[self.one(self.network.honest)].send_signal(signal.SIGSTOP)

    def end(self) -> None:
        self.network.processes[self.who[0]].send_signal(signal.SIGCONT)


class Clock(Fault):
    """The wall clock of one node is an hour wrong."""

    name = "clock"

    def begin(self) -> None:
        sign = self.draw.choice((-1, 1))
        self.network.shims[self.one(self.network.validators)]["clock_offset_ns"] = sign * HOUR_NS
        self.who = [f"{self.who[0]} {sign:+d} h"]

    def end(self) -> None:
        self.network.shims[self.who[0].split()[0]]["clock_offset_ns"] = 0


class SlowDisk(Fault):
    """Every sync of one node takes a while."""

    name = "slow-disk"

    def begin(self) -> None:
        delay = self.draw.choice((50, 200, 500)) * 1000
        self.network.shims[self.one(self.network.validators)]["sync_delay_us"] = delay

    def end(self) -> None:
        self.network.shims[self.who[0]]["sync_delay_us"] = 0


class FullDisk(Fault):
    """No byte is free on the disk of one validator; it has to say so and end, or live on."""

    name = "full-disk"

    def begin(self) -> None:
        self.who = [self.network.small]
        self.network.fill(self.draw.choice(("data", "wal")))

    def end(self) -> None:
        network, (name,) = self.network, self.who
        network.free()
        if network.processes[name].poll() is None:
            return
        status = network.processes.pop(name).returncode
        if status != 7 or "cannot write" not in network.log(name)[-3000:]:
            raise AssertionError(f"{name} ended with {status}:\n{network.log(name)[-1500:]}")
        network.start(name)
        network.wait_ready(name)


class Cut(Fault):
    """One node is cut off from all others."""

    name = "cut"

    def begin(self) -> None:
        self.one(self.network.validators)
        self.network.wires.cut(self.who, self.network.honest)

    def end(self) -> None:
        self.network.wires.heal()


class Halves(Cut):
    """The network falls into two parts, neither of which has a quorum."""

    name = "halves"
    stops_all = True

    def begin(self) -> None:
        names = self.network.honest
        validators = self.draw.sample(self.network.validators, len(self.network.validators) // 2)
        self.who = sorted(validators)
        self.network.wires.cut(self.who, [name for name in names if name not in self.who])


class Garbage(Fault):
    """A member with good keys says anything at all, on every way there is."""

    name = "garbage"

    def begin(self) -> None:
        self.who = [self.network.stranger]
        member = Hostile(self.network, self.network.stranger, self.draw.randrange(1 << 30))
        acts = (member.on_channels, member.in_gossip, member.against_the_framing)
        self._thread = threading.Thread(target=self._play, args=(member, acts), daemon=True)
        self._thread.start()

    def _play(self, member: Hostile, acts: tuple) -> None:
        try:
            member.play(*acts)
        except* BaseException:
            pass  # it is banned, or the node it spoke to is gone

    def end(self) -> None:
        self._thread.join(60)


class Flood(Fault):
    """More transactions than blocks can take, from one account."""

    name = "flood"

    def begin(self) -> None:
        name = self.one([name for name in self.network.alive if name != self.network.stranger])
        url = self.network.plans[name].url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, args=(url,), daemon=True)
        self._thread.start()

    def _send(self, url: str) -> None:
        key, chain_id = sender_key(FLOODER), self.network.genesis.chain_id
        payload = codec.encode(Transfer(bytes(32), 1))
        try:
            with Client(url, timeout_s=10) as client:
                first = int(client.account(key.public.hex())["nonce"])
                for nonce in range(first, first + FLOOD):
                    if self._stop.is_set():
                        return
                    body = TransactionBody(
                        chain_id, key.public, nonce, 1_000_000, 1, Transfer.KIND, payload
                    )
                    client.post_transaction(codec.encode(sign_transaction(body, key)))
        except MlchainError:
            return  # its mempool is full, or it was killed

    def end(self) -> None:
        self._stop.set()
        self._thread.join(60)


class FloodHttp(Fault):
    """Requests without end from many connections, some of them broken."""

    name = "flood-http"
    CONNECTIONS = 16

    def begin(self) -> None:
        self._stop = threading.Event()
        name = self.one(self.network.validators)
        place = urlsplit(self.network.plans[name].url)
        self._threads = [
            threading.Thread(target=self._ask, args=(place.hostname, place.port, number))
            for number in range(self.CONNECTIONS)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, host: str, port: int, number: int) -> None:
        draw = random.Random(number)
        while not self._stop.is_set():
            try:
                if draw.random() < 0.3:
                    with socket.create_connection((host, port), 2) as raw:
                        raw.sendall(draw.randbytes(200))
                    continue
                connection = http.client.HTTPConnection(host, port, timeout=2)
                path = draw.choice(("/v1/status", "/v1/blocks", "/v1/nothing", "/v1/txs"))
                connection.request(draw.choice(("GET", "POST")), path, draw.randbytes(64))
                connection.getresponse().read()
                connection.close()
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)


FAULTS: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        Kill, KillAll, Freeze, Clock, SlowDisk, FullDisk, Cut, Halves, Garbage, Flood, FloodHttp,
    )
}  # fmt: skip


def all_vote(network: SoakNetwork) -> None:
    """Wait until every validator has signed a block that was made after this call."""
    client = network.client(network.validators[0])
    looked: int | None = None  # what was decided before says nothing of now
    missing = set(network.validators)

    def signed() -> bool:
        nonlocal looked
        try:
            top = int(client.status()["height"])
            looked = top if looked is None else looked
            while looked < top:
                missing.difference_update(client.block(looked + 1)["signed_by"])
                looked += 1
        except MlchainError:
            return False
        return not missing

    until(signed, "all validators to vote", 240)
