"""The running service as the nightly job sees it: over HTTP, from outside.

It asks which model answers, reads the service's own counters (``/metrics``) and asks for recommendations itself, so
that a service without traffic is judged too. Behind one URL there may be several services, each with counters of its
own: each counts from where it was first seen.
"""

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import UserError

KEY_VARIABLE = "MTS4MM_API_KEY"
"""The environment variable with the key to ask with, where the service wants one."""
KEY_FILE_VARIABLE = f"{KEY_VARIABLE}_FILE"
"""The one that names a file with it instead, as Docker and Kubernetes hand secrets over."""
ANSWER_SECONDS = 10.0
PAUSE_SECONDS = 0.5
MOST_ERRORS = 0.01
"""How much the share of failed requests may rise."""
SLOWER = 2.0
SLOWER_SECONDS = 0.05
"""An answer may take twice as long as before, and so many seconds more."""
CONFIRMATIONS = 5
"""So many answers in a row must come from a version: behind one URL there may be several services."""
LEAST_REQUESTS = 20
"""With fewer requests their share of errors and their mean time say nothing."""

_TURNED_AWAY = (401, 403)
_SERIES = re.compile(r"^mts4mm_http_(requests_total|request_duration_seconds_(?:sum|count))\{([^}]*)\} (\S+)$", re.M)
_STATUS = re.compile(r'status="(\d+)"')
_WHOSE = re.compile(r'^mts4mm_counters_info\{of="([^"]*)"\} 1', re.M)


@dataclass(frozen=True)
class Traffic:
    """Requests so far, those of them that failed, and the seconds that they took."""

    requests: float = 0.0
    errors: float = 0.0
    timed: float = 0.0
    seconds: float = 0.0

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(mine - its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def error_rate(self) -> float:
        """The share of requests that failed."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def mean_seconds(self) -> float:
        """How long a request took."""
        return self.seconds / self.timed if self.timed else 0.0


class Service:
    """A service at a URL."""

    def __init__(self, url: str) -> None:
        """Ask nothing yet.

        Raises:
            UserError: it is no URL of HTTP.
        """
        if not url.startswith(("http://", "https://")):
            raise UserError(f"--service {url}: give a URL that begins with http:// or https://")
        self._url = url.rstrip("/")

    def version(self) -> str | None:
        """The version that answers; None if none does, or the service does not."""
        try:
            version = json.loads(self._get("/health")).get("model_version")
        except (OSError, ValueError):
            return None
        return version if isinstance(version, str) else None

    def confirm(self, version: str, seconds: float) -> bool:
        """Wait until a version answers every time; whether it does."""
        deadline = time.monotonic() + seconds
        while any(self.version() != version for _ in range(CONFIRMATIONS)):
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE_SECONDS)
        return True

    def traffic(self) -> Traffic:
        """What the service that answers has counted; nothing where it has none to give."""
        return self._counted()[1]

    def _counted(self) -> tuple[str, Traffic]:
        """Whose counters answer, "" where they do not say, and what they have counted."""
        try:
            text = self._get("/metrics").decode()
        except (OSError, ValueError):
            return "", Traffic()
        found = Traffic()
        for name, labels, value in _SERIES.findall(text):
            number = float(value)
            if name == "requests_total":
                status = _STATUS.search(labels)
                failed = status is not None and status.group(1).startswith("5")
                found += Traffic(requests=number, errors=number if failed else 0.0)
            elif name.endswith("_sum"):
                found += Traffic(seconds=number)
            else:
                found += Traffic(timed=number)
        whose = _WHOSE.search(text)
        return ("" if whose is None else whose.group(1)), found

    def ask(self, user_ids: Sequence[str]) -> Traffic:
        """Ask for recommendations for some users, one after the other.

        Raises:
            UserError: the service wants a key that opens them; what it answers to others says nothing about a model.
        """
        asked = Traffic()
        for user_id in user_ids:
            started = time.perf_counter()
            failed = 0.0
            try:
                answer = json.loads(self._post("/recommend", {"user_id": user_id, "k": 20}))
                failed = float(not answer["items"])
            except urllib.error.HTTPError as error:
                if error.code in _TURNED_AWAY:
                    raise UserError(
                        f"{self._url}: wants an API key with scope read (HTTP {error.code}): name one in "
                        f"{KEY_VARIABLE} or {KEY_FILE_VARIABLE}; 'mts4mm keys new' makes it"
                    ) from None
                failed = float(error.code >= 500)
            except (OSError, ValueError, KeyError):
                failed = 1.0
            asked += Traffic(1.0, failed, 1.0, time.perf_counter() - started)
        return asked

    def watch(self, before: Traffic, user_ids: Sequence[str], seconds: float) -> str | None:
        """Look on for a while; why the new model must go, or None.

        Args:
            before: what was asked and counted before the activation.
            user_ids: whom to ask for.
            seconds: how long.
        """
        whose, counted = self._counted()
        first, latest, asked = {whose: counted}, {whose: counted}, Traffic()
        deadline = time.monotonic() + seconds
        while True:
            asked += self.ask(user_ids)
            whose, counted = self._counted()
            latest[whose] = counted
            counted_since = sum((latest[each] - first.setdefault(each, counted) for each in latest), Traffic())
            since = max(counted_since, asked, key=lambda traffic: traffic.requests)
            worse = worsened(before, since)
            if worse is not None or time.monotonic() > deadline:
                return worse
            time.sleep(PAUSE_SECONDS)

    def _get(self, path: str) -> bytes:
        return self._send(urllib.request.Request(f"{self._url}{path}"))  # noqa: S310 - checked above

    def _post(self, path: str, body: Any) -> bytes:
        headers = {"content-type": "application/json"}
        return self._send(urllib.request.Request(f"{self._url}{path}", json.dumps(body).encode(), headers))  # noqa: S310

    def _send(self, request: urllib.request.Request) -> bytes:
        key = _key()
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:  # noqa: S310
                content: bytes = response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"the service ended in the middle of an answer ({error!r})") from error
        return content


def _key() -> str | None:
    """The key to ask with; read for every request, so that a new one counts at once.

    Raises:
        UserError: the file that should have it cannot be read.
    """
    file = os.environ.get(KEY_FILE_VARIABLE)
    if not file:
        return os.environ.get(KEY_VARIABLE)
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise UserError(f"{KEY_FILE_VARIABLE}={file}: cannot be read ({error})") from None


def worsened(before: Traffic, since: Traffic) -> str | None:
    """In plain words what has become worse; None if nothing has, or too little was asked to say so."""
    if since.requests < LEAST_REQUESTS:
        return None
    if since.error_rate > before.error_rate + MOST_ERRORS:
        return (
            f"{since.error_rate:.1%} of the requests fail since the activation, before it {before.error_rate:.1%} did"
        )
    bound = SLOWER * before.mean_seconds + SLOWER_SECONDS
    if before.timed and since.mean_seconds > bound:
        return (
            f"a request takes {1e3 * since.mean_seconds:.0f} ms since the activation, before it took "
            f"{1e3 * before.mean_seconds:.0f} ms"
        )
    return None
