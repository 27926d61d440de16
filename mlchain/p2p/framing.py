"""Bytes on the wire, without any wire: frames of a link, questions and answers.

    link      frame*            frame    length(4) channel(1) payload
    question  name length(1) length(4) name payload
    answer    status(1) length(4) body   status 0: the answer, 1: an ErrorReply

Lengths are little-endian, count what follows the header, and are checked before anything is kept.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Annotated

import trio
from msgspec import Meta

from mlchain import codec, errors
from mlchain.codec import Record
from mlchain.errors import CodecError, MlchainError
from mlchain.p2p.transport import (
    CHANNELS,
    MAX_BATCH_BYTES,
    MAX_QUEUE_BYTES,
    MAX_QUEUE_FRAMES,
    MAX_REQUEST_BYTES,
    ChannelRule,
    PeerRefused,
)

FRAME_HEADER = struct.Struct("<IB")
QUESTION_HEADER = struct.Struct("<BI")
REPLY_HEADER = struct.Struct("<BI")
STATUS_OK, STATUS_ERROR = 0, 1
MAX_NAME_BYTES = 64
MAX_ERROR_BYTES = 2048

_CARRIED = {
    kind.__name__: kind
    for kind in (
        errors.NotFound,
        errors.Pruned,
        CodecError,
        errors.InvalidTransaction,
        errors.Rejected,
    )
}
"""Errors that mean the same on both sides; any other is the answering peer's own trouble."""


class ErrorReply(Record, frozen=True):
    """An answer that is an error."""

    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=400)]


def encode_frame(
    channel: int, payload: bytes, role: str, channels: Mapping[int, ChannelRule] = CHANNELS
) -> bytes:
    """Return the frame in which one of `role` sends `payload`.

    Raises:
        CodecError: no such channel, not for this role, or too large.
    """
    _check_frame(len(payload), channel, role, channels)
    return FRAME_HEADER.pack(len(payload), channel) + payload


def _check_frame(size: int, channel: int, role: str, channels: Mapping[int, ChannelRule]) -> None:
    rule = channels.get(channel)
    if rule is None:
        raise CodecError(f"frame: channel {channel}: no such channel")
    if role not in rule.roles:
        raise CodecError(f"frame: channel {channel} is not for a {role}")
    if size > rule.max_bytes:
        raise CodecError(f"frame: {size} bytes, at most {rule.max_bytes} on channel {channel}")


class FrameDecoder:
    """Cuts the byte stream of one link into frames; keeps at most one incomplete frame."""

    def __init__(self, role: str, channels: Mapping[int, ChannelRule] = CHANNELS) -> None:
        self.count = 0
        """Frames so far."""
        self._buffer = bytearray()
        self._role = role
        self._channels = channels

    @property
    def is_midway(self) -> bool:
        """Whether a frame was begun that is not complete."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the (channel, payload) that `data` completes.

        Raises:
            CodecError: no such channel, not for this role, or too large. The stream is of no use
                from there on.
        """
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= FRAME_HEADER.size:
                size, channel = FRAME_HEADER.unpack_from(buffer, at)
                _check_frame(size, channel, self._role, self._channels)
                end = at + FRAME_HEADER.size + size
                if len(buffer) < end:
                    break
                payload = bytes(memoryview(buffer)[at + FRAME_HEADER.size : end])
                at = end
                self.count += 1
                yield channel, payload
        finally:
            del buffer[:at]


class FrameQueue:
    """Frames waiting for one link: bounded in number and bytes, read in batches."""

    def __init__(
        self, max_frames: int = MAX_QUEUE_FRAMES, max_bytes: int = MAX_QUEUE_BYTES
    ) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self.wake = trio.Event()

    def push(self, frame: bytes) -> bool:
        """Append `frame`; False if there is no room."""
        if len(self._frames) >= self._max_frames or self._bytes + len(frame) > self._max_bytes:
            return False
        self._frames.append(frame)
        self._bytes += len(frame)
        self.wake.set()
        return True

    def pop(self) -> tuple[int, bytes]:
        """Remove and return (count, bytes) of the next batch: one frame, or several small ones."""
        batch = [self._frames.popleft()]
        size = len(batch[0])
        while self._frames and size + len(self._frames[0]) <= MAX_BATCH_BYTES:
            size += len(self._frames[0])
            batch.append(self._frames.popleft())
        self._bytes -= size
        return len(batch), b"".join(batch)

    async def wait(self) -> None:
        """Return when there is something to pop, or when `wake` was set from outside."""
        if not self._frames:
            self.wake = trio.Event()
            await self.wake.wait()

    def clear(self) -> tuple[int, int]:
        """Throw everything away; return (frames, bytes)."""
        lost = len(self._frames), self._bytes
        self._frames.clear()
        self._bytes = 0
        return lost

    def __len__(self) -> int:
        return len(self._frames)


def encode_question(protocol: str, payload: bytes) -> bytes:
    """Return a question.

    Raises:
        CodecError: the payload is too large.
    """
    name = protocol.encode()
    assert 0 < len(name) <= MAX_NAME_BYTES, "protocols are named by us"
    if len(payload) > MAX_REQUEST_BYTES:
        raise CodecError(f"question: {len(payload)} bytes, at most {MAX_REQUEST_BYTES} allowed")
    return QUESTION_HEADER.pack(len(name), len(payload)) + name + payload


def check_question_header(header: bytes) -> tuple[int, int]:
    """Return (name size, payload size) of a question.

    Raises:
        CodecError: too large.
    """
    name_size, size = QUESTION_HEADER.unpack(header)
    if name_size > MAX_NAME_BYTES or size > MAX_REQUEST_BYTES:
        raise CodecError(f"question: {name_size} and {size} bytes")
    return name_size, size


def encode_error(error: Exception) -> bytes:
    """Return the body of an error answer. What is not a MlchainError is our bug: told as such."""
    code, message = "internal", "the peer failed to answer"
    if isinstance(error, MlchainError):
        code = error.code if isinstance(error, PeerRefused) else type(error).__name__
        message = error.message
    return codec.encode(ErrorReply(code[:64], message[:400]))


def decode_error(body: bytes) -> MlchainError:
    """Return the exception an error answer stands for.

    Raises:
        CodecError: malformed.
    """
    reply = codec.decode(ErrorReply, body, MAX_ERROR_BYTES)
    kind = _CARRIED.get(reply.code)
    return kind(reply.message) if kind is not None else PeerRefused(reply.message, reply.code)


def check_reply_header(header: bytes, max_bytes: int) -> tuple[int, int]:
    """Return (status, size) of an answer.

    Raises:
        CodecError: no such status, or too large.
    """
    status, size = REPLY_HEADER.unpack(header)
    limit = {STATUS_OK: max_bytes, STATUS_ERROR: MAX_ERROR_BYTES}.get(status)
    if limit is None:
        raise CodecError(f"answer: no status {status}")
    if size > limit:
        raise CodecError(f"answer: {size} bytes, at most {limit} allowed")
    return status, size
