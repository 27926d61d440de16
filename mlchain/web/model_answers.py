"""What the API answers about registered models and predictions, as types; see `answers`."""

from __future__ import annotations

from typing import Any, TypedDict

from mlchain.web.answers import Amount, Score


class EvaluationRow(Score):
    """What a quorum found a model file to be worth on the last rows of a dataset."""

    dataset: str
    height: int


class RegistryRow(TypedDict):
    """A model file; name, version and lineage are there where it was asked for by name.

    `gas` is that of one row; `usable` once a quorum of the validators holds it.
    """

    name: str | None
    version: int | None
    versions: int
    owner: str | None
    owner_key: str | None
    parent: str | None
    data: str | None
    licence: str | None
    height: int | None
    content: str
    size: Amount
    features: int
    outputs: int
    answer: str
    gas: Amount
    job: str | None
    held_by: list[str]
    usable: bool
    evaluations: list[EvaluationRow]


class Registry(TypedDict):
    """Registered models."""

    models: list[RegistryRow]


class PredictionView(TypedDict):
    """A request and its answer; `answers` are there where they are short, else at `content`."""

    id: str
    state: str
    requester: str
    requester_key: str
    model: str
    data: str
    rows: int
    evaluation: bool
    tier: str
    tip: Amount
    gas: Amount
    asked: int
    height: int
    outcome: str | None
    content: str | None
    answers: list[Any] | None
    score: Score | None
    agreed: list[str]
    disagreed: list[str]
    bound: int
