"""The registry of models."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from mlchain.web import answers
from mlchain.web.node_api import Limit, NodeApi
from mlchain.web.openapi import says
from mlchain.web.replies import as_json


def add_registry(app: FastAPI, node: NodeApi) -> None:
    """Add names, versions and what is known of model files."""

    @app.get(
        "/v1/registry",
        summary="The last version of every name, in the order of the names",
        **says(answers.Registry, 422),
    )
    async def registry(limit: Limit = 50) -> Response:
        return as_json({"models": node.query.registry.list(limit)})

    @app.get(
        "/v1/registry/{model}",
        summary="A model file by NAME, NAME@VERSION or content id",
        **says(answers.RegistryRow, 404, 422),
    )
    async def registered(model: str) -> Response:
        return as_json(node.query.registry.find(model))
