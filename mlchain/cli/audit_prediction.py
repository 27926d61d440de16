"""`mlchain audit` of a prediction's receipt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from mlchain.cli.output import Output

if TYPE_CHECKING:
    from mlchain.client.receipt import Check
    from mlchain.ledger.genesis import Genesis

NAME_WIDTH = 14


class PredictionCheck(TypedDict):
    """One thing that was checked."""

    name: str
    passed: bool
    text: str


class PredictionAuditView(TypedDict):
    """An audit of a prediction's receipt: what was checked, the answer computed again last."""

    prediction: str
    passed: bool
    checks: list[PredictionCheck]


def audit_prediction(out: Output, file: Path, genesis: Genesis, folder: Path | None) -> None:
    """Check a prediction's receipt and compute its answer again.

    Raises:
        VerificationFailed: something does not hold.
        NotFound: it was made without a file that is needed, and `folder` lacks it.
    """
    from mlchain.cli.text import bad, good
    from mlchain.client.prediction_receipt import (
        read_prediction_receipt,
        verify_prediction_receipt,
    )
    from mlchain.client.receipt import find_in_folder
    from mlchain.errors import VerificationFailed

    def tell(check: Check) -> None:
        out.note((good if check.passed else bad)(f"{check.name:<{NAME_WIDTH}}{check.text}"))

    receipt = read_prediction_receipt(file)
    finder = find_in_folder(folder) if folder is not None else lambda content: None
    checks = verify_prediction_receipt(receipt, genesis, finder, tell)
    if not checks[-1].passed:
        raise VerificationFailed(
            f"{checks[-1].name}: {checks[-1].text}", "do not rely on this answer"
        )
    rows = [{"name": c.name, "passed": c.passed, "text": c.text} for c in checks]
    document = {"prediction": receipt.request.hex(), "passed": True, "checks": rows}
    text = good(f"audited   {len(checks)} of {len(checks)} checks hold; the answer is right")
    out.result("prediction-audit", document, [text])
