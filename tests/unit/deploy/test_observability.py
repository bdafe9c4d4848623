"""Rules, alerts and dashboards: sound, and about metrics that the service really has."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.unit.service.conftest import publish
from trainer.nightly.report import write_status

_METRIC = re.compile(r"\b(?:mts4mm|process)_[a-z0-9_]+")
_HISTOGRAM_PART = re.compile(r"_(?:bucket|sum|count)$")
FOLDER = Path(__file__).parents[3] / "deploy" / "observability"


NIGHT = {
    "started": "2026-11-24T03:00:00+00:00",
    "ended": "2026-11-24T03:20:00+00:00",
    "outcome": "promoted",
    "reason": "it is better",
    "gate": {"verdict": "promoted", "figures": {"challenger.ndcg@20": 0.2, "champion.ndcg@20": 0.1}},
    "data": {"drift": {"new_users": 0.5, "new_items": 0.0, "popularity": 0.3}},
}


def promtool(*words: str) -> None:
    """Debian's package `prometheus` has it; `make test` installs it."""
    program = shutil.which("promtool")
    assert program, "promtool is missing: apt-get install prometheus"
    done = subprocess.run([program, *words], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [("check", "rules", "rules.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "rules_test.yml")],
)
def test_promtool_finds_no_fault(words: tuple[str, ...]) -> None:
    promtool(*words)


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    alerts = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case["exp_alerts"]}
    assert fired == set(alerts)
    for rule in alerts.values():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "action"}


def expressions() -> list[str]:
    rules = yaml.safe_load((FOLDER / "rules.yml").read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for path in (FOLDER / "grafana" / "dashboards").glob("*.json"):
        found += [target["expr"] for panel in dashboard(path)["panels"] for target in panel["targets"]]
    return found


def dashboard(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_what_is_asked_for_is_what_the_service_says(tmp_path: Path) -> None:
    publish(tmp_path)
    write_status(tmp_path / ".nightly", NIGHT)
    with TestClient(create_app(Settings(models=tmp_path))) as client:
        client.post("/recommend", json={"user_id": "ann"})
        text = client.get("/metrics").text
    asked = {_HISTOGRAM_PART.sub("", name) for text in expressions() for name in _METRIC.findall(text)}
    said = {_HISTOGRAM_PART.sub("", line.split()[2]) for line in text.splitlines() if line.startswith("# TYPE")}
    assert asked <= said | {f"{name}_total" for name in said}, asked - said


def test_dashboards_use_recorded_series_that_are_recorded() -> None:
    rules = yaml.safe_load((FOLDER / "rules.yml").read_text())
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    used = {name for text in expressions() for name in re.findall(r"mts4mm:[a-z0-9_:]+", text)}
    assert used <= recorded


def test_dashboards_can_be_told_apart_and_say_their_units() -> None:
    boards = [dashboard(path) for path in (FOLDER / "grafana" / "dashboards").glob("*.json")]
    assert len({board["uid"] for board in boards}) == len(boards) >= 2
    for board in boards:
        for panel in board["panels"]:
            assert panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"]
