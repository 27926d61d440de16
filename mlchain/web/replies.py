"""How handlers answer: JSON, content, and what a client may keep."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

import trio
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from mlchain.errors import NotFound
from mlchain.ledger.content import ContentStore, cid_text
from mlchain.node.plain import Json
from mlchain.web.openapi import BYTES, JSON

_RANGE = re.compile(r"bytes=(\d{1,16})-")

IMMUTABLE = {"cache-control": "public, max-age=31536000, immutable"}


class Leaves(StreamingResponse):
    """Pieces of bytes as a body, each read in a thread. Of a client that goes nothing is left."""

    def __init__(
        self, pieces: Iterator[bytes], status: int, headers: Mapping[str, str], kind: str
    ) -> None:
        super().__init__((), status, headers, kind)
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        """Send everything."""
        head = {"type": "http.response.start", "status": self.status_code}
        await send({**head, "headers": self.raw_headers})
        while (piece := await trio.to_thread.run_sync(next, self._pieces, None)) is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_content(
    request: Request, content: ContentStore, cid: bytes, headers: Mapping[str, str]
) -> Response:
    """Return the bytes of a content id, leaf by leaf, read in threads.

    Who asks for a range that reaches to the end (`Range: bytes=1000-`) gets that with 206; of
    other ranges the answer is, as RFC 9110 allows, the whole.

    Raises:
        NotFound: not all of it is here.
        HTTPException: 416, the range begins beyond the end.
    """
    if not await trio.to_thread.run_sync(content.has, cid):
        raise NotFound(f"no content {cid_text(cid)} here", "ask another node")
    size = await trio.to_thread.run_sync(content.size, cid)
    tag = cid_text(cid)
    start = _range_start(request, tag, size)
    fields = {**headers, "accept-ranges": "bytes", "content-length": str(size - (start or 0))}
    if start is not None:
        fields["content-range"] = f"bytes {start}-{size - 1}/{size}"

    def answer() -> Response:
        leaves: Iterator[bytes] = content.read(cid, start or 0)
        status = 200 if start is None else 206
        return Leaves(leaves, status, fields, BYTES)

    return tagged(request, tag, answer)


async def send_block(content: ContentStore, cid: bytes, headers: Mapping[str, str]) -> Response:
    """Return one block of a file as it is hashed: file bytes, or the node above them.

    Raises:
        NotFound: it is not here.
    """
    block = await trio.to_thread.run_sync(content.get_block, cid)
    return Response(block, headers={**headers, "etag": f'"{cid_text(cid)}.raw"'}, media_type=BYTES)


def _range_start(request: Request, tag: str, size: int) -> int | None:
    """Return the first byte of the range a client asks for, None for the whole.

    Raises:
        HTTPException: 416.
    """
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if not found or request.headers.get("if-range", f'"{tag}"') != f'"{tag}"':
        return None
    start = int(found[1])
    if start >= size:
        headers = {"content-range": f"bytes */{size}"}
        raise HTTPException(416, f"the file has {size} bytes, none from {start} on", headers)
    return start


def tagged(request: Request, tag: str, answer: Callable[[], Response]) -> Response:
    """Return `answer` with its ETag, or 304 to a client that has it."""
    etag = f'"{tag}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"etag": etag})
    response = answer()
    response.headers["etag"] = etag
    return response


def final(request: Request, tag: str, answer: Callable[[], Response]) -> Response:
    """Return `answer`, which will never be another one at this address, with its ETag."""
    response = tagged(request, tag, answer)
    response.headers.update(IMMUTABLE)
    return response


def as_json(value: Json) -> Response:
    """Return a JSON document."""
    return Response(json.dumps(value), media_type=JSON)
