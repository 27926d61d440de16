"""A chain on which a model can be asked, and validators that say what a test wants."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from vm.world import World

from mlchain.consensus.work.answers import Answer, Commitment, answer_digest, commitment_hash
from mlchain.crypto import digest
from mlchain.ledger.block import Receipt
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.unixfs import cid_of
from mlchain.vm.families.models import RegisterModel
from mlchain.vm.families.predictions import PREDICTIONS, Prediction, RequestPrediction

MODEL = b"\x01\x55\x12\x20" + digest("test-model")
RIGHT, WRONG = b'["benign"]', b'["malignant"]'
ASK = RequestPrediction(MODEL, b"[1,2,3,4]", b"", 1, False, "replicated", 100, 40)
Said = dict[str, bytes]


class Scene:
    """A chain on which a model of four features is held by all."""

    def __init__(self, validators: int = 4, genesis: Genesis | None = None) -> None:
        self.world = World(validators, genesis=genesis)
        self.world.do(
            "alice",
            RegisterModel("cancer", MODEL, 99, 4, 2, "class", 5_000, b"", b"", b"", "MIT"),
        )
        for name in self.world.validators:
            self.world.announce(name, MODEL)
        self.world.blocks(2)

    def ask(self, **changes: Any) -> Receipt:
        return self.world.do("alice", replace(ASK, **changes))

    def asked(self, **changes: Any) -> bytes:
        receipt = self.ask(**changes)
        assert receipt.code == "ok", receipt.message
        return receipt.transaction

    def at(self, request: bytes) -> Prediction:
        found = PREDICTIONS.get(self.world.state(), request)
        assert found is not None
        return found

    def salt(self, name: str) -> bytes:
        return digest("test-salt", name.encode())

    def bind(self, request: bytes, said: Said) -> None:
        """Put commitments on chain: two blocks, and the second fixes who is bound if all are."""
        for name, value in said.items():
            key = self.world.key(name).public
            hashed = answer_digest(0, cid_of(value))
            made = commitment_hash(request, key, self.salt(name), hashed)
            self.world.say(name, "commitments", Commitment(request, made))
        self.world.blocks(2)

    def tell(self, request: bytes, said: Said) -> None:
        for name, value in said.items():
            shown = value if len(value) <= 64 else b""
            answer = Answer(request, self.salt(name), 0, cid_of(value), shown)
            self.world.say(name, "answers", answer)
        self.world.blocks(2)

    def answer(self, request: bytes, said: Said) -> Prediction:
        self.bind(request, said)
        self.tell(request, said)
        return self.at(request)

    def all_say(self, value: bytes, **others: bytes) -> Said:
        return {name: others.get(name.replace("-", "_"), value) for name in self.world.validators}
