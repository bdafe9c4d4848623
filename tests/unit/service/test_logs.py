"""The log: one event a line, with the request's id, and nothing in it can forge or hide a line."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from service import logs

HOSTILE = 'a\nb\r\x1b[31m"\u2028\x85c'


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx2", "httpcore2")
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).propagate) for name in names}
    yield
    root.handlers[:], root.level = handlers, level
    for name, (own, propagate) in before.items():
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = own, propagate


def lines(written: io.StringIO) -> list[str]:
    return written.getvalue().splitlines()


def test_every_line_is_json_with_the_requests_id_and_a_traceback_is_in_one() -> None:
    written = io.StringIO()
    access = logs.configure("json", "info", written)
    assert access is not None
    token = logs.REQUEST_ID.set("r-1")
    try:
        logging.getLogger("uvicorn.error").info("started %s", HOSTILE)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logging.getLogger("service.requests").exception("failed")
        access.answered("r-1", HOSTILE, "/recommend", 200, 0.0125, HOSTILE, "abc")
    finally:
        logs.REQUEST_ID.reset(token)
    started, failed, request = (json.loads(line) for line in lines(written))
    assert started["event"] == f"started {HOSTILE}"
    assert {started["request_id"], failed["request_id"], request["request_id"]} == {"r-1"}
    assert failed["exception"].startswith("Traceback")
    assert "ValueError" in failed["exception"]
    assert failed["level"] == "error"
    assert (request["event"], request["method"], request["key"]) == ("request", HOSTILE, HOSTILE)
    assert (request["route"], request["status"], request["duration_ms"]) == ("/recommend", 200, 12.5)
    assert request["recommendation_id"] == "abc"


def test_for_people_control_characters_are_shown_and_no_variable_of_a_traceback_is() -> None:
    written = io.StringIO()
    access = logs.configure("console", "info", written)
    assert access is not None
    logging.getLogger("service").warning("said %s", HOSTILE)
    access.answered("r-2", HOSTILE, "/recommend", 503, 1.5, HOSTILE, None)
    assert len(lines(written)) == 2
    assert all("\\x1b[31m" in line and "\\x0a" in line and "\x1b" not in line for line in lines(written))
    try:
        password = "hunter2"  # noqa: F841
        raise ValueError("\x1b[31m")
    except ValueError:
        logging.getLogger("service").exception("failed")
    assert "Traceback" in written.getvalue()
    assert "\x1b" not in written.getvalue()
    assert "hunter2" not in written.getvalue().replace('password = "hunter2"', "")


def test_less_than_the_level_is_not_logged() -> None:
    written = io.StringIO()
    assert logs.configure("json", "warning", written) is None
    logging.getLogger("uvicorn.error").info("no")
    logging.getLogger("uvicorn.access").warning("never: the access log is ours")
    logging.getLogger("service").warning("yes")
    assert [json.loads(line)["event"] for line in lines(written)] == ["yes"]
