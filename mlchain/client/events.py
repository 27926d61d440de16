"""The node's stream of blocks, as server-sent events: lines in, events out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mlchain.errors import CodecError

MAX_LINE = 8 << 20
"""Most bytes of a line, and of all that an event says; ours are one line of JSON."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened: `kind` "block", "job" or "prediction", and the document that the API gives.

    `height` is that of the block that just became final, or of the last one before another event.
    """

    kind: str
    data: dict[str, Any]
    height: int | None


@dataclass(slots=True)
class EventReader:
    """Joins lines to events. `last` is the last id that was seen: where to go on."""

    last: int | None = None
    _kind: str = ""
    _data: list[str] = field(default_factory=list)
    _size: int = 0
    _rest: list[bytes] = field(default_factory=list)
    _rest_size: int = 0

    def take(self, piece: bytes) -> Iterator[Event]:
        """Take bytes as they come; yield the events that they complete.

        Lines end with a newline, as nodes write them. No more than one line is kept.

        Raises:
            CodecError: no event of ours, or a line too long, at once when it becomes so.
        """
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._keep(line)
            whole, self._rest, self._rest_size = b"".join(self._rest), [], 0
            event = self.feed(whole.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        self._rest_size += len(part)
        if self._rest_size > MAX_LINE:
            raise CodecError(f"stream: a line of more than {MAX_LINE} bytes")
        if part:
            self._rest.append(part)

    def begin(self) -> None:
        """Forget what a connection that broke had begun to say."""
        self._kind, self._data, self._size = "", [], 0
        self._rest, self._rest_size = [], 0

    def feed(self, line: str) -> Event | None:
        """Take one line without its end; return the event that it completes.

        Raises:
            CodecError: no event of ours.
        """
        if line == "":
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._size += len(value) + 1
            if self._size > MAX_LINE:
                raise CodecError(f"stream: an event of more than {MAX_LINE} characters")
            self._data.append(value)
        elif name == "id" and value.isascii() and value.isdigit() and len(value) < 20:
            self.last = int(value)
        return None  # a comment, a retry time, or a field we do not know

    def _complete(self) -> Event | None:
        kind, text = self._kind, "\n".join(self._data)
        self._kind, self._data, self._size = "", [], 0
        if not text:
            return None
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CodecError("stream: an event that is not JSON") from error
        if not isinstance(data, dict):
            raise CodecError("stream: an event that is not a JSON object")
        return Event(kind, data, self.last)
