"""Requests are sent when they are due, and their time counts from then; one bad second is not a typical one."""

import http.server
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shared.errors import UserError
from trainer.measurement.open_loop import CONNECTIONS, latencies
from trainer.measurement.serving import typical_percentiles

RATE, SECONDS = 100.0, 2.0
STOPPED = 1.0
"""In which more requests are due than there are connections to send them over."""


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 200
    stop_at: int | None = None
    closes = False
    asked = 0
    turn = threading.Lock()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.turn:  # who comes while another is stopped waits as well
            type(self).asked += 1
            if self.asked == self.stop_at:
                time.sleep(STOPPED)
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = self.closes

    def log_message(self, *_of: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 2 * CONNECTIONS

    def handle_error(self, *_of: object) -> None:
        """A client that has heard enough leaves."""


@contextmanager
def server(status: int = 200, stop_at: int | None = None, closes: bool = False) -> Iterator[int]:
    kind = {"status": status, "stop_at": stop_at, "closes": closes, "turn": threading.Lock()}
    handler = type("Handler", (_Answer,), kind)
    with _Server(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_port
        listening.shutdown()


def test_who_was_due_while_the_server_stood_still_waited_since_then() -> None:
    with server(stop_at=50) as port:
        found = latencies(port, [b"{}"], RATE, SECONDS)
    taken = found.taken
    assert len(taken) == RATE * SECONDS
    assert taken[49] >= STOPPED
    # each was due 10 ms after the one before, so each waited so much less for the same end
    for after, seconds in enumerate(taken[49:140]):
        assert seconds >= STOPPED - (after + 1) / RATE - found.stood_still


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """This process stands still for a while, as it does for whatever else has its core."""
    before = signal.signal(signal.SIGALRM, lambda *_of: time.sleep(STOPPED))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_what_the_load_itself_stood_still_is_no_one_elses_time() -> None:
    with server() as port, stopped_after(0.5):
        found = latencies(port, [b"{}"], RATE, SECONDS)
    assert len(found.taken) == RATE * SECONDS
    assert sorted(found.taken)[-3] < STOPPED / 2  # but of who was on the way
    assert found.stood_still >= 0.9 * STOPPED


def test_an_answer_that_is_none_ends_it() -> None:
    with server(status=503) as port, pytest.raises(UserError, match="503 at 100 requests a second"):
        latencies(port, [b"{}"], RATE, SECONDS)


def test_a_connection_that_the_server_closes_ends_it() -> None:
    with (
        server(closes=True) as port,
        pytest.raises(UserError, match="a connection was closed at 100 requests a second"),
    ):
        latencies(port, [b"{}"], RATE, SECONDS)


def test_one_bad_second_is_not_typical() -> None:
    good = [0.001] * 98 + [0.002] * 2
    bad = [1.0] * 100
    p50, p99 = typical_percentiles([*good, *bad, *good], 100.0)
    assert p50 == 0.001
    assert p99 == 0.002


def test_when_most_seconds_are_bad_they_are_typical() -> None:
    assert typical_percentiles([1.0] * 20 + [0.1] * 10, 10.9) == (1.0, 1.0)
