"""Models: what settled jobs leave behind."""

from __future__ import annotations

from mlchain.codec import ContentId, Hash, Name, PublicKey, Record, Uint
from mlchain.ledger.state import Table


class Model(Record, frozen=True):
    """A trained model: `content` names its encoded state, `state` is the state's digest.

    Registered under the id of its job. `correct` of `total` held-out rows were predicted right.
    """

    name: Name
    owner: PublicKey
    plan: Hash
    dataset: ContentId
    content: ContentId
    state: Hash
    correct: Uint
    total: Uint
    height: Uint


MODELS = Table(b"model/", Model, bytes)
