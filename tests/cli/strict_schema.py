"""Compares what commands print with their schemas, more strictly than readers may.

Readers must expect further fields; we must not print any that the schema does not name.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from mlchain.cli.schema import document_schema

PRINTED: set[str] = set()
"""The schemas of which a document was printed so far."""


def complaints(name: str, kind: Any, document: dict[str, Any]) -> list[str]:
    """Return what is wrong with a document of the schema `name`, whose data is of `kind`."""
    schema = document_schema(name, kind)
    for component in schema["$defs"].values():
        if component.get("type") == "object" and "properties" in component:
            component["additionalProperties"] = False
    validator = jsonschema_rs.validator_for(schema)
    return [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(document)]
