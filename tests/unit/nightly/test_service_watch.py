"""The service seen from outside: confirmed, watched, and found to have got worse."""

import http.server
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import UserError
from trainer.nightly import service_watch
from trainer.nightly.service_watch import Service, Traffic, worsened


class Peer(http.server.BaseHTTPRequestHandler):
    """Answers as the service does, or as it would if it had got worse."""

    status = 200
    version = "v1"
    counters = ""
    presented: str | None = None
    versions: Iterator[str] = iter(())
    counted: Iterator[str] = iter(())
    cut = 0

    def do_GET(self) -> None:
        version = json.dumps({"model_version": next(self.versions, self.version)})
        self._answer(200, version if self.path == "/health" else next(self.counted, self.counters))

    def do_POST(self) -> None:
        type(self).presented = self.headers["authorization"]
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(self.status, json.dumps({"items": [{"item_id": "i"}]}))

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body.encode()) + self.cut))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def peer() -> type[Peer]:
    return type("Now", (Peer,), {})


@pytest.fixture
def service(peer: type[Peer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(service_watch, "PAUSE_SECONDS", 0.01)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), peer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Service(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()


def test_a_version_is_confirmed_when_it_answers(service: Service, peer: type[Peer]) -> None:
    assert service.confirm("v1", seconds=1)
    assert not service.confirm("v2", seconds=0.1)
    peer.version = "v2"
    assert service.confirm("v2", seconds=1)


def test_a_service_that_fails_after_the_activation_is_told_of(service: Service, peer: type[Peer]) -> None:
    before = service.ask(["a"] * 20)
    assert before.error_rate == 0
    assert service.watch(before, ["a"] * 20, seconds=0.1) is None
    peer.status = 500
    worse = service.watch(before, ["a"] * 20, seconds=0.1)
    assert worse is not None
    assert worse.startswith("100.0% of the requests fail")


@pytest.mark.parametrize("status", [401, 403])
def test_a_service_that_wants_a_key_is_no_service_that_answers(service: Service, peer: type[Peer], status: int) -> None:
    peer.status = status
    with pytest.raises(UserError, match="MTS4MM_API_KEY_FILE"):
        service.ask(["a"])


def test_the_key_comes_from_a_file_or_the_environment(
    service: Service, peer: type[Peer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MTS4MM_API_KEY", "from-environment")
    service.ask(["a"])
    assert peer.presented == "Bearer from-environment"
    (tmp_path / "key").write_text("from-file\n")
    monkeypatch.setenv("MTS4MM_API_KEY_FILE", str(tmp_path / "key"))
    service.ask(["a"])
    assert peer.presented == "Bearer from-file"
    (tmp_path / "key").unlink()
    with pytest.raises(UserError, match=r"MTS4MM_API_KEY_FILE=.*cannot be read"):
        service.ask(["a"])


def test_its_own_counters_are_read(service: Service, peer: type[Peer]) -> None:
    peer.counters = (
        'mts4mm_http_requests_total{method="POST",route="/recommend",status="200"} 90.0\n'
        'mts4mm_http_requests_total{method="POST",route="/recommend",status="503"} 10.0\n'
        'mts4mm_http_request_duration_seconds_sum{route="/recommend",outcome="ok"} 4.5\n'
        'mts4mm_http_request_duration_seconds_count{route="/recommend",outcome="ok"} 90.0\n'
        'mts4mm_http_request_duration_seconds_bucket{route="/recommend",outcome="ok",le="0.1"} 90.0\n'
    )
    traffic = service.traffic()
    assert traffic == Traffic(requests=100, errors=10, timed=90, seconds=4.5)
    assert (traffic.error_rate, traffic.mean_seconds) == (0.1, 0.05)


def counters(of: str, ok: int, failed: int) -> str:
    of_requests = 'mts4mm_http_requests_total{method="POST",route="/recommend",status="%d"} %d\n'
    return f'mts4mm_counters_info{{of="{of}"}} 1.0\n' + of_requests % (200, ok) + of_requests % (503, failed)


def test_what_one_of_several_services_counted_is_not_set_against_another_s(service: Service, peer: type[Peer]) -> None:
    """One of the two had an outage once; since the activation nothing has failed."""
    peer.counted = itertools.cycle([counters("a", 10_000, 0), counters("b", 10_000, 400)])
    assert service.watch(Traffic(requests=10_000), ["u"], seconds=0.2) is None


def test_each_of_several_services_is_watched(service: Service, peer: type[Peer]) -> None:
    rising = ([counters("a", 10_000, 0), counters("b", 10_000, 400 + 30 * turn)] for turn in itertools.count())
    peer.counted = itertools.chain.from_iterable(rising)
    worse = service.watch(Traffic(requests=10_000), ["u"], seconds=2)
    assert worse is not None
    assert worse.startswith("100.0% of the requests fail")


def test_a_version_that_only_some_of_several_services_answer_with_is_waited_for(
    service: Service, peer: type[Peer]
) -> None:
    peer.versions = itertools.cycle(["v1", "v2"])
    assert not service.confirm("v2", seconds=0.1)
    peer.versions = itertools.chain(["v2", "v1", "v2"], itertools.repeat("v2"))
    assert service.confirm("v2", seconds=5)


def test_a_service_that_ends_in_the_middle_of_its_answer_has_not_answered(service: Service, peer: type[Peer]) -> None:
    peer.cut = 10
    assert service.version() is None
    assert service.traffic() == Traffic()
    assert service.ask(["a"]).error_rate == 1


def test_what_counts_as_worse() -> None:
    before = Traffic(requests=100, errors=1, timed=100, seconds=1.0)
    assert worsened(before, Traffic(19, 19, 19, 19)) is None, "too few"
    assert worsened(before, Traffic(100, 1, 100, 6.9)) is None
    assert "71 ms since the activation, before it took 10 ms" in str(worsened(before, Traffic(100, 1, 100, 7.1)))
    assert "3.0% of the requests fail since the activation, before it 1.0% did" in str(
        worsened(before, Traffic(100, 3, 100, 1.0))
    )


def test_a_service_that_is_away_answers_with_nothing() -> None:
    away = Service("http://127.0.0.1:9")
    assert away.version() is None
    assert away.traffic() == Traffic()
    assert away.ask(["a"]).error_rate == 1
    with pytest.raises(UserError, match="begins with http"):
        Service("localhost:8000")
