"""Every error of the API in the one form of RFC 9457."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service.requests import request_id
from service.schemas import FieldProblem, Problem
from shared.state import StateRefused, StateUnavailable

MEDIA_TYPE = "application/problem+json"

_DETAILS = {404: "There is nothing at this path.", 405: "This path does not have that method."}


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem document."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(StateUnavailable, _state_away)
    app.add_exception_handler(Exception, _unexpected)


def problem(
    request: Request,
    status: int,
    detail: str,
    *,
    errors: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Write the problem document that answers ``request``."""
    document = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.scope["path"],
        request_id=request_id(request.scope),
        errors=errors,
    )
    return Response(
        document.model_dump_json(exclude_none=True),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (the handler's registered type)
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase:
        detail = _DETAILS.get(error.status_code, detail)
    return problem(request, error.status_code, detail, headers=error.headers)


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (the handler's registered type)
    found = error.errors()
    if any(entry["type"] == "json_invalid" for entry in found):
        return problem(request, 400, "The body is not JSON.")
    errors = [FieldProblem(pointer=_pointer(entry["loc"]), detail=_sendable(entry["msg"])) for entry in found]
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    return problem(request, 422, f"The request has {count}.", errors=errors)


async def _state_away(request: Request, error: Exception) -> Response:
    assert isinstance(error, StateUnavailable)  # noqa: S101 (the handler's registered type)
    headers = {"Retry-After": str(error.retry_after_seconds)}
    said = (
        f"The user state refuses this: {error.reason}."
        if isinstance(error, StateRefused)
        else "The user state is away."
    )
    return problem(request, 503, f"{said} Send the same again later.", headers=headers)


async def _unexpected(request: Request, _error: Exception) -> Response:
    return problem(request, 500, "Something went wrong here. The service's log has it under the request id.")


def _pointer(location: tuple[int | str, ...]) -> str:
    """Turn ``("body", "items", 0)`` into ``#/items/0``."""
    parts = [_sendable(str(part)).replace("~", "~0").replace("/", "~1") for part in location[1:]]
    return "#" + "".join(f"/{part}" for part in parts)


def _sendable(text: str) -> str:
    """Text that came from outside, with ``?`` for half a surrogate pair, which no answer can hold."""
    return text.encode("utf-8", "replace").decode()
