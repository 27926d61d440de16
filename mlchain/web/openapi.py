"""The description of the API: what each path answers, also when it fails.

Handlers return finished responses; this says what is in them. The schemas are made of the types in
`answers`, by msgspec, so that they cannot name other fields.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from mlchain import __version__
from mlchain.web import answers, data_answers, model_answers

Responses = dict[int | str, dict[str, Any]]

BYTES = "application/octet-stream"
JSON = "application/json"
PROBLEM = "application/problem+json"
EVENTS = "text/event-stream"
TEXT = "text/plain"

ALWAYS = (429, 500)
"""What any path may answer: too many requests, a bug of ours."""

REF = "#/components/schemas/{name}"
ABOUT = (
    "One node of an mlchain network. Whatever is read here is of the last final block. Nothing is "
    "written but signed transactions, and content that names itself."
)


def says(
    kind: type | str,
    *problems: int,
    is_tagged: bool = False,
    is_ranged: bool = False,
    body: int = 0,
) -> dict[str, Any]:
    """Return what a route's decorator is told: its answer, and the problems it may answer.

    `kind` is one of the types of `answers`, or a media type. `is_tagged`: a client that names the
    ETag it has is answered 304. `is_ranged`: a client may ask for the rest of it. `body`: the
    most bytes of the request's body, 0 for none.
    """
    good: dict[str, Any] = {"description": _first_line(kind)}
    good["content"] = _content(kind)
    responses: Responses = {200: good}
    if is_tagged:
        good["headers"] = {"ETag": {"schema": {"type": "string"}}}
        responses[304] = {"description": "the client has it", "headers": good["headers"]}
    if is_ranged:
        responses[206] = {"description": "the rest that was asked for", "content": _content(kind)}
        problems = (*problems, 416)
    if body:
        problems = (*problems, 400, 408, 413, 415, 422)
    for status in sorted({*problems, *ALWAYS}):
        responses[status] = {
            "description": HTTPStatus(status).phrase.lower(),
            "content": {PROBLEM: {"schema": {"$ref": REF.format(name="Problem")}}},
        }
    extra: dict[str, Any] = {}
    if body:
        schema = {"type": "string", "format": "binary", "maxLength": body}
        extra = {"requestBody": {"required": True, "content": {BYTES: {"schema": schema}}}}
    return {"responses": responses, "openapi_extra": extra}


def describe(app: FastAPI) -> None:
    """Make `app` describe itself with the schemas of `answers`."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=__version__, description=ABOUT, routes=app.routes
            )
            document["components"] = {"schemas": schemas()}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's pages say


def schemas() -> dict[str, Any]:
    """Return the JSON Schemas of all answers by name."""
    kinds = [
        kind
        for module in (answers, data_answers, model_answers)
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    ]
    _, found = msgspec.json.schema_components(kinds, ref_template=REF)
    return found


def _content(kind: type | str) -> dict[str, Any]:
    if isinstance(kind, type):
        return {JSON: {"schema": {"$ref": REF.format(name=kind.__name__)}}}
    schema: dict[str, Any] = {"type": "string"}
    if kind == BYTES:
        schema["format"] = "binary"
    return {kind: {"schema": schema}}


def _first_line(kind: type | str) -> str:
    if isinstance(kind, str):
        return {BYTES: "the bytes", EVENTS: "events", TEXT: "the text"}.get(kind, kind)
    return (kind.__doc__ or "").split("\n")[0]
