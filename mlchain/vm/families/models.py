"""Models: what settled jobs leave behind."""

from __future__ import annotations

from mlchain.codec import ContentId, Hash, Name, PublicKey, Record, Uint
from mlchain.ledger.state import Table
from mlchain.ml_runtime import Metrics


class Model(Record, frozen=True):
    """A trained model: `content` names its encoded state, `state` is the state's digest.

    Registered under the id of its job. `metrics` are those on the job's test rows.
    """

    name: Name
    owner: PublicKey
    plan: Hash
    dataset: ContentId
    content: ContentId
    state: Hash
    metrics: Metrics | None
    height: Uint
    revoked_height: Uint
    """0, or the height of the block that found a segment of its training forged."""


MODELS = Table(b"model/", Model, bytes)
