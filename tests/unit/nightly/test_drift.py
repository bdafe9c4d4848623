"""How far a night's interactions are from the live model's training."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shared import artifact
from shared.ids import IdMap
from tests.unit.service.conftest import publish
from trainer.nightly.drift import drift, popularity_shift


def test_shares_are_of_who_and_what_the_model_does_not_know(tmp_path: Path) -> None:
    publish(tmp_path)
    champion = artifact.load(tmp_path)
    user, item = champion.users.outside(0), champion.items.outside(0)
    fresh = pl.DataFrame({"user": [user, user, user, "stranger"], "item": [item, "new", item, "newer"]})
    found = drift(fresh, champion)
    assert found is not None
    assert (found.new_users, found.new_items) == (0.25, 0.5)
    assert drift(fresh.clear(), champion) is None


def test_an_id_of_many_rows_is_not_looked_up_in_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path)
    champion = artifact.load(tmp_path)
    user, item = champion.users.outside(0), champion.items.outside(0)
    looked_up: list[str] = []
    dense = IdMap.dense

    def counted(ids: IdMap, outside: str) -> int | None:
        looked_up.append(outside)
        return dense(ids, outside)

    monkeypatch.setattr(IdMap, "dense", counted)
    found = drift(pl.DataFrame({"user": [user, "stranger"] * 500, "item": [item, "new"] * 500}), champion)
    assert found is not None
    assert (found.new_users, found.new_items) == (0.5, 0.5)
    assert len(looked_up) <= 4


def test_the_shift_is_the_stability_index_over_groups_of_equal_popularity() -> None:
    """Two halves of the training's interactions, of one item and of a hundred: a dense reference by hand."""
    before = np.array([100] + [1] * 100)
    now = np.array([900] + [1] * 100)
    p, q = np.array([100.5, *[20.5] * 5]), np.array([900.5, *[20.5] * 5])
    p, q = p / p.sum(), q / q.sum()
    assert popularity_shift(before, now) == pytest.approx(((p - q) * np.log(p / q)).sum())
    assert popularity_shift(before, np.zeros(101, np.int64)) > 0
    assert np.isfinite(popularity_shift(before, np.zeros(101, np.int64)))
