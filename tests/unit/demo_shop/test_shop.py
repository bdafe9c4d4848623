import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.errors import UsageError, UserError
from trainer.demo_shop import make_shop
from trainer.demo_shop.pictures import PALETTES, PATTERNS

SMALL: dict[str, Any] = {"users": 50, "items": 50}

MAKE = """
import sys
from pathlib import Path
from trainer.demo_shop import make_shop
make_shop(Path(sys.argv[1]), users=50, items=50, seed=3)
"""

MAKE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from trainer.demo_shop import make_shop

def die(stage, done, total):
    if (stage, done) == (sys.argv[2], int(sys.argv[3])):
        os.kill(os.getpid(), signal.SIGKILL)

make_shop(Path(sys.argv[1]), users=50, items=50, seed=4, progress=die)
"""


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def killed(directory: Path, stage: str, done: int) -> None:
    command = [sys.executable, "-c", MAKE_AND_DIE, str(directory), stage, str(done)]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL


def test_the_folder_holds_what_a_customer_could_see_and_nothing_else(shop) -> None:
    assert {path.name for path in shop.directory.iterdir()} == {
        "demo-shop.json",
        "encoders",
        "image_feat.json",
        "image_feat.npy",
        "images",
        "interactions.csv",
        "items.csv",
        "text_feat.json",
        "text_feat.npy",
    }
    assert list(shop.items[0]) == ["item_id", "title", "description", "image", "category", "price", "colour"]
    assert list(shop.interactions[0]) == ["user_id", "item_id", "timestamp"]
    stamp = json.loads((shop.directory / "demo-shop.json").read_text())
    assert stamp == {"made_by": "mts4mm demo-data", "seed": 7, "users": 300, "items": 240}


def test_sizes_ids_and_rows_agree(shop) -> None:
    assert len({item["item_id"] for item in shop.items}) == 240
    assert shop.items[42]["item_id"] == f"{shop.items[42]['category']}-0042"
    assert {row["user_id"] for row in shop.interactions} == {f"u{number:04d}" for number in range(1, 301)}
    assert {row["item_id"] for row in shop.interactions} <= {item["item_id"] for item in shop.items}
    assert len(shop.image_feat) == len(shop.text_feat) == 240
    assert shop.image_feat.dtype == shop.text_feat.dtype == np.float32
    assert all(float(item["price"]) > 0 for item in shop.items)


def test_everybody_buys_at_least_five_different_items(shop) -> None:
    pairs = [(row["user_id"], row["item_id"]) for row in shop.interactions]
    assert len(set(pairs)) == len(pairs)
    baskets = Counter(user for user, _ in pairs)
    assert min(baskets.values()) == 5
    assert 8 < len(pairs) / 300 < 12


def test_interactions_are_in_order_of_time_within_the_hundred_and_twenty_days(shop) -> None:
    times = [int(row["timestamp"]) for row in shop.interactions]
    assert times == sorted(times)
    opened, closed = datetime(2025, 9, 8, tzinfo=UTC), datetime(2026, 1, 6, tzinfo=UTC)
    assert opened.timestamp() <= times[0]
    assert times[-1] < closed.timestamp()
    assert len({time // 86400 for time in times}) > 100


def test_what_was_written_is_what_was_drawn(shop) -> None:
    written = {(int(row["user_id"][1:]) - 1, int(row["item_id"][-4:])) for row in shop.interactions}
    assert written == set(zip(shop.truth.users.tolist(), shop.truth.items.tolist(), strict=True))


def test_one_item_in_fifty_lacks_a_picture_and_one_in_fifty_a_description(shop) -> None:
    no_picture = [not item["image"] for item in shop.items]
    no_description = [not item["description"] for item in shop.items]
    assert sum(no_picture) == sum(no_description) == round(240 / 50)
    assert np.isnan(shop.image_feat).all(axis=1).tolist() == no_picture
    assert np.isnan(shop.text_feat).all(axis=1).tolist() == no_description
    assert np.isfinite(shop.image_feat).all(axis=1).sum() == 240 - sum(no_picture)
    assert np.isfinite(shop.text_feat).all(axis=1).sum() == 240 - sum(no_description)


def test_pictures_are_where_the_table_says(shop) -> None:
    named = {item["image"] for item in shop.items if item["image"]}
    assert {f"images/{path.name}" for path in (shop.directory / "images").iterdir()} == named
    with Image.open(shop.directory / min(named)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (96, 96))


def test_texts_vary_and_leave_no_slot_open(shop) -> None:
    titles = Counter(item["title"] for item in shop.items)
    descriptions = [item["description"] for item in shop.items if item["description"]]
    assert max(titles.values()) <= 3
    assert len(set(descriptions)) == len(descriptions)
    assert not any(set("{}[]") & set(text) for text in [*titles, *descriptions])
    assert all(item["category"] in item["title"].lower() and item["title"][0].isupper() for item in shop.items)


def test_texts_say_nothing_of_colour_or_pattern(shop) -> None:
    looks = {word for palette in PALETTES for word in palette.names}
    looks |= {word for name in PATTERNS for part in name.split() for word in (part, part.rstrip("s"))}
    texts = " ".join(item["title"] + " " + item["description"] for item in shop.items)
    assert not looks & set(re.findall(r"[a-z]+", texts.lower()))


@pytest.mark.slow
def test_same_seed_same_bytes_in_another_process(tmp_path: Path) -> None:
    make_shop(tmp_path / "here", **SMALL, seed=3)
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", MAKE, str(tmp_path / "there")], check=True, env=environment)
    assert digests(tmp_path / "here") == digests(tmp_path / "there")


def test_another_seed_is_another_shop(shop, tmp_path: Path) -> None:
    make_shop(tmp_path / "other", users=300, items=50, seed=8)
    assert (tmp_path / "other" / "interactions.csv").read_bytes() != (shop.directory / "interactions.csv").read_bytes()


def test_progress_ends_at_the_total_of_each_stage(tmp_path: Path) -> None:
    last: dict[str, tuple[int, int]] = {}
    make_shop(tmp_path / "shop", **SMALL, progress=lambda stage, done, total: last.update({stage: (done, total)}))
    assert len(last) == 5
    assert set(last.values()) == {(50, 50)}


@pytest.mark.parametrize("wrong", [{"users": 49}, {"items": 0}, {"seed": -1}])
def test_sizes_too_small_are_refused_by_name(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=rf"{next(iter(wrong))} is {next(iter(wrong.values()))}"):
        make_shop(tmp_path / "shop", **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


def test_somebodys_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("mine")
    with pytest.raises(UserError, match="not a demo shop"):
        make_shop(tmp_path, **SMALL)
    assert (tmp_path / "interactions.csv").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["interactions.csv"]


def test_a_shop_with_somebodys_file_in_it_is_refused(tmp_path: Path) -> None:
    make_shop(tmp_path / "shop", **SMALL)
    (tmp_path / "shop" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        make_shop(tmp_path / "shop", **SMALL, seed=1)
    assert (tmp_path / "shop" / "notes.txt").read_text() == "mine"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for place in (tmp_path / "taken", tmp_path / "taken" / "shop"):
        with pytest.raises(UserError, match="taken"):
            make_shop(place, **SMALL)
    assert (tmp_path / "taken").read_text() == "mine"


def test_an_empty_folder_and_an_earlier_shop_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    make_shop(tmp_path / "shop", **SMALL, seed=1)
    make_shop(tmp_path / "shop", **SMALL, seed=2)
    make_shop(tmp_path / "fresh", **SMALL, seed=2)
    assert digests(tmp_path / "shop") == digests(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {"shop", "fresh"}


def test_a_link_leads_to_its_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    make_shop(tmp_path / "link", **SMALL)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "items.csv").exists()


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_shop(tmp_path / "shop", **SMALL, progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "done"), [("drawing pictures", 10), ("reading texts", 50)])
def test_killed_half_way_nothing_is_there_and_the_next_run_clears_up(tmp_path: Path, stage: str, done: int) -> None:
    killed(tmp_path / "shop", stage, done)
    assert not (tmp_path / "shop").exists()
    assert len(list(tmp_path.iterdir())) == 1
    make_shop(tmp_path / "shop", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


@pytest.mark.slow
def test_killed_half_way_the_earlier_shop_stays(tmp_path: Path) -> None:
    make_shop(tmp_path / "shop", **SMALL)
    before = digests(tmp_path / "shop")
    killed(tmp_path / "shop", "looking at pictures", 10)
    assert digests(tmp_path / "shop") == before


@pytest.mark.slow
def test_two_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    def second(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("drawing pictures", 10):
            make_shop(tmp_path / "shop", **SMALL, seed=5)

    make_shop(tmp_path / "shop", **SMALL, seed=6, progress=second)
    make_shop(tmp_path / "alone", **SMALL, seed=6)
    assert digests(tmp_path / "shop") == digests(tmp_path / "alone")
    assert {path.name for path in tmp_path.iterdir()} == {"shop", "alone"}
