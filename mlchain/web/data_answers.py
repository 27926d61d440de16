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
    """The files of a node, newest first, the bytes of all its content, and its bound (0: none)."""

    files: list[ContentRow]
    used: int
    quota: int


class Collected(TypedDict):
    """The bytes that were removed, and those that are left."""

    freed: int
    used: int


class ContentInfo(TypedDict):
    """What a node has of a file: its bytes in all, how it is cut, whether every block is here."""

    cid: str
    size: int
    profile: str
    whole: bool
    pinned: bool
