"""A prediction as a JSON value."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlchain.crypto import address
from mlchain.errors import NotFound
from mlchain.ledger.state import State
from mlchain.ledger.unixfs import cid_text
from mlchain.ml_runtime import decode_metrics
from mlchain.ml_runtime.serving import Outcome
from mlchain.node.job_view import metrics_view
from mlchain.node.plain import Json, parse_hash, to_json
from mlchain.vm.answering import is_right
from mlchain.vm.families.predictions import ENDED, PREDICTIONS, Prediction, PredictionState


class PredictionViews:
    """Reads the predictions of one chain."""

    def __init__(self, state: Callable[[], State], names: Mapping[bytes, str]) -> None:
        self._state, self._names = state, names

    def find(self, text: str) -> Json:
        """Return a prediction by its id, which is that of its transaction.

        Raises:
            CodecError: not an id.
            NotFound: no such request is on chain.
        """
        request = parse_hash(text, "a prediction's id")
        found = PREDICTIONS.get(self._state(), request)
        if found is None:
            raise NotFound(f"no prediction {text[:16]}", "its transaction may have failed")
        is_over = found.state == PredictionState.ANSWERED
        agreed = [t.validator for t in found.told if is_over and is_right(found, t)]
        others = [t.validator for t in found.told if is_over and not is_right(found, t)]
        bound = [b.validator for b in found.bound]
        return to_json(
            {
                "id": request,
                "state": PredictionState(found.state).name.lower(),
                "requester": self._name(found.requester),
                "requester_key": found.requester,
                "model": cid_text(found.model),
                "data": cid_text(found.data),
                "rows": found.rows,
                "evaluation": found.is_evaluation,
                "tier": found.tier,
                "tip": found.tip,
                "gas": found.gas,
                "asked": found.asked,
                "height": found.height,
                "outcome": Outcome(found.outcome).name.lower() if is_over else None,
                "content": cid_text(found.content) if found.content else None,
                "answers": _answers(found),
                "score": _score(found),
                "agreed": [self._name(key) for key in agreed],
                "disagreed": [self._name(key) for key in others],
                "bound": len(found.bound) + sum(t.validator not in bound for t in found.told),
            }
        )

    def events(self, height: int) -> Iterator[Json]:
        """Yield the requests that ended in a block; the same for ever."""
        for (_, request), _ in ENDED.items(self._state(), height):
            found = PREDICTIONS.get(self._state(), request)
            assert found is not None, "requests stay in the state"
            what = PredictionState(found.state).name.lower()
            yield to_json({"prediction": request, "what": what, "height": height})

    def _name(self, key: bytes) -> str:
        return self._names.get(key) or address(key)


def _answers(found: Prediction) -> list[Any] | None:
    """Return the answers if they stand on chain themselves."""
    if not found.value or found.is_evaluation:
        return None
    try:
        answers: list[Any] = json.loads(found.value)
    except ValueError:  # a quorum said so: it is what it is
        return None
    return answers


def _score(found: Prediction) -> Json | None:
    if not found.value or not found.is_evaluation:
        return None
    return metrics_view(decode_metrics(found.value, found.rows))
