"""What Prometheus is told of the last night is what the nightly job itself wrote down."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.settings import Settings
from tests.unit.service.conftest import publish
from trainer.nightly.report import write_failure, write_status


def told(models: Path) -> dict[str, float | str]:
    """What /metrics says of the nightly job, by name without prefix."""
    with TestClient(create_app(Settings(models=models))) as client:
        text = client.get("/metrics").text
    prefix = "mts4mm_nightly_last_"
    return {
        "/".join(
            [
                sample.name.removeprefix(prefix),
                *(sample.labels[name] for name in ("model", "of") if name in sample.labels),
            ]
        ): (sample.labels.get("verdict", sample.value))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(prefix)
    }


def seconds(hour: int, minute: int) -> float:
    return datetime(2026, 11, 24, hour, minute, tzinfo=UTC).timestamp()


def test_a_night_is_told_of_as_the_job_left_it_and_a_failure_keeps_the_last_success(tmp_path: Path) -> None:
    publish(tmp_path)
    assert told(tmp_path) == {}
    night = {"started": "2026-11-24T03:00:00+00:00", "ended": "2026-11-24T03:20:00+00:00", "reason": "it is better"}
    judged = {
        "gate": {"verdict": "promoted", "figures": {"challenger.ndcg@20": 0.2, "champion.ndcg@20": 0.1, "other": 1}},
        "data": {"drift": {"new_users": 0.5, "new_items": 0.0, "popularity": 0.3}},
    }
    write_status(tmp_path / ".nightly", {**night, **judged, "outcome": "promoted"})
    assert told(tmp_path) == {
        "start_timestamp_seconds": seconds(3, 0),
        "success_timestamp_seconds": seconds(3, 20),
        "duration_seconds": 1200.0,
        "verdict_info": "promoted",
        "ndcg/challenger": 0.2,
        "ndcg/champion": 0.1,
        "drift/new_users": 0.5,
        "drift/new_items": 0.0,
        "drift/popularity": 0.3,
    }
    write_failure(tmp_path / ".nightly", None, "the disk is full")
    after = told(tmp_path)
    assert after["verdict_info"] == "failed"
    assert after["success_timestamp_seconds"] == seconds(3, 20)
    assert after["ndcg/challenger"] == 0.2
    assert after["start_timestamp_seconds"] == pytest.approx(datetime.now(UTC).timestamp(), abs=60)
