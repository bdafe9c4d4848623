"""The service's log: one event a line, as JSON for machines or in words for a terminal, with the request's id.

The service's own events and those of libraries such as uvicorn go the same way. No value can begin a line of its own
or hide what stands before it: JSON escapes control characters, and for the terminal they are escaped here. Nothing
logs headers, bodies, queries or paths, only the route that a request took.
"""

import io
import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being worked on, also in the threads that work on it."""

_ACCESS = "service.access"
_UVICORN = ("uvicorn", "uvicorn.error")
_SILENT = ("uvicorn.access", "httpx2", "httpcore2")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029)}
_CONTROL_IN_LINES = {code: shown for code, shown in _CONTROL.items() if code != ord("\n")}


class AccessLog:
    """Writes a line for every answered request."""

    def __init__(self, stream: TextIO, *, for_people: bool) -> None:
        """Write to ``stream``, in words or as JSON."""
        self._stream = stream
        self._for_people = for_people

    def answered(
        self,
        request_id: str,
        method: str,
        route: str,
        status: int,
        seconds: float,
        key: str | None,
        recommendation_id: str | None,
    ) -> None:
        """Log a request: by whose key, by the key's name, and which recommendation it was answered with."""
        if self._for_people:
            # what came from outside: the id has passed the request's check, the others are escaped
            whose = "" if key is None else f" key={key.translate(_CONTROL)}"
            shown = "" if recommendation_id is None else f" recommendation={recommendation_id}"
            now = datetime.now().astimezone().strftime("%H:%M:%S")
            line = (
                f"{now} {method.translate(_CONTROL)} {route} {status} {seconds * 1e3:.1f} ms{whose}{shown} {request_id}"
            )
        else:
            line = (
                f'{{"timestamp": "{datetime.now(UTC).isoformat()}", "level": "info", "logger": "{_ACCESS}", '
                f'"event": "request", "request_id": "{request_id}", "method": {_quoted(method)}, '
                f'"route": {_quoted(route)}, "status": {status}, "duration_ms": {seconds * 1e3:.3f}'
                f"{'' if key is None else f', {_KEY}: {_quoted(key)}'}"
                f"{'' if recommendation_id is None else f', {_RECOMMENDATION}: {json.dumps(recommendation_id)}'}}}"
            )
        self._stream.write(line + "\n")
        self._stream.flush()


_KEY, _RECOMMENDATION = '"key"', '"recommendation_id"'
# structlog would take ten times as long for such a line, about as long as the search that it reports.
_quoted = lru_cache(maxsize=1024)(json.dumps)


def configure(log_format: str, level: str, stream: TextIO | None = None) -> AccessLog | None:
    """Send every log to ``stream``.

    Args:
        log_format: ``json``, ``console``, or ``auto``: console where the stream is a terminal.
        level: the least that is logged, such as ``info``.
        stream: where to; stderr by default.

    Returns:
        The access log; None where its lines, which are of level info, are not wanted.
    """
    stream = stream or sys.stderr
    for_people = log_format == "console" or (log_format == "auto" and stream.isatty())
    least = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                _with_request_id,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper("iso", utc=True),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_in_words(stream) if for_people else _as_json()),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=least, force=True)
    for name in (*_UVICORN, *_SILENT):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], name not in _SILENT
    return AccessLog(stream, for_people=for_people) if least <= logging.INFO else None


def _as_json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _in_words(stream: TextIO) -> list[Processor]:
    return [_escaped, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_traceback)]


def _with_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event["request_id"] = request_id
    return event


def _escaped(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = value.translate(_CONTROL)
    return event


def _traceback(stream: TextIO, error: ExcInfo) -> None:
    """Write a traceback without the values of variables, which may be secret."""
    written = io.StringIO()
    structlog.dev.plain_traceback(written, error)
    stream.write(written.getvalue().translate(_CONTROL_IN_LINES))
