"""What the API answers about content, as types (see `answers`)."""

from __future__ import annotations

from typing import TypedDict


class Stored(TypedDict):
    """What was stored."""

    cid: str
    size: int


class ContentRow(TypedDict):
    """A file that was added, asked for or pinned; `size` is null while its first block is missing,
    and a larger `order` is newer."""

    cid: str
    size: int | None
    order: int
    pinned: bool


class ContentFiles(TypedDict):
    """Files of a node, newest first, the bytes of all its content, and its bound (0: none).

    `before` asks for those after the last of these; null after the last of all."""

    files: list[ContentRow]
    before: int | None
    used: int
    quota: int


class Collected(TypedDict):
    """The bytes that were removed, and those that are left."""

    freed: int
    used: int


class PartRow(TypedDict):
    """One part of a draw: a dataset, with the test rows at its end."""

    cid: str
    size: int
    rows: int


class MergeRow(TypedDict):
    """A model file that the jobs on the parts make, one job a part.

    `standing`: a quorum made the same, and no model of these jobs was revoked.
    """

    model: str
    size: int
    jobs: list[str]
    owner: str
    height: int
    standing: bool
    confirmed_by: list[str]


class DrawView(TypedDict):
    """A draw of the parts of a dataset.

    `state` is waiting (for validators to hold the data), requested (the beacon draws the seed),
    drawn, or named: a quorum has made the parts. `seed` is "" until it is drawn.
    """

    id: str
    dataset: str
    owner: str
    state: str
    height: int
    seed: str
    parts: int
    test_rows: int
    named: list[PartRow]
    merges: list[MergeRow]


class Draws(TypedDict):
    """The draws of a dataset, the latest first."""

    draws: list[DrawView]


class DatasetHolders(TypedDict):
    """Who has a dataset: those of the present validators that said in a vote that they hold and
    have decoded every byte. `available`: they have more than two thirds of the votes."""

    registered: bool
    available: bool
    holders: list[str]
    validators: int


class ContentInfo(TypedDict):
    """What a node has of a file: its bytes in all, how it is cut, whether every block is here."""

    cid: str
    size: int
    profile: str
    whole: bool
    pinned: bool
