"""The page /docs: the description of the API for people, one file without scripts or other hosts.

FastAPI's own pages load theirs from a CDN; a node must not need the internet to explain itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;
color:#16202c;background:#faf8f4}
h2{margin:2.5rem 0 .2rem;font:600 1rem ui-monospace,monospace}
table{border-collapse:collapse;margin:.4rem 0}td,th{text-align:left;vertical-align:top;
padding:.15rem .8rem .15rem 0;border-bottom:1px solid #e6e1d8;font-size:.9rem}
code,pre{font-family:ui-monospace,monospace;font-size:.85rem}b{color:#0f7a6c}a{color:#1d4f91}
@media(prefers-color-scheme:dark){body{color:#dfe5ec;background:#0e131a}
td,th{border-color:#26303c}b{color:#37c3ad}a{color:#8db8f5}}
"""


def render_docs(document: dict[str, Any]) -> str:
    """Return the page that an OpenAPI document says."""
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    body = [
        f"<h1>{escape(title)}</h1><p>{escape(info['description'])}</p>",
        '<p>For programs: <a href="/openapi.json">/openapi.json</a>.</p>',
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body += _operation(method.upper(), path, operation)
    body.append("<h1>Documents</h1>")
    for name, schema in document["components"]["schemas"].items():
        body += _schema(name, schema)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style>{''.join(body)}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><b>{method}</b> {escape(path)}</h2><p>{escape(operation['summary'])}</p><table>"
    for parameter in operation.get("parameters", ()):
        yield _row(f"{parameter['name']}", parameter["in"], _type(parameter["schema"]))
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        yield _row("body", media, f"at most {body['schema']['maxLength']} bytes")
    for status, response in operation["responses"].items():
        if status not in ("429", "500"):
            kinds = [
                _type(kind["schema"]) + f" <code>{escape(media)}</code>"
                for media, kind in response.get("content", {}).items()
            ]
            yield _row(status, escape(response["description"]), "".join(kinds))
    yield "</table>"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f'<h2 id="{escape(name)}">{escape(name)}</h2>'
    yield f"<p>{escape(schema.get('description', ''))}</p><table>"
    for key, kind in schema.get("properties", {}).items():
        yield _row(f"<code>{escape(key)}</code>", _type(kind))
    yield "</table>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(kind) for kind in schema["anyOf"])
    if schema.get("type") == "array":
        return "list of " + _type(schema.get("items", {}))
    bounds = [
        f" {words} {schema[key]}"
        for key, words in (("minimum", "from"), ("maximum", "to"))
        if key in schema
    ]
    return escape(str(schema.get("type", "any")) + "".join(bounds))


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
