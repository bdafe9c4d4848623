"""What the service counts and times, for Prometheus.

Every name begins with ``mts4mm_``; no label holds a user, an item or a key. With several workers each writes its own
files into a folder that their parent made (``service/workers.py``), and whichever is asked adds them up.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.connections import CUT_REASONS, CutReason
from service.live_model import SwapResult

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where the workers' files are; prometheus-client reads it when it is imported."""

UNMATCHED = "unmatched"
"""The route of requests that no route took."""

GONE = 499
"""The status of requests whose client went away before the answer."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SWAP_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_ANSWERS = (
    ("personal", "trained"),
    ("personal", "trained_and_new_events"),
    ("history", "folded_in"),
    ("trending", "unknown_user"),
    ("trending", "no_events"),
    ("popular", "unknown_user"),
    ("popular", "no_events"),
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, that nobody asks for


class Facts(Protocol):
    """Says at every scrape what is so at that moment."""

    def __call__(self) -> Iterable[Metric]:
        """The metrics of this moment."""
        ...


class Metrics:
    """The service's instruments. Safe from any number of threads."""

    def __init__(self, event_types: Iterable[str] = ()) -> None:
        """Make them, in a registry of their own; ``event_types`` are those that there may be."""
        self._registry = CollectorRegistry()
        self._facts: list[Facts] = [_whose]
        self._requests = self._counter("http_requests", "Answered requests.", "method", "route", "status")
        self._durations = self._histogram(
            "http_request_duration_seconds", "From a request to its answer.", _LATENCY_BUCKETS, "route", "outcome"
        )
        self._in_flight = self._gauge("http_requests_in_flight", "Requests being worked on.")
        self._waiting = self._gauge("http_requests_waiting", "Requests waiting for their turn.")
        self._shed = self._counter("http_requests_shed", "Requests answered 503 because of the load.", "reason")
        self._timeouts = self._counter("http_request_timeouts", "Requests that took longer than they may.")
        self._cut = self._counter(
            "http_connections_cut", "Connections whose clients sent or took too little.", "reason"
        )
        self._recommendations = self._counter(
            "recommendations", "Answers to who asked for recommendations.", "strategy", "reason"
        )
        self._events = self._counter("events", "Events that were sent.", "type", "outcome")
        self._swaps = self._counter("model_swaps", "Models put in place or refused, by each worker.", "outcome")
        self._swap_durations = self._histogram(
            "model_swap_duration_seconds", "Loading, checking and putting in place.", _SWAP_BUCKETS
        )
        self._state_durations = self._histogram(
            "state_duration_seconds", "Calls to the user state in Redis.", _LATENCY_BUCKETS, "operation", "outcome"
        )
        self._by_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        # Children by their labels: to look them up each time costs more than to count.
        self._by_answer: dict[tuple[str, str], Counter] = {}
        self._start_at_zero(event_types)

    def request(self, method: str, route: str, status: int, seconds: float, *, shed: bool) -> None:
        """Count and time an answered request; ``route`` is a template, and ``shed`` says it was load shedding."""
        key = (method, route, -status if shed else status)
        instruments = self._by_request.get(key)
        if instruments is None:
            named = method if method in _METHODS else "other"
            instruments = self._by_request[key] = (
                self._requests.labels(named, route, status),
                self._durations.labels(route, "shed" if shed else _outcome(status)),
            )
            if named != method:
                del self._by_request[key]  # anybody can make up methods
        counter, histogram = instruments
        counter.inc()
        histogram.observe(seconds)

    def load(self, in_flight: int, waiting: int) -> None:
        """Say how many requests are being worked on and how many wait."""
        self._in_flight.set(in_flight)
        self._waiting.set(waiting)

    def shed(self, reason: str) -> None:
        """Count a request that was turned away: ``full`` or ``late``."""
        self._shed.labels(reason).inc()

    def timeout(self) -> None:
        """Count a request that took too long."""
        self._timeouts.inc()

    def cut(self, reason: CutReason, count: int) -> None:
        """Count connections that were cut: ``large_head``, ``slow_head`` or ``unread_answer``."""
        self._cut.labels(reason).inc(count)

    def recommendation(self, strategy: str, reason: str) -> None:
        """Count an answer to one user."""
        counter = self._by_answer.get((strategy, reason))
        if counter is None:
            counter = self._by_answer[strategy, reason] = self._recommendations.labels(strategy, reason)
        counter.inc()

    def event(self, type_: str, outcome: str, count: int = 1) -> None:
        """Count events of one type: ``accepted``, ``duplicate``, ``rejected`` or ``unavailable``."""
        self._events.labels(type_, outcome).inc(count)

    def state_call(self, operation: str, outcome: str, seconds: float) -> None:
        """Time a call to the user state: ``ok`` or ``unavailable``."""
        self._state_durations.labels(operation, outcome).observe(seconds)

    def swap(self, result: SwapResult) -> None:
        """Count and time a model that was put in place or refused."""
        self._swaps.labels(result.outcome).inc()
        self._swap_durations.observe(result.seconds)

    def add_facts(self, facts: Facts) -> None:
        """Ask ``facts`` at every scrape."""
        self._facts.append(facts)

    def exposition(self) -> bytes:
        """Write everything in Prometheus' text format."""
        registry = CollectorRegistry()
        if FOLDER_VARIABLE in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(self._registry)
        registry.register(_AtScrape(self._facts))
        return generate_latest(registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"mts4mm_{name}", what, labels, registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"mts4mm_{name}", what, labels, registry=self._registry, buckets=buckets)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"mts4mm_{name}", what, registry=self._registry, multiprocess_mode="livesum")

    def _start_at_zero(self, event_types: Iterable[str]) -> None:
        """A rate over a series that is not there yet misses its first event."""
        for reason in ("full", "late"):
            self._shed.labels(reason)
        for cut_reason in CUT_REASONS:
            self._cut.labels(cut_reason)
        for outcome in ("swapped", "refused"):
            self._swaps.labels(outcome)
        for strategy, reason in _ANSWERS:
            self._recommendations.labels(strategy, reason)
        for type_ in event_types:
            self._events.labels(type_, "unavailable")


_OF = uuid4().hex


def _whose() -> Iterable[Metric]:
    """Of which service the counters are: of this process, or of all workers of a parent, whichever is asked."""
    folder = os.environ.get(FOLDER_VARIABLE)
    of = _OF if folder is None else Path(folder).name
    yield InfoMetricFamily("mts4mm_counters", "Whose counters these are, by a random name.", {"of": of})


class _AtScrape(Collector):
    def __init__(self, facts: list[Facts]) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        for facts in self._facts:
            yield from facts()


def _outcome(status: int) -> str:
    if status < 400:
        return "success"
    return "refused" if status < 500 else "error"
