"""A node whose chain is `GrowingChain`: what is asked for is voted on, trained and proven at once.

Blocks, transactions, state, useful work and receipts are the real ones; time, the network and the
patience of a worker are left out. So hundreds of jobs take seconds.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import factories
from factories import PARAMS, GrowingChain, make_chain
from fake_node import Answer, FakeNode, problem, serve
from msgspec.structs import replace
from receipt_forger import receipt_of

from mlchain import codec
from mlchain.client.keystore import create_key
from mlchain.errors import MlchainError
from mlchain.ledger.content import cid_text, parse_cid
from mlchain.ledger.genesis import dump_genesis
from mlchain.ledger.transaction import transaction_id
from mlchain.vm.families.jobs import JobState
from mlchain.vm.families.models import MODELS


class ChainNode(FakeNode):
    """Answers what the client asks for jobs; the rest from `routes`, as any fake node."""

    def __init__(self, chain: GrowingChain) -> None:
        super().__init__()
        self.chain = chain
        self._turn = threading.Lock()

    def answer(self, route: str, body: bytes) -> Answer:
        if route.split("?")[0] in self.routes:
            return super().answer(route, body)
        with self._turn:
            method, _, path = route.partition(" /v1/")
            try:
                found = self._find(method, path.split("?")[0].split("/"), body)
            except MlchainError as error:
                return problem(400, "rejected", error.message, error.hint)
        if found is None:
            return super().answer(route, body)
        return 200, found if isinstance(found, bytes) else json.dumps(found).encode()

    def _find(self, method: str, path: list[str], body: bytes) -> object:
        chain, store = self.chain, self.chain.store
        match method, path:
            case "GET", ["status"]:
                return {"chain_id": chain.genesis.chain_id, "height": store.head.height}
            case "GET", ["genesis"]:
                return dump_genesis(chain.genesis).encode()
            case "GET", ["accounts", key]:
                return {"nonce": chain.chain.mempool.next_nonce(bytes.fromhex(key))}
            case "POST", ["data"]:
                return {"cid": cid_text(chain.content.put(body))}
            case "GET", ["data", cid]:
                return chain.content.get(parse_cid(cid))
            case "POST", ["txs"]:
                chain.chain.add_transaction(body)
                return {"id": transaction_id(body).hex()}
            case "GET", ["txs", identity]:
                return self._transaction(bytes.fromhex(identity))
            case "GET", ["jobs", identity, *part]:
                return self._job(bytes.fromhex(identity), part)
        return None

    def _transaction(self, identity: bytes) -> object:
        place = self.chain.store.find_transaction(identity)
        if place is None:
            self.chain.grow()
            place = self.chain.store.find_transaction(identity)
        assert place, "it was in the mempool"
        receipt = self.chain.store.receipts(place[0])[place[1]]
        row = {"state": "included", "height": place[0]}
        return row | {"code": receipt.code, "message": receipt.message}

    def _job(self, identity: bytes, part: list[str]) -> object:
        chain = self.chain
        if chain.job(identity).state in (JobState.SUBMITTED, JobState.ACCEPTED):
            chain.start(identity)
            while chain.job(identity).state == JobState.RUNNING:
                chain.commit_segment(identity)
                chain.finish_segment(identity)
        if part == ["receipt"]:
            return codec.encode(receipt_of(chain, identity))
        if part == ["model"]:
            return chain.content.get(MODELS.get(chain.chain.state(), identity).content)
        job = chain.job(identity)
        state = JobState(job.state).name.lower()
        progress = {"done_chunks": job.chunks, "total_chunks": job.chunks}
        return {"id": identity.hex(), "state": state, "progress": progress}


@contextmanager
def serve_chain(folder: Path, validators: int = 1, heights: int = 1 << 13) -> Iterator[ChainNode]:
    """Serve a chain long enough for many jobs; `folder`/alice.json is who pays."""
    params = replace(PARAMS, ticket_heights=heights, max_verify_gas=10**13)
    with patch.object(factories, "PARAMS", params):
        chain = make_chain(validators, 1)
    create_key(folder / "alice.json", chain.alice, None)
    with serve(ChainNode(chain)) as node:
        yield node
