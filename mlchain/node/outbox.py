"""Transactions this node signs for its own identities (commits of segments, claims)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.crypto import SecretKey
from mlchain.errors import MlchainError
from mlchain.ledger.genesis import CLAIM_GAS
from mlchain.ledger.transaction import TransactionBody, sign_transaction, transaction_id
from mlchain.node.chain import Chain
from mlchain.vm.context import Payload
from mlchain.vm.families.announcements import (
    Announce,
    announcement,
    find_announcement,
    ripe_height,
)
from mlchain.vm.families.custody import ClaimDigest, ShowDigest
from mlchain.vm.families.segments import CommitSegment, MakeClaim

log = structlog.get_logger("outbox")

GAS_LIMIT = 10_000_000
CLAIMS = (MakeClaim, ClaimDigest, ShowDigest)
RESPREAD_HEIGHTS = 8
"""Blocks after which a transaction that waits still is spread again. Gossip may lose it, and a node
that was behind may have refused it."""


class _Sent(NamedTuple):
    """A transaction that was spread when the chain was at `height`."""

    identity: bytes
    height: int


class Outbox:
    """Signs, admits and spreads payloads of one key, each once until it left the mempool.

    The chain takes these at gas price 0: they are the work it asked for.
    """

    def __init__(self, key: SecretKey, chain: Chain, spread: Callable[[bytes], None]) -> None:
        self._key = key
        self._chain = chain
        self._spread = spread
        self._sent: dict[Payload, _Sent] = {}

    def salt(self, payload: Payload) -> bytes:
        """Return 32 bytes that nobody guesses, always the same for a payload."""
        secret = self._key.derive(f"salts/{self._chain.genesis.chain_id}")
        return crypto.digest("mlchain/salt", secret, codec.encode(payload))

    def send_announced(self, payload: Payload) -> None:
        """Announce what pays its finder, and send it once that is old enough.

        Call again until it is done.
        """
        state, validators = self._chain.state(), self._chain.validators
        announced = find_announcement(state, self._key.public, payload)
        if announced is None:
            self.send(Announce(announcement(self._key.public, payload)))
        elif self._chain.height + 1 >= ripe_height(state, validators, announced):
            self.send(replace(payload, announced=announced))

    def send(self, payload: Payload) -> None:
        """Send `payload`, unless it waits in the mempool already; call again until it is done.

        A commit that the next block has no room for is not sent yet: it would fail, and what comes
        after it is not to stand behind it.
        """
        block = self._chain.next_block(self._chain.state())
        if isinstance(payload, CommitSegment) and payload.has_to_wait(block):
            return
        before = self._sent.get(payload)
        waiting = self._chain.mempool.get(before.identity) if before else None
        if before and waiting is not None:
            if self._chain.height >= before.height + RESPREAD_HEIGHTS:
                self._sent[payload] = before._replace(height=self._chain.height)
                self._spread(waiting)
            return
        nonce = self._chain.mempool.next_nonce(self._key.public)
        body = TransactionBody(
            self._chain.genesis.chain_id, self._key.public, nonce,
            CLAIM_GAS if isinstance(payload, CLAIMS) else GAS_LIMIT, 0,
            payload.KIND, codec.encode(payload),
        )  # fmt: skip
        data = codec.encode(sign_transaction(body, self._key))
        try:
            self._chain.add_transaction(data)
        except MlchainError as error:
            log.warning("not-admitted", kind=type(payload).__name__, reason=error.message)
            return
        self._sent[payload] = _Sent(transaction_id(data), self._chain.height)
        if len(self._sent) > 256:
            del self._sent[next(iter(self._sent))]
        self._spread(data)
