"""Errors as HTTP answers: one table, one shape (RFC 9457 problem details)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mlchain import errors

log = structlog.get_logger("web")

STATUS: tuple[tuple[type[errors.MlchainError], int, str], ...] = (
    (errors.Pruned, 410, "pruned"),
    (errors.NotFound, 404, "not_found"),
    (errors.Rejected, 409, "rejected"),
    (errors.InvalidTransaction, 422, "invalid_transaction"),
    (errors.InvalidSignature, 422, "invalid_signature"),
    (errors.CodecError, 422, "malformed"),
    (errors.RejectedProgram, 422, "rejected_program"),
    (errors.VerificationFailed, 422, "verification_failed"),
    (errors.Unreachable, 503, "unreachable"),
    (errors.Timeout, 504, "timeout"),
    (errors.StoreCorrupted, 500, "store_corrupted"),
    (errors.MlchainError, 500, "internal"),
)
"""The first row that fits an error decides; the client's fault is 4xx, ours 5xx."""

CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    422: "invalid",
    429: "too_many_requests",
    503: "busy",
}

FETCHING = (503, "fetching_state")
"""What a node answers that has no state yet."""

MEANINGS = {
    "bad_request": "The client went away before its body had come.",
    "not_found": "No such path, block, job, model, content or account.",
    "method_not_allowed": "The path is there, not for this method; `allow` says for which.",
    "too_slow": "The body came too slowly, or not to its end.",
    "pruned": "A block that this node has removed; an archive node keeps it.",
    "rejected": "The mempool does not take the transaction now; the hint says what would help.",
    "too_large": "A body beyond its bound, or more than this client may store.",
    "unsupported_media_type": "A body that is not declared as `application/octet-stream`.",
    "range_not_satisfiable": "The file has no byte where the range begins.",
    "invalid": "A parameter out of its bounds.",
    "invalid_transaction": "A transaction that no block could hold as it is.",
    "invalid_signature": "The sender did not sign this transaction.",
    "malformed": "Bytes, an id or a word that is none.",
    "rejected_program": "A program that the check refuses.",
    "verification_failed": "Bytes that are not what their id or proof says.",
    "too_many_requests": "`retry-after` says when to ask again.",
    "internal": "A bug of this node; its log says more.",
    "store_corrupted": "The node's disk does not hold what was written to it.",
    "busy": "Catching up with the chain, or too many listen already.",
    "fetching_state": "The node has no state yet: `progress` tells how far it is with fetching it.",
    "unreachable": "What the answer takes is at no peer that answers.",
    "timeout": "The node waited for something that did not come in time.",
}
"""What each code means, for docs/errors.md."""


def problem(
    status: int,
    code: str,
    detail: str,
    hint: str = "",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return an error's answer; `more` are further members of its document."""
    document = {
        "status": status,
        "title": HTTPStatus(status).phrase,
        "code": code,
        "detail": detail,
        "hint": hint,
        **more,
    }
    return Response(json.dumps(document), status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Answer everything that `app` raises with a problem."""
    app.exception_handler(errors.MlchainError)(_expected)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(Exception)(_bug)


def classify(error: errors.MlchainError) -> tuple[int, str]:
    """Return the status and code of an expected error."""
    return next((status, code) for kind, status, code in STATUS if isinstance(error, kind))


async def _expected(request: Request, error: errors.MlchainError) -> Response:
    status, code = classify(error)
    if status >= 500:
        log.error("request-failed", path=request.url.path, reason=error.message)
    return problem(status, code, error.message, error.hint)


async def _http(request: Request, error: HTTPException) -> Response:
    code = CODES[error.status_code]  # a test reads which ones are raised
    hint = {404: "/openapi.json lists what there is", 429: "slow down"}.get(error.status_code, "")
    return problem(error.status_code, code, str(error.detail), hint, error.headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    first: Any = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(422, "invalid", f"{where}: {first['msg']}")


async def _bug(request: Request, error: Exception) -> Response:
    log.error("bug", path=request.url.path, error=repr(error))
    return problem(500, "internal", "a bug in this node; its log says more")
