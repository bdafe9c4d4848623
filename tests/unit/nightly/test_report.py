"""Reports of nights: what they say of users goes with the users, and a dry run is no night that anybody waits for."""

import json
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from shared.state import open_state
from tests.unit.nightly.test_versions import published
from trainer.nightly.job import Night
from trainer.nightly.journal import Journal
from trainer.nightly.outcome import Outcome
from trainer.nightly.places import Places
from trainer.nightly.report import read_status, write_report
from trainer.nightly.settings import NightlySettings

SAMPLE = {"took": [], "held_out": [], "student": [], "teachers": {}, "shares": {}}


def ended_night(own: Path, *, dry_run: bool = False) -> Journal:
    identity = {"dry_run": dry_run, "champion": None, "settings": {}}
    journal = Journal.begin(own / "runs", identity)
    journal.step("snapshot", lambda: {"interactions": 7, "users": 2, "items": 3})
    return journal


def test_forgotten_users_leave_earlier_reports_in_nights_that_have_nothing_new_too(tmp_path: Path) -> None:
    base, store = tmp_path / "base", tmp_path / "models"
    base.mkdir()
    (base / "interactions.csv").write_text("user_id,item_id,timestamp\nann,i0,1\nbob,i1,2\n")
    published(store, np.eye(2))
    places = Places(base, store, tmp_path / "log")

    def night() -> Outcome:
        opener = partial(open_state, None, tmp_path / "state")
        return Night(places, NightlySettings(), opener, {"view": 1.0}).run().outcome

    path = write_report(places.own, ended_night(places.own), "nothing_new", "quiet")
    samples = [{"user_id": user, **SAMPLE} for user in ("ann-who-leaves", "bob")]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"samples": samples}))
    for user, left in (("cyd", ["ann-who-leaves", "bob"]), ("ann-who-leaves", ["bob"])):
        with open_state(None, tmp_path / "state") as state:
            state.forget(user)
        assert night() == Outcome.NOTHING_NEW
        assert [sample["user_id"] for sample in json.loads(path.read_text())["samples"]] == left

    page = path.with_suffix(".html").read_text()
    assert "bob" in page
    assert "ann-who-leaves" not in page


@pytest.mark.parametrize(
    ("verdict", "said", "reasons"),
    [
        ("promoted", "every check passed", ["another was made live"]),
        ("refused", "ndcg fell", ["ndcg fell"]),
        ("undecided", "too few users", ["too few users"]),
    ],
)
def test_the_gate_s_reasons_are_the_night_s_where_the_gate_ended_it(
    tmp_path: Path, verdict: str, said: str, reasons: list[str]
) -> None:
    night = ended_night(tmp_path)
    gate = {"verdict": verdict, "judged_users": 60, "reasons": [said], "checks": [], "figures": {}}
    night.step("gate", lambda: gate)
    path = write_report(tmp_path, night, "refused", "another was made live")
    assert json.loads(path.read_text())["reasons"] == reasons
    assert read_status(tmp_path)["reasons"] == reasons


def test_prometheus_is_told_of_moments_to_the_second(tmp_path: Path) -> None:
    write_report(tmp_path, ended_night(tmp_path), "nothing_new", "quiet")
    lines = (tmp_path / "metrics.prom").read_text().splitlines()
    said = dict(line.split() for line in lines if "_timestamp_seconds " in line and not line.startswith("#"))
    ended = datetime.fromisoformat(read_status(tmp_path)["ended"]).timestamp()
    assert float(said["mts4mm_nightly_last_run_timestamp_seconds"]) == pytest.approx(ended, abs=1)
    assert float(said["mts4mm_nightly_last_success_timestamp_seconds"]) == pytest.approx(ended, abs=1)


@pytest.mark.parametrize("before", [True, False])
def test_a_dry_run_leaves_status_and_metrics_as_they_are(tmp_path: Path, before: bool) -> None:
    if before:
        write_report(tmp_path, ended_night(tmp_path), "refused", "worse")
    status, metrics = read_status(tmp_path), tmp_path / "metrics.prom"
    said = metrics.read_text() if before else None

    path = write_report(tmp_path, ended_night(tmp_path, dry_run=True), "promoted", "would be promoted")

    assert json.loads(path.read_text())["outcome"] == "promoted"
    assert read_status(tmp_path) == status
    assert (metrics.read_text() if metrics.exists() else None) == said
