"""A prediction's receipt: what somebody who trusts nobody needs to check an answer offline.

As a job's (`vm.receipt`): certified headers lead from genesis to a state root, under which the
request with its answer and the model's record are proven. The model, the rows and the answer lie
beside, by content id, so that the answer can be computed again.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlchain.codec import Hash, Record
from mlchain.errors import NotFound
from mlchain.ledger.block import Header
from mlchain.ledger.commit import Commit
from mlchain.ledger.content import ContentStore
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import decode_transaction
from mlchain.ledger.unixfs import cid_of
from mlchain.vm.families import decode_payload
from mlchain.vm.families.models import MODEL_FILES
from mlchain.vm.families.predictions import (
    PREDICTIONS,
    Prediction,
    PredictionState,
    RequestPrediction,
)
from mlchain.vm.receipt import (
    MAX_CHANGES,
    File,
    Proven,
    SetChange,
    gather_files,
    prove_record,
    read_head,
    set_changes,
)

KIND = "prediction"


class PredictionReceipt(Record, frozen=True):
    """Everything about one answered request, proven under the state root of `header`."""

    kind: Annotated[str, Meta(pattern=r"^prediction\Z")]
    genesis: Hash
    header: Header
    commit: Commit
    changes: Annotated[tuple[SetChange, ...], Meta(max_length=MAX_CHANGES)]
    request: Hash
    prediction: Proven
    model: Proven
    files: Annotated[tuple[File, ...], Meta(max_length=3)]
    """Model, rows and answer, in the order of their ids, as far as they are at hand."""


def make_prediction_receipt(
    store: Store, content: ContentStore, request: bytes
) -> PredictionReceipt:
    """Return the receipt of a request against the last block of `store`.

    Raises:
        NotFound: no such request, or it has no answer.
    """
    header, state = read_head(store)
    prediction = PREDICTIONS.get(state, request)
    if prediction is None or prediction.state != PredictionState.ANSWERED:
        where = PredictionState(prediction.state).name.lower() if prediction else "not known"
        raise NotFound(f"prediction {request.hex()[:8]} has no receipt: it is {where}")
    wanted = wanted_files(prediction)
    files = {cid_of(data): data for data in (_inline(store, request), prediction.value) if data}
    files |= gather_files(content, (name for name in wanted if name not in files))
    return PredictionReceipt(
        KIND, store.genesis.hash, header, store.commit(header.height),
        set_changes(store, header.height), request,
        prove_record(state, PREDICTIONS.key(request)),
        prove_record(state, MODEL_FILES.key(prediction.model)),
        tuple(File(name, files[name]) for name in sorted(files) if name in wanted),
    )  # fmt: skip


def wanted_files(prediction: Prediction) -> list[bytes]:
    """Return the content ids of model, rows and answer."""
    names = (prediction.model, prediction.data, prediction.content)
    return [name for name in dict.fromkeys(names) if name]


def _inline(store: Store, request: bytes) -> bytes:
    """Return the rows that came with the request, as long as its block is kept."""
    place = store.find_transaction(request)
    if place is None or place[0] < store.kept:
        return b""
    body = decode_transaction(store.block(place[0]).body.transactions[place[1]]).body
    payload = decode_payload(body.kind, body.payload)
    return payload.inline if isinstance(payload, RequestPrediction) else b""
