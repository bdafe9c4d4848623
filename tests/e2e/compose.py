"""Brings the compose file up on a real engine, breaks it in every way that it must survive, and says what it saw.

    make e2e-compose            or    python tests/e2e/compose.py [--keep] [--only NAME ...]

Needs `docker compose`, nothing else: plain Python, no packages. Uses a project of its own and a free port, and removes
everything at the end unless told to keep it.
"""

import argparse
import base64
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "mts4mm-e2e"
LARGEST_SERVICE_IMAGE_MB = 600


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Stack:
    """One compose project.

    Attributes:
        figures: what is worth telling, by name.
        key: the API key that is presented, if any is.
    """

    port: int = field(default_factory=_free_port)
    project: str = PROJECT
    environment: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ("docker-compose.yml",)
    figures: dict[str, str] = field(default_factory=dict)
    key: str | None = None

    def compose(self, *words: str, check: bool = True, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run ``docker compose`` on this project."""
        files = [part for name in self.files for part in ("-f", str(ROOT / name))]
        done = subprocess.run(
            ["docker", "compose", "-p", self.project, *files, *words],
            cwd=ROOT,
            env={**os.environ, "MTS4MM_PORT": str(self.port), **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"docker compose {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}"
            )
        return done

    def container(self, service: str) -> str:
        """The id of a service's container, also of one that has ended."""
        return self.compose("ps", "--all", "--quiet", service).stdout.strip()

    def ask(
        self, path: str, body: object | None = None, method: str | None = None, basic: str | None = None
    ) -> tuple[int, Any]:
        """Status and document of an answer; an error status is an answer. ``basic`` is a name and its password."""
        proof = None if basic is None else f"Basic {base64.b64encode(basic.encode()).decode()}"
        if self.key is not None:
            proof = f"Bearer {self.key}"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"} | ({} if proof is None else {"authorization": proof}),
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content.decode(errors="replace")

    def recommend(self, user: str = "u0001") -> list[str]:
        """The ids of a user's items."""
        status, answer = self.ask("/recommend", {"user_id": user, "k": 20})
        assert status == 200, (status, answer)
        return [item["item_id"] for item in answer["items"]]

    def send_event(self, user: str, item: str) -> int:
        """Send one purchase; returns the status."""
        event = {
            "event_id": uuid4().hex,
            "user_id": user,
            "item_id": item,
            "type": "purchase",
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        return self.ask("/events", event)[0]

    def until(self, what: str, condition: Callable[[], bool], seconds: float = 120) -> float:
        """Wait until something holds; returns the seconds it took."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            try:
                if condition():
                    return time.monotonic() - started
            except (OSError, AssertionError, ValueError):
                pass
            time.sleep(0.25)
        raise AssertionError(f"not within {seconds:.0f} s: {what}")

    def night(self, settings: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a night by hand, with other settings than the stack's if any are given."""
        words = ["exec", "-T", "retrain", "mts4mm", "nightly"]
        if settings is not None:
            write = f"echo '{json.dumps(settings)}' > /tmp/night.yaml"
            self.compose("exec", "-T", "retrain", "sh", "-c", write)
            words += ["--settings", "/tmp/night.yaml"]
        return self.compose(*words, check=False)

    def version(self) -> str:
        """The live model's version."""
        return str(self.ask("/health")[1]["model_version"])


@contextmanager
def load(stack: Stack) -> Iterator[dict[str, int]]:
    """Ask for recommendations without pause meanwhile; yields how many were answered, by kind."""
    seen = {"answered": 0, "refused": 0, "unreachable": 0}
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            try:
                status, _ = stack.ask("/recommend", {"user_id": "u0002", "k": 20})
                seen["answered" if status == 200 else "refused"] += 1
            except OSError:
                seen["unreachable"] += 1
                time.sleep(0.05)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def comes_up(stack: Stack) -> None:
    """From nothing to an answer, and how long that takes once the images are there."""
    started = time.monotonic()
    stack.compose("build")
    stack.figures["images built"] = f"{time.monotonic() - started:.0f} s"
    started = time.monotonic()
    stack.compose("up", "--detach", "--wait")
    stack.until("a recommendation", lambda: len(stack.recommend()) == 20)
    stack.figures["from up to the first answer"] = f"{time.monotonic() - started:.0f} s"
    status, health = stack.ask("/health")
    assert (status, health["status"]) == (200, "ok"), health


def console_loads(stack: Stack) -> None:
    """The page and all that it names."""
    status, page = stack.ask("/console/")
    assert status == 200, status
    named = re.findall(r'(?:href|src)="((?!#|\.\.)[^"]+)"', page)
    assert {"main.js", "style.css"} <= set(named), named
    for name in named:
        status, content = stack.ask(f"/console/{name}")
        assert status == 200, (name, status)
        assert content, name


def containers_are_hardened(stack: Stack) -> None:
    """No root, no writable root file system, no capabilities, bounds on everything, and one port on loopback alone."""
    for service in ("redis", "service", "retrain"):
        [found] = json.loads(_docker("inspect", stack.container(service)))
        host, config = found["HostConfig"], found["Config"]
        assert config["User"] not in ("", "root", "0"), (service, config["User"])
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert any("no-new-privileges" in option for option in host["SecurityOpt"]), service
        assert host["Memory"] > 0, service
        assert host["NanoCpus"] > 0, service
        assert host["Init"], service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        assert host["LogConfig"]["Config"].keys() == {"max-size", "max-file"}, host["LogConfig"]
        bound = [entry["HostIp"] for entries in (host["PortBindings"] or {}).values() for entry in entries]
        assert bound == (["127.0.0.1"] if service == "service" else []), (service, bound)
    seen = _docker("exec", stack.container("service"), "python", "-c", "import torch", check=False)
    assert "No module named 'torch'" in seen, seen


def observability_watches(stack: Stack) -> None:
    """The profile adds Prometheus and Grafana, as hardened as the rest, and they see the service.

    What this engine has no image for, and cannot pull, is told as not run.
    """
    said = stack.compose("--profile", "observability", "config", "--format", "json").stdout
    services = json.loads(said)["services"]
    for name in ("prometheus", "grafana"):
        added = services[name]
        assert added["read_only"], name
        assert added["cap_drop"] == ["ALL"], name
        assert int(added["mem_limit"]) > 0, name
        assert all(port["host_ip"] == "127.0.0.1" for port in added.get("ports", [])), name
    run = {name: _obtainable(services[name]["image"]) for name in ("prometheus", "grafana")}
    stack.figures["observability"] = ", ".join(f"{name} {'run' if run[name] else 'NOT RUN'}" for name in run)
    if run["prometheus"]:
        _prometheus_sees_the_service(stack)
    if run["grafana"]:
        _grafana_shows_it(stack)


def _obtainable(image: str) -> bool:
    """Whether the engine has an image, or gets it."""
    return bool(_docker("image", "ls", "--quiet", image)) or "Error" not in _docker("pull", image, check=False)


def _prometheus_sees_the_service(stack: Stack) -> None:
    stack.compose("--profile", "observability", "up", "--detach", "--wait", "prometheus")
    container = stack.container("prometheus")

    def asked(path: str) -> Any:
        return json.loads(_docker("exec", container, "wget", "-q", "-O", "-", f"http://127.0.0.1:9090/api/v1/{path}"))

    def value(expression: str) -> str:
        [found] = asked(f"query?query={urllib.parse.quote(expression)}")["data"]["result"]
        return str(found["value"][1])

    stack.until("Prometheus scrapes the service", lambda: value('up{job="mts4mm"}') == "1", 60)
    recorded = "sum(mts4mm:requests:rate5m)"
    stack.until("a rule has been recorded", lambda: bool(stack.recommend()) and float(value(recorded)) > 0, 90)
    rules = [rule for group in asked("rules")["data"]["groups"] for rule in group["rules"]]
    assert rules, "no rules"
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
    assert not firing, firing


def _grafana_shows_it(stack: Stack) -> None:
    port = str(_free_port())
    grafana = replace(stack, port=int(port), environment={**stack.environment, "GRAFANA_PORT": port})
    stack.compose("--profile", "observability", "up", "--detach", "--wait", "prometheus")
    grafana.compose("--profile", "observability", "up", "--detach", "--wait", "--no-deps", "grafana")
    password = _docker("exec", stack.container("service"), "cat", "/secrets/grafana-password").strip()
    for path in (ROOT / "deploy" / "observability" / "grafana" / "dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        status, shown = grafana.ask(f"/api/dashboards/uid/{board['uid']}", basic=f"admin:{password}")
        assert status == 200, shown
        assert len(shown["dashboard"]["panels"]) == len(board["panels"])
    query = "/api/datasources/proxy/uid/prometheus/api/v1/query?query=up"
    assert grafana.ask(query, basic=f"admin:{password}")[1]["data"]["result"]


def asks_for_keys(stack: Stack) -> None:
    """With a file of keys only they are answered, each within its scopes; the night has one of its own."""
    made = stack.compose("run", "--rm", "keys", "new", "/keys/keys.json", "web-shop", "--scope", "read").stdout.strip()
    words = ("new", "/keys/keys.json", "retrain", "--scope", "read", "--into", "/keys/retrain")
    assert stack.compose("run", "--rm", "keys", *words).stdout == ""
    stack.environment["MTS4MM_KEYS"] = "/keys/keys.json"
    stack.compose("up", "--detach", "--wait")
    assert stack.ask("/recommend", {"user_id": "u0001"})[0] == 401
    stack.key = made
    assert len(stack.recommend()) == 20
    assert stack.send_event("u0001", "x") == 403
    done = stack.night({"least_new": 1_000_000})
    assert done.returncode == NOTHING_NEW, done.stderr[-3000:] + done.stdout[-1000:]
    stack.compose("run", "--rm", "keys", "revoke", "/keys/keys.json", "web-shop")
    stack.until("the revoked key is refused", lambda: stack.ask("/recommend", {"user_id": "u0001"})[0] == 401, 10)
    stack.key = None
    del stack.environment["MTS4MM_KEYS"]
    stack.compose("up", "--detach", "--wait")
    assert len(stack.recommend()) == 20


def service_image_is_small(stack: Stack) -> None:
    """All files of the image; a folder of wheels that a base image brings for builds does not count."""
    listed = _docker(
        "run", "--rm", "--user", "0", "--entrypoint", "du", "mts4mm-service", "-smx", "--exclude=/wheels", "/"
    )
    size = int(listed.split()[0])
    stack.figures["service image"] = f"{size} MB"
    assert size <= LARGEST_SERVICE_IMAGE_MB, f"{size} MB"


def images_list_what_is_in_them(stack: Stack) -> None:
    """The SBOM has every package that is there, of its version."""
    program = (
        "import importlib.metadata as m, json, re\n"
        "bom = json.load(open('/opt/mts4mm/sbom.json'))\n"
        "plain = lambda name: re.sub('[-_.]+', '-', name).lower()\n"
        "listed = {(plain(part['name']), part['version']) for part in bom['components']}\n"
        "there = {(plain(d.metadata['Name']), d.version) for d in m.distributions()}\n"
        "print(json.dumps([bom['bomFormat'], len(there), sorted(there - listed)]))\n"
    )
    for image in ("mts4mm-service", "mts4mm-trainer"):
        said = json.loads(_docker("run", "--rm", "--entrypoint", "python", image, "-c", program))
        assert said[0] == "CycloneDX", said
        assert said[2] == [], said
        stack.figures[f"packages in {image}"] = str(said[1])


def events_change_answers(stack: Stack) -> None:
    """What a user has just taken is not recommended again."""
    first = stack.recommend("u0003")[0]
    assert stack.send_event("u0003", first) == 200
    assert first not in stack.recommend("u0003")


def night_is_picked_up(stack: Stack) -> None:
    """The nightly job by hand. If the gate refuses its model, a night whose gate lets all pass goes live; then back."""
    before = stack.version()
    for number in range(200):
        assert stack.send_event(f"u{number:04}", stack.recommend(f"u{number:04}")[-1]) == 200
    done = stack.night()
    assert done.returncode in (PROMOTED, REFUSED), done.stderr[-3000:] + done.stdout[-1000:]
    stack.figures["the night ended with"] = f"exit code {done.returncode}, {done.stdout.splitlines()[0]}"
    if done.returncode == REFUSED:
        assert stack.version() == before
        done = stack.night(_OPEN_GATE)
        assert done.returncode == PROMOTED, done.stderr[-3000:] + done.stdout[-1000:]
    live = _docker("exec", stack.container("retrain"), "head", "-1", "/models/CURRENT").strip()
    assert live != before
    assert stack.version() == live, "the night ends when the service answers with its model"
    stack.compose("exec", "-T", "retrain", "mts4mm", "models", "rollback", "/models")
    taken = stack.until("the service answers with the version before", lambda: stack.version() == before, 30)
    stack.figures["a rollback was live after"] = f"{taken:.1f} s"


_MARGINS = ("ndcg", "slice", "teacher", "coverage", "concentration")
_OPEN_GATE = {
    "train": {"recipe": "demo"},
    "gate": {f"{name}_margin": 100 for name in _MARGINS} | {"kept": 0, "index_recall": 0},
    "least_new": 20,
    "watch_seconds": 10,
}


def stops_gracefully(stack: Stack) -> None:
    """Stopped under load, the service ends by itself, in time, and meanwhile answers nobody with an error."""
    with load(stack) as seen:
        time.sleep(1)
        started = time.monotonic()
        stack.compose("stop", "service")
        stack.figures["stopping the service took"] = f"{time.monotonic() - started:.1f} s"
    [found] = json.loads(_docker("inspect", stack.container("service")))
    assert found["State"]["ExitCode"] == 0, found["State"]
    assert seen["answered"] > 0, seen
    assert seen["refused"] == 0, seen
    stack.compose("up", "--detach", "--wait", "service")


def survives_service_killed_under_load(stack: Stack) -> None:
    """The service comes back by the restart policy, and answers."""
    kill = "import os, pathlib; os.kill(int(pathlib.Path('/proc/1/task/1/children').read_text().split()[0]), 9)"
    with load(stack) as seen:
        time.sleep(1)
        _docker("exec", stack.container("service"), "python", "-c", kill, check=False)
        stack.until("it is gone", lambda: _restarts(stack) == 1, 30)
        back = stack.until("answers again", lambda: len(stack.recommend()) == 20, 60)
    stack.figures["service killed: answers again after"] = f"{back:.1f} s"
    assert seen["refused"] == 0, seen


def _restarts(stack: Stack) -> int:
    [found] = json.loads(_docker("inspect", stack.container("service")))
    return int(found["RestartCount"])


def survives_redis_killed(stack: Stack) -> None:
    """Recommendations go on without Redis; what was accepted before is there after."""
    kept = stack.recommend("u0004")[0]
    assert stack.send_event("u0004", kept) == 200
    with load(stack) as seen:
        _docker("kill", "--signal", "KILL", stack.container("redis"))
        stack.until("degraded", lambda: stack.ask("/health")[1]["status"] == "degraded", 30)
        assert stack.send_event("u0004", kept) == 503
        _docker("start", stack.container("redis"))
        stack.until("ok again", lambda: stack.ask("/health")[1]["status"] == "ok", 60)
    assert seen["refused"] == seen["unreachable"] == 0, seen
    stack.figures["recommendations while Redis was killed"] = f"{seen['answered']} answered, none failed"
    assert kept not in stack.recommend("u0004")


def survives_down_and_up(stack: Stack) -> None:
    """Events, models, live items and hidden items are still there."""
    version, taken = stack.version(), stack.recommend("u0005")[0]
    assert stack.send_event("u0005", taken) == 200
    hidden = stack.recommend("u0006")[0]
    assert stack.ask(f"/items/{hidden}", method="DELETE")[0] in (200, 204)
    placed_by = stack.ask("/console/api/model")[1]["placed_by"]
    features = {entry["modality"]: [0.1] * entry["width"] for entry in placed_by}
    status, answer = stack.ask("/items/put-1", {"metadata": {"title": "Put"}, "features": features}, "PUT")
    assert status in (200, 201), answer
    stack.compose("down")
    stack.compose("up", "--detach", "--wait")
    assert stack.version() == version
    stack.until("Redis is read", lambda: stack.ask("/health")[1]["status"] == "ok", 30)
    assert taken not in stack.recommend("u0005")
    stack.until("the hidden item stays hidden", lambda: hidden not in stack.recommend("u0006"), 10)
    stack.until("the live item is there", lambda: stack.ask("/items/put-1")[0] == 200, 10)
    assert len(stack.ask("/items/put-1/similar?k=5")[1]["items"]) == 5


def comes_back_from_a_backup(stack: Stack) -> None:
    """The documented way (docs/compose.md), as on another machine: no volume is left, and all of it is there again."""
    taken = stack.recommend("u0008")[0]
    assert stack.send_event("u0008", taken) == 200
    kept = _files_beside_the_models(stack)

    def mounts(top: str) -> list[str]:
        return [word for name in BACKED_UP for word in ("-v", f"{stack.project}_{name}:{top}/{name}")]

    with tempfile.TemporaryDirectory() as folder:
        stack.compose("stop")
        pack = ("tar", "-C", "/from", "-czf", "/to/backup.tar.gz", ".")
        _docker("run", "--rm", *mounts("/from"), "-v", f"{folder}:/to", _PYTHON, *pack)
        stack.compose("start")
        stack.until("it answers again", lambda: len(stack.recommend()) == 20, 60)
        stack.compose("--profile", "*", "down", "--volumes")
        stack.compose("create")
        unpack = ("tar", "-C", "/to", "-xzf", "/from/backup.tar.gz")
        _docker("run", "--rm", *mounts("/to"), "-v", f"{folder}:/from:ro", _PYTHON, *unpack)
        stack.compose("up", "--detach", "--wait")
    stack.until("Redis is read", lambda: stack.ask("/health")[1]["status"] == "ok", 30)
    assert taken not in stack.recommend("u0008")
    assert _files_beside_the_models(stack) == kept
    done = stack.night({"least_new": 1_000_000})
    assert done.returncode == NOTHING_NEW, done.stderr[-3000:] + done.stdout[-1000:]


def _files_beside_the_models(stack: Stack) -> list[str]:
    """The shop's, the keys, and the encoders."""
    return sorted(_docker("exec", stack.container("retrain"), "find", "/data/shop", "/keys", "/encoders").splitlines())


BACKED_UP = ("redis", "log", "models", "shop", "keys", "encoders")
_PYTHON = os.environ.get("PYTHON_IMAGE", "python:3.11-slim-bookworm")


def survives_a_corrupted_newest_model(stack: Stack) -> None:
    """A damaged version that CURRENT names is refused: by the running service, and by one that starts."""
    version = stack.version()
    retrain = stack.container("retrain")
    damage = (
        "import pathlib, shutil\n"
        f"good = pathlib.Path('/models/{version}')\n"
        "bad = good.with_name('20990101T000000Z-00000000')\n"
        "shutil.copytree(good, bad)\n"
        "table = bad / 'item_embeddings.npy'\n"
        "table.write_bytes(table.read_bytes()[:-100])\n"
        "current = good.parent / 'CURRENT'\n"
        "current.write_text(bad.name + '\\n' + current.read_text())\n"
    )
    _docker("exec", retrain, "python", "-c", damage)
    stack.until("the refusal shows", lambda: stack.ask("/health")[1]["status"] == "degraded", 30)
    assert len(stack.recommend()) == 20
    stack.compose("restart", "service")
    stack.until("a restarted service answers with the version before", lambda: stack.version() == version, 60)
    _docker("exec", retrain, "python", "-c", _MEND)
    stack.until("ok again", lambda: stack.ask("/health")[1]["status"] == "ok", 30)


_MEND = (
    "import pathlib, shutil\n"
    "current = pathlib.Path('/models/CURRENT')\n"
    "current.write_text(current.read_text().partition('\\n')[2])\n"
    "shutil.rmtree('/models/20990101T000000Z-00000000')\n"
)


def survives_a_wrong_secret(stack: Stack) -> None:
    """With a wrong Redis password recommendations go on, events are refused, and nothing says the password."""
    wrong = (
        "import pathlib\n"
        "url = pathlib.Path('/secrets/redis-url')\n"
        "text = url.read_text()\n"
        "url.unlink()\n"
        "url.write_text(text.replace('redis://:', 'redis://:wrong'))\n"
    )
    stack.compose("run", "--rm", "--no-deps", "--entrypoint", "python", "secrets", "-c", wrong)
    stack.compose("restart", "service")
    stack.until("degraded", lambda: stack.ask("/health")[1]["status"] == "degraded", 60)
    assert len(stack.recommend()) == 20
    assert stack.send_event("u0007", "x") == 503
    logs = stack.compose("logs", "service").stdout
    password = _docker("exec", stack.container("redis"), "cat", "/secrets/redis-password").strip()
    assert password not in logs
    stack.compose("run", "--rm", "--no-deps", "secrets")
    stack.compose("restart", "service")
    stack.until("ok again", lambda: stack.ask("/health")[1]["status"] == "ok", 60)


def survives_a_full_disk(stack: Stack) -> None:
    """A night without room for a model fails, says so, and changes nothing; with room it works again."""
    files = ("docker-compose.yml", "tests/e2e/compose.small-disk.yml")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _own_shop(Path(folder))
        small = Stack(project=f"{stack.project}-small-disk", files=files, environment=_own(folder))
        with _running(small):
            version, retrain = small.version(), small.container("retrain")
            for user in OWN_USERS[:40]:
                assert small.send_event(user, small.recommend(user)[-1]) == 200
            _docker("exec", retrain, "sh", "-c", "dd if=/dev/zero of=/models/.filler bs=64k 2>/dev/null; true")
            done = small.night()
            said = f"exit code {done.returncode}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
            assert done.returncode not in (PROMOTED, REFUSED), said
            assert "No space left" in said, said
            assert "Traceback" not in said, said
            assert small.version() == version
            assert len(small.recommend(OWN_USERS[0])) > 0
            assert small.send_event(OWN_USERS[0], small.recommend(OWN_USERS[0])[0]) == 200
            _docker("exec", retrain, "rm", "/models/.filler")
            done = small.night()
            assert done.returncode in (PROMOTED, REFUSED), done.stderr[-3000:]


def serves_own_data(stack: Stack) -> None:
    """The documented way (docs/compose.md): a folder of one's own, its words and pictures encoded, and new items."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _own_shop(Path(folder))
        own = Stack(project=f"{stack.project}-own-data", environment=_own(folder))
        try:
            encoding = ("encode --only text /data/shop", "encoders fit image /data/shop", "encode /data/shop")
            for words in map(str.split, encoding):
                own.compose("run", "--rm", "--no-deps", "--quiet-pull", "retrain", *words)
            own.compose("up", "--detach", "--wait")
            answer = own.ask("/recommend", {"user_id": OWN_USERS[1], "k": 5})[1]
            assert answer["strategy"] == "personal", answer
            assert all(item["item_id"].startswith("own-") for item in answer["items"]), answer
            assert own.ask(f"/items/{answer['items'][0]['item_id']}/image")[0] == 200
            _a_picture_and_words_place_an_item(own)
        finally:
            own.compose("down", "--volumes", check=False)


def _a_picture_and_words_place_an_item(own: Stack) -> None:
    """The service's own image runs both encoders: what is put is near what looks and reads like it."""
    new = {"metadata": {"title": COLOURS[2][0] + " mug"}, "image": base64.b64encode(_png(COLOURS[2][1])).decode()}
    status, answer = own.ask("/items/new-mug", new, "PUT")
    assert status in (200, 201), answer
    assert sorted(answer["modalities"]) == ["image", "text"], answer
    assert own.ask("/items/new-mug/image")[0] == 200
    for by in ("image", "text"):
        near = own.ask(f"/console/api/near?item_id=new-mug&by={by}&k=3")[1]["items"]
        assert {item["metadata"]["title"].split()[0] for item in near} == {COLOURS[2][0]}, (by, near)
    history = {"history": [near[0]["item_id"]], "k": 100}
    assert "new-mug" in [item["item_id"] for item in own.ask("/recommend", history)[1]["items"]]


OWN_ITEMS = 96
OWN_USERS = tuple(f"own-user-{number}" for number in range(60))
COLOURS = (("Red", (220, 30, 30)), ("Green", (30, 180, 60)), ("Blue", (30, 60, 220)), ("White", (240, 240, 240)))


def _own(folder: str) -> dict[str, str]:
    return {"MTS4MM_DATA": folder, "MTS4MM_RECIPE": "demo"}


def _own_shop(shop: Path) -> None:
    """A folder as a user brings it: who took what, and items with words and pictures."""
    rows = [f"{user},own-{(place * step) % OWN_ITEMS}" for place, user in enumerate(OWN_USERS) for step in range(1, 12)]
    (shop / "interactions.csv").write_text("user_id,item_id\n" + "\n".join(dict.fromkeys(rows)) + "\n")
    (shop / "images").mkdir()
    lines = ["item_id,title,image"]
    for number in range(OWN_ITEMS):
        name, (red, green, blue) = COLOURS[number % len(COLOURS)]
        (shop / "images" / f"{number}.png").write_bytes(_png((red, green, blue - number // 8)))
        lines.append(f"own-{number},{name} mug number {number},images/{number}.png")
    (shop / "items.csv").write_text("\n".join(lines) + "\n")
    shop.chmod(0o777)  # the containers' user writes features beside it


def _png(colour: tuple[int, int, int], side: int = 48) -> bytes:
    """A picture of one colour."""
    row = b"\0" + bytes(colour) * side
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row * side)))
    body = b"".join(_chunk(kind, content) for kind, content in (*chunks, (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@contextmanager
def _running(stack: Stack) -> Iterator[None]:
    """Bring a stack up beside the one under test, and take it down."""
    try:
        stack.compose("up", "--detach", "--wait")
        yield
    finally:
        stack.compose("down", "--volumes", check=False)


PROMOTED, REFUSED, NOTHING_NEW = 0, 10, 11


def _docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=300)
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(words)[:200]}: {done.stderr[-2000:]}")
    return done.stdout + ("" if check else done.stderr)


CHECKS: tuple[Callable[[Stack], None], ...] = (
    comes_up,
    console_loads,
    containers_are_hardened,
    observability_watches,
    service_image_is_small,
    images_list_what_is_in_them,
    events_change_answers,
    night_is_picked_up,
    asks_for_keys,
    stops_gracefully,
    survives_service_killed_under_load,
    survives_redis_killed,
    survives_down_and_up,
    comes_back_from_a_backup,
    survives_a_corrupted_newest_model,
    survives_a_wrong_secret,
    survives_a_full_disk,
    serves_own_data,
)


def _run(check: Callable[[Stack], None], stack: Stack) -> tuple[str, float]:
    """What came of a check, and the seconds it took."""
    started = time.monotonic()
    try:
        check(stack)
        outcome = "ok"
    except (AssertionError, OSError, subprocess.SubprocessError, KeyError, ValueError) as error:
        outcome = f"FAILED: {error}"
    return outcome, time.monotonic() - started


def _summary(stack: Stack, outcomes: dict[str, tuple[str, float]]) -> str:
    lines = ["", "What was checked, and how long it took:"]
    lines += [
        f"  {seconds:6.0f} s  {name:40} {outcome.splitlines()[0]}" for name, (outcome, seconds) in outcomes.items()
    ]
    lines += ["", "What was measured:", *(f"  {name}: {figure}" for name, figure in stack.figures.items())]
    return "\n".join(lines)


def main() -> int:
    """Run the checks in order; 0 if all of them passed."""
    names = {check.__name__: check for check in CHECKS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the containers and volumes at the end")
    parser.add_argument("--only", nargs="+", choices=names, help="these checks alone, after coming up")
    wanted = parser.parse_args()
    chosen = [check for name, check in names.items() if not wanted.only or name in {*wanted.only, "comes_up"}]
    stack, outcomes = Stack(), {}
    try:
        for check in chosen:
            print(f"{check.__name__} ...", flush=True)
            outcomes[check.__name__] = _run(check, stack)
            print(f"  {outcomes[check.__name__][0]}", flush=True)
            if check is comes_up and outcomes[check.__name__][0] != "ok":
                break
        if any(outcome != "ok" for outcome, _ in outcomes.values()):
            print(stack.compose("logs", "--tail", "60", check=False).stdout)
    finally:
        if not wanted.keep:
            stack.compose("--profile", "*", "down", "--volumes", check=False)
    print(_summary(stack, outcomes))
    return int(any(outcome != "ok" for outcome, _ in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
