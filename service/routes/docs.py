"""The API's description as a page: made from ``/openapi.json``, without a script and without anything from afar."""

import html
import json
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from service.routes.base import WholePathRoute

router = APIRouter(route_class=WholePathRoute, include_in_schema=False)

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
code, pre { font: 14px/1.45 ui-monospace, monospace } pre { background: #f3f4f6; padding: .75rem; overflow-x: auto }
details { border: 1px solid #d0d7de; border-radius: 6px; margin: .5rem 0; padding: .5rem .75rem }
summary { cursor: pointer } summary b { display: inline-block; min-width: 4.5rem; color: #0a58ca }
table { border-collapse: collapse } td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0 }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3 } pre { background: #161b22 } summary b { color: #79c0ff }
  details { border-color: #30363d } a { color: #79c0ff }
}
"""


@router.get("/docs")
def page(request: Request) -> HTMLResponse:
    """The page."""
    return HTMLResponse(_page(json.dumps(request.app.openapi())))


@router.get("/docs/style.css")
def style() -> HTMLResponse:
    """How it looks."""
    return HTMLResponse(_STYLE, media_type="text/css")


@lru_cache(maxsize=1)
def _page(description: str) -> str:
    api = json.loads(description)
    operations = "".join(
        _operation(path, method, operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f'<details id="{_text(name)}"><summary><code>{_text(name)}</code></summary>{_schema(schema)}</details>'
        for name, schema in api["components"]["schemas"].items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{_text(api['info']['title'])}</title><link rel=stylesheet href=docs/style.css></head><body>"
        f"<h1>{_text(api['info']['title'])}</h1><p>{_text(api['info']['description'])} "
        f'For programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"<h2>What can be asked</h2>{operations}<h2>What goes over the wire</h2>{schemas}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    scopes = sorted({scope for one in operation.get("security", []) for of_one in one.values() for scope in of_one})
    key = f"<p>Needs a key of scope {', '.join(scopes)}, where keys are asked for.</p>" if scopes else ""
    answers = _table(
        (status, response["description"], _references(response.get("content", {})))
        for status, response in operation["responses"].items()
    )
    parameters = _table(
        (each["name"], each.get("description", ""), _kind(each["schema"])) for each in operation.get("parameters", [])
    )
    body = _references(operation.get("requestBody", {}).get("content", {}))
    return (
        f"<details><summary><b>{_text(method.upper())}</b> <code>{_text(path)}</code></summary>"
        f"<p>{_text(operation.get('description', ''))}</p>{key}{parameters}"
        f"{f'<p>Body: {body}</p>' if body else ''}{answers}</details>"
    )


def _schema(schema: dict[str, Any]) -> str:
    needed = schema.get("required", [])
    fields = _table(
        (f"{name}{'' if name in needed else '?'}", field.get("description", ""), _kind(field))
        for name, field in schema.get("properties", {}).items()
    )
    examples = "".join(f"<pre>{_text(json.dumps(each, indent=2))}</pre>" for each in schema.get("examples", []))
    return f"<p>{_text(schema.get('description', ''))}</p>{fields}{examples}"


def _table(rows: Any) -> str:
    written = "".join(
        f"<tr><td><code>{_text(name)}</code></td><td>{_text(what)}</td><td>{kind}</td></tr>"
        for name, what, kind in rows
    )
    return f"<table>{written}</table>" if written else ""


def _references(content: dict[str, Any]) -> str:
    return ", ".join(_kind(each.get("schema", {})) for each in content.values())


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = _text(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(_kind(choice) for choice in choices)
    if "enum" in schema:
        return " or ".join(_text(json.dumps(value)) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return _text(str(schema.get("type", "anything")))


def _text(text: str) -> str:
    return html.escape(text)
