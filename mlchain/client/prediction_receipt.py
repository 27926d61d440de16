"""Checking a prediction's receipt offline: the chain's part as of a job, then the answer, again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mlchain import codec
from mlchain.client.accusation import begins_with
from mlchain.client.checks import (
    FindFile,
    Standing,
    check_certificate,
    check_genesis_hash,
    check_validators,
    require,
    require_proven,
)
from mlchain.client.receipt import Check, run_checks
from mlchain.client.userfile import read_file
from mlchain.errors import (
    CodecError,
    NotFound,
    VerificationFailed,
)
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.unixfs import cid_of, cid_text
from mlchain.ml_runtime.serving import Outcome, answer_rows, evaluate_rows, load_predictor
from mlchain.vm.families.models import MODEL_FILES
from mlchain.vm.families.predictions import PREDICTIONS, Prediction, PredictionState
from mlchain.vm.prediction_receipt import KIND, PredictionReceipt
from mlchain.vm.receipt import MAX_RECEIPT_BYTES

HEAD = b"\x99" + bytes([0xA0 | len(KIND)]) + KIND.encode()
"""How the canonical bytes begin: a record of 9 fields, the first its kind."""


def is_prediction_receipt(path: Path) -> bool:
    """Tell whether a file claims to be a prediction's receipt, by how it begins.

    Raises:
        ConfigError: it cannot be read.
    """
    return begins_with(path, HEAD)


def read_prediction_receipt(path: Path) -> PredictionReceipt:
    """Return the receipt in a file.

    Raises:
        ConfigError: it cannot be read.
        VerificationFailed: it is not such a receipt.
    """
    try:
        data = read_file(path, MAX_RECEIPT_BYTES, "name a receipt file")
        return codec.decode(PredictionReceipt, data, MAX_RECEIPT_BYTES)
    except CodecError as error:
        raise VerificationFailed(f"{path} is not a receipt: {error.message}") from error


class PredictionAudit(Standing):
    """One receipt under examination."""

    def __init__(self, receipt: PredictionReceipt, genesis: Genesis, find_file: FindFile) -> None:
        super().__init__(receipt, genesis)
        self.receipt = receipt
        self._find_file = find_file
        self._files = {file.content: file.data for file in receipt.files}

    @property
    def prediction(self) -> Prediction:
        """The request's record."""
        return codec.decode(Prediction, self.receipt.prediction.value)

    def need(self, content: bytes, what: str) -> bytes:
        """Return a file from the receipt or from beside it, compared with its id.

        Raises:
            NotFound: it is nowhere.
        """
        data = self._files.get(content) or self._find_file(content)
        if data is None:
            raise NotFound(
                f"{what} {cid_text(content)} is not in the receipt",
                "fetch it from any node (/v1/data/…) into a folder, and give --data FOLDER",
            )
        require(cid_of(data) == content, f"other bytes than {cid_text(content)} names")
        return data


def check_records(audit: PredictionAudit) -> str:
    """Request and model stand in the state of that block."""
    receipt = audit.receipt
    require_proven(audit, PREDICTIONS.key(receipt.request), receipt.prediction)
    require_proven(audit, MODEL_FILES.key(audit.prediction.model), receipt.model)
    return f"2 records proven under root {receipt.header.state_root.hex()[:16]}"


def check_answer(audit: PredictionAudit) -> str:
    """The chain has recorded an answer, and who gave it."""
    found = audit.prediction
    require(found.state == PredictionState.ANSWERED, "the request has no answer")
    same = [t for t in found.told if (t.outcome, t.content) == (found.outcome, found.content)]
    require(bool(same), "nobody gave the answer that is recorded")
    outcome = Outcome(found.outcome).name.lower().replace("_", " ")
    return (
        f"{outcome}, told alike by {len(same)} of {len(found.told)} validators, tier {found.tier}"
    )


def check_again(audit: PredictionAudit) -> str:
    """Computing the answer here gives the same bytes."""
    found = audit.prediction
    predictor = load_predictor(audit.need(found.model, "the model"))
    rows = audit.need(found.data, "the data")
    ask = evaluate_rows if found.is_evaluation else answer_rows
    outcome, answer = ask(predictor, rows, found.rows)
    content = cid_of(answer) if outcome == Outcome.ANSWERED else b""
    require(
        (int(outcome), content) == (found.outcome, found.content),
        f"the receipt says {found.content.hex()[8:24]}, computing gives {content.hex()[8:24]}",
    )
    return f"{found.rows} rows computed here: every byte of the answer equal"


CHECKS: tuple[tuple[str, Callable[[PredictionAudit], str]], ...] = (
    ("genesis", check_genesis_hash),
    ("validators", check_validators),
    ("certificate", check_certificate),
    ("state", check_records),
    ("answer", check_answer),
    ("re-run", check_again),
)
"""Name and check, in the order in which they rest on each other."""


def verify_prediction_receipt(
    receipt: PredictionReceipt,
    genesis: Genesis,
    find_file: FindFile = lambda content: None,
    on_check: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """Check everything a receipt claims; the first check that fails is the last of the list.

    Raises:
        NotFound: the receipt was made without a file that is needed, and `find_file` lacks it.
        GenesisError: this installation computes by other tables than the chain.
    """
    return run_checks(CHECKS, PredictionAudit(receipt, genesis, find_file), on_check)
