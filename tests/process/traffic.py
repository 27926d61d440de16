"""Signed transfers from several senders, without a pause, over whichever nodes run."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from process_network import sender_key

from mlchain import codec
from mlchain.client.client import Client
from mlchain.crypto import SecretKey
from mlchain.errors import MlchainError, Rejected, Timeout, Unreachable
from mlchain.ledger.transaction import TransactionBody, sign_transaction, transaction_id
from mlchain.vm.families.accounts import TRANSFER_GAS, Transfer
from mlchain.vm.gas import intrinsic_gas

RESEND_S = 3.0
"""A transaction that is in no block after this time is handed to another node: the mempool of a
node that was killed is lost with it."""
WINDOW = 8
"""Transactions of one sender on their way at one time."""
PAUSE_S = 0.05
GAS = intrinsic_gas(512) + TRANSFER_GAS


@dataclass
class Sender:
    """One account that sends for as long as it is told to."""

    number: int
    chain_id: str
    urls: Callable[[], list[str]]
    acknowledged: dict[bytes, int] = field(default_factory=dict)
    """Ids of transactions that some node took, with their nonces."""
    final: int = 0
    """Nonces below this were seen in the state of some node."""
    included: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """Ids that a node said are final, with height and place in the block: never to change."""
    refused: Counter[str] = field(default_factory=Counter)
    waits: list[tuple[float, float]] = field(default_factory=list)
    """When a transaction was first handed in, and the seconds until it was final."""

    def __post_init__(self) -> None:
        self._key: SecretKey = sender_key(self.number)
        self._draw = random.Random(self.number)
        self._waiting: deque[tuple[int, bytes, float]] = deque()
        self._next = 0
        self._since: dict[bytes, float] = {}
        self.handed_in: set[bytes] = set()

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.step(is_sending=True)
        deadline = time.monotonic() + 120
        while self._waiting and time.monotonic() < deadline:
            self.step(is_sending=False)

    def step(self, is_sending: bool) -> None:
        """Hand in what is due, at one node that answers, and see what became final."""
        urls = self.urls()
        if not urls:
            time.sleep(PAUSE_S)
            return
        try:
            with Client(self._draw.choice(urls), timeout_s=5) as client:
                self._look(client)
                self._resend(client)
                if is_sending and len(self._waiting) < WINDOW:
                    self._send(client)
        except (Unreachable, Timeout):
            pass  # it is being killed, or stands still; the next one answers
        except Rejected as error:
            self.refused[error.message[:60]] += 1  # it is handed in again
        time.sleep(PAUSE_S)

    def _look(self, client: Client) -> None:
        nonce = int(client.account(self._key.public.hex())["nonce"])
        self.final = max(self.final, nonce)
        while self._waiting and self._waiting[0][0] < nonce:
            _, data, _ = self._waiting.popleft()
            identity = transaction_id(data)
            row = client.transaction(identity.hex())
            if row["state"] == "included":
                self.included[identity] = (int(row["height"]), int(row["index"]))
            since = self._since.pop(identity)
            self.waits.append((since, time.monotonic() - since))

    def _resend(self, client: Client) -> None:
        now = time.monotonic()
        for index, (nonce, data, since) in enumerate(self._waiting):
            if now - since > RESEND_S:
                self._waiting[index] = (nonce, data, now)
                try:
                    client.post_transaction(data)
                except Rejected:
                    continue  # in a block meanwhile
                self.acknowledged[transaction_id(data)] = nonce

    def _send(self, client: Client) -> None:
        body = TransactionBody(
            self.chain_id, self._key.public, self._next, GAS, 1, Transfer.KIND,
            codec.encode(Transfer(sender_key(250).public, 1)),
        )  # fmt: skip
        data = codec.encode(sign_transaction(body, self._key))
        nonce = self._next
        self._waiting.append((nonce, data, time.monotonic()))
        self._since[transaction_id(data)] = time.monotonic()
        self.handed_in.add(transaction_id(data))
        self._next += 1
        client.post_transaction(data)
        self.acknowledged[transaction_id(data)] = nonce


class Traffic:
    """Several senders in threads of their own."""

    def __init__(self, count: int, chain_id: str, urls: Callable[[], list[str]]) -> None:
        self.senders = [Sender(number, chain_id, urls) for number in range(count)]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(sender,), daemon=True)
            for sender in self.senders
        ]
        self.failures: list[BaseException] = []

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()

    def _run(self, sender: Sender) -> None:
        try:
            sender.run(self._stop)
        except MlchainError as error:
            self.failures.append(error)

    def finish(self) -> None:
        """Send nothing new, wait for what is on its way."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    @property
    def handed_in(self) -> set[bytes]:
        """Ids of all that was ever sent."""
        return {identity for sender in self.senders for identity in list(sender.handed_in)}

    @property
    def acknowledged(self) -> set[bytes]:
        """Ids of what any node took."""
        return {identity for sender in self.senders for identity in list(sender.acknowledged)}
