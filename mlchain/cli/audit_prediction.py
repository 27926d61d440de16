"""`mlchain audit` of a prediction's receipt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from mlchain.cli.audit_chain import CheckRow, now_text, tell_check
from mlchain.cli.output import Output

if TYPE_CHECKING:
    from mlchain.ledger.genesis import Genesis


class PredictionAuditView(TypedDict):
    """An audit of a prediction's receipt: what was checked, the answer computed again last."""

    prediction: str
    passed: bool
    checks: list[CheckRow]
    report: list[str]


def audit_prediction(
    out: Output,
    file: Path,
    genesis: Genesis,
    folder: Path | None,
    save: Callable[[str, dict[str, Any]], Sequence[str]],
) -> None:
    """Check a prediction's receipt and compute its answer again; `save` keeps the report.

    Raises:
        VerificationFailed: something does not hold.
        NotFound: it was made without a file that is needed, and `folder` lacks it.
    """
    from mlchain.cli.text import good
    from mlchain.client.audit_page import prediction_document
    from mlchain.client.prediction_receipt import (
        read_prediction_receipt,
        verify_prediction_receipt,
    )
    from mlchain.client.receipt import find_in_folder
    from mlchain.errors import VerificationFailed

    receipt = read_prediction_receipt(file)
    finder = find_in_folder(folder) if folder is not None else lambda content: None
    checks = verify_prediction_receipt(receipt, genesis, finder, partial(tell_check, out))
    document = prediction_document(checks, receipt.request, genesis.hash, now_text())
    saved = save(f"audit-{file.stem}", document)
    if not checks[-1].passed:
        raise VerificationFailed(
            f"{checks[-1].name}: {checks[-1].text}", "do not rely on this answer"
        )
    answer = {
        "prediction": receipt.request.hex(), "passed": True, "checks": document["checks"],
        "report": list(saved),
    }  # fmt: skip
    text = good(f"audited   {len(checks)} of {len(checks)} checks hold; the answer is right")
    out.result("prediction-audit", answer, [text])
