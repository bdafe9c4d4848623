"""A file of recommendations says what the service would answer, and is whole or not there."""

import csv
import json
from pathlib import Path

import pytest

from service.batch import main, write_recommendations
from service.client import Client
from service.schemas import RecommendRequest
from service.settings import Settings
from shared.errors import UsageError, UserError
from tests.unit.service.test_live_items import USERS, mug, publish_model
from tests.unit.service.test_state_over_http import event

GONE = "redis://127.0.0.1:9/0"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish_model(tmp_path / "m")
    return tmp_path / "m"


def written(models: Path, out: Path, k: int = 5, users: Path | None = None) -> dict[str, list[tuple[str, float]]]:
    write_recommendations(Settings(models=models), out, k, users)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    return {line["user_id"]: [(item["item_id"], item["score"]) for item in line["items"]] for line in lines}


def answered(shop: Client, user_id: str, k: int = 5) -> list[tuple[str, float]]:
    found = shop.recommend(RecommendRequest(user_id=user_id, k=k))
    return [(item.item_id, item.score) for item in found.items]


def test_it_is_what_the_service_answers_with_all_that_has_happened_since(
    shop: Client, models: Path, tmp_path: Path
) -> None:
    shop.put_item("mug", mug())
    shop.record_events([event("u1", "i3"), event("new", "i4"), event("u2", "i5", "hide")])
    shop.retire_item("i0")
    shop.forget_user("u7")

    found = written(models, tmp_path / "all.jsonl")
    assert list(found) == [f"u{user}" for user in range(USERS) if user != 7]
    for user_id, items in found.items():
        told = answered(shop, user_id)
        assert [item for item, _ in items] == [item for item, _ in told]
        assert [score for _, score in items] == pytest.approx([score for _, score in told], rel=1e-6)
    assert any(item == "mug" for items in found.values() for item, _ in items)
    assert all(item != "i0" for items in found.values() for item, _ in items)


def test_those_who_are_named_are_answered_each_once_known_or_not(shop: Client, models: Path, tmp_path: Path) -> None:
    shop.record_events([event("new", "i4")])
    (tmp_path / "users.txt").write_bytes("\ufeffnew\r\nu1\r\nstranger\r\n\r\nu1\r\n".encode())
    found = written(models, tmp_path / "some.jsonl", users=tmp_path / "users.txt")
    assert list(found) == ["new", "u1", "stranger"]
    for user_id, items in found.items():
        assert items == answered(shop, user_id)


def test_as_csv_it_has_a_row_an_item(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--models", str(models), "--out", str(tmp_path / "all.csv"), "--k", "3"])
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    of_first = rows[:3]
    assert {row["user_id"] for row in of_first} == {"u0"}
    assert [row["rank"] for row in of_first] == ["1", "2", "3"]
    assert {row["strategy"] for row in rows} <= {"personal", "popular"}
    lines = [(row["item_id"], float(row["score"])) for row in of_first]
    assert lines == written(models, tmp_path / "all.jsonl", 3)["u0"]
    assert f"{len(rows)} items for {USERS} users" in capsys.readouterr().out


def test_without_the_state_nothing_is_written(models: Path, tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("of yesterday")
    away = Settings(models=models, redis_url=GONE)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Nothing was written"):
        write_recommendations(away, tmp_path / "all.csv", 5)
    assert (tmp_path / "all.csv").read_text() == "of yesterday"
    assert {path.name for path in tmp_path.iterdir()} == {"all.csv", "m"}


@pytest.mark.parametrize(
    ("out", "k", "users", "error", "said"),
    [
        ("all.xlsx", 5, None, UsageError, r"\*.csv or \*.jsonl"),
        ("nowhere/all.csv", 5, None, UserError, "is no folder"),
        ("all.csv", 0, None, UsageError, "from 1 to 500"),
        ("all.csv", 5, b"", UserError, "names nobody"),
        ("all.csv", 5, "ü".encode("latin-1"), UserError, "is not UTF-8"),
    ],
)
def test_what_cannot_be_done_is_said(
    models: Path, tmp_path: Path, out: str, k: int, users: bytes | None, error: type[UserError], said: str
) -> None:
    if users is not None:
        (tmp_path / "users.txt").write_bytes(users)
    with pytest.raises(error, match=said):
        write_recommendations(
            Settings(models=models), tmp_path / out, k, None if users is None else tmp_path / "users.txt"
        )


def test_without_a_model_or_a_list_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mts4mm train"):
        write_recommendations(Settings(models=tmp_path), tmp_path / "all.csv", 5)
    publish_model(tmp_path / "m")
    with pytest.raises(UserError, match="a user's id a line"):
        write_recommendations(Settings(models=tmp_path / "m"), tmp_path / "all.csv", 5, tmp_path / "nobody.txt")
