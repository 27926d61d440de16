"""How handlers answer: JSON, content, and what a client may keep."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

import trio
from fastapi import Request
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse

from mlchain.errors import NotFound
from mlchain.ledger.content import ContentStore, cid_text
from mlchain.node.plain import Json
from mlchain.web.openapi import BYTES, JSON

IMMUTABLE = {"cache-control": "public, max-age=31536000, immutable"}


async def send_content(
    request: Request, content: ContentStore, cid: bytes, headers: Mapping[str, str]
) -> Response:
    """Return the bytes of a content id, leaf by leaf, read in threads.

    Raises:
        NotFound: not all of it is here.
    """
    if not await trio.to_thread.run_sync(content.has, cid):
        raise NotFound(f"no content {cid_text(cid)} here", "ask another node")

    def answer() -> Response:
        leaves: Iterator[bytes] = content.read(cid)
        length = {"content-length": str(content.size(cid))}
        return StreamingResponse(iterate_in_threadpool(leaves), 200, {**headers, **length}, BYTES)

    return tagged(request, cid_text(cid), answer)


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
