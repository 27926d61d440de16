"""The node's stream of blocks, as server-sent events: lines in, events out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mlchain.errors import CodecError

MAX_LINE = 8 << 20
"""Characters of one line; an event is one line of JSON."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened: `kind` "block" or "job", and the document that the API gives of it.

    `height` is that of the block that just became final, or of the last one before a job's event.
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

    def begin(self) -> None:
        """Forget what a connection that broke had begun to say."""
        self._kind, self._data = "", []

    def feed(self, line: str) -> Event | None:
        """Take one line without its end; return the event that it completes.

        Raises:
            CodecError: no event of ours.
        """
        if len(line) > MAX_LINE:
            raise CodecError(f"stream: a line of more than {MAX_LINE} characters")
        if line == "":
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and value.isascii() and value.isdigit() and len(value) < 20:
            self.last = int(value)
        return None  # a comment, a retry time, or a field we do not know

    def _complete(self) -> Event | None:
        kind, text = self._kind, "\n".join(self._data)
        self._kind, self._data = "", []
        if not text:
            return None
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CodecError("stream: an event that is not JSON") from error
        if not isinstance(data, dict):
            raise CodecError("stream: an event that is not a JSON object")
        return Event(kind, data, self.last)
