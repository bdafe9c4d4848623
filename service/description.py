"""What the API's description says besides what FastAPI finds in the routes."""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from service import problems
from service.access import Requires

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, as `mts4mm keys new` makes it."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same, by another header."},
}
_BY_THE_LAYERS = {
    "401": "No API key, or one that is not known or has expired.",
    "403": "The API key does not open this.",
    "408": "The body did not arrive in time.",
    "429": "More requests than this API key may send; see `Retry-After`.",
    "503": "No model is loaded, or the service is busy; see `Retry-After`.",
}


def completed(schema: dict[str, Any], routers: Iterable[APIRouter]) -> dict[str, Any]:
    """Add which key a route needs, what the layers around the routes answer, and that problems have a media type.

    Args:
        schema: of FastAPI; it is changed.
        routers: those that it describes.
    """
    schema.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for (path, method), scopes in _scopes(routers).items():
        operation = schema["paths"][path][method]
        operation["security"] = [{name: scopes} for name in _SCHEMES]
        responses = operation["responses"]
        for status, description in _BY_THE_LAYERS.items():
            responses[status] = {"description": description, "content": {problems.MEDIA_TYPE: {"schema": _PROBLEM}}}
        operation["responses"] = dict(sorted(responses.items()))
    for operations in schema["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                _name_the_media_type(response.get("content", {}))
    return schema


def _name_the_media_type(content: dict[str, Any]) -> None:
    """FastAPI cannot be told that an error model has a media type of its own."""
    if content.get("application/json", {}).get("schema") == _PROBLEM:
        content[problems.MEDIA_TYPE] = content.pop("application/json")


def _scopes(routers: Iterable[APIRouter]) -> dict[tuple[str, str], list[str]]:
    """The scopes that each described route needs, by path and method."""
    found: dict[tuple[str, str], list[str]] = {}
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                guards = [guard.dependency for guard in route.dependencies]
                scopes = [str(guard.scope) for guard in guards if isinstance(guard, Requires)]
                if scopes:
                    found |= {(route.path_format, method.lower()): scopes for method in route.methods or ()}
    return found
