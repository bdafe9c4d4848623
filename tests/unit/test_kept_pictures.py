"""Pictures beside the models: one an item, the last one."""

from pathlib import Path

from shared.kept_pictures import FOLDER, keep_picture, kept_picture


def files(store: Path) -> int:
    return len(list((store / FOLDER).glob("*/*")))


def test_an_item_has_the_picture_that_was_kept_last(tmp_path: Path) -> None:
    assert kept_picture(tmp_path, "a") is None
    keep_picture(tmp_path, "a", b"first")
    keep_picture(tmp_path, "../b/ü\ud800", b"other")
    keep_picture(tmp_path, "a", b"second")
    assert kept_picture(tmp_path, "a") == b"second"
    assert kept_picture(tmp_path, "../b/ü\ud800") == b"other"
    assert files(tmp_path) == 2
    assert {path.name for path in tmp_path.iterdir()} == {FOLDER}


def test_an_item_that_was_put_without_a_picture_has_none_any_more(tmp_path: Path) -> None:
    keep_picture(tmp_path, "never had one", None)
    assert not (tmp_path / FOLDER).exists()
    keep_picture(tmp_path, "a", b"first")
    keep_picture(tmp_path, "a", None)
    assert kept_picture(tmp_path, "a") is None
    keep_picture(tmp_path, "a", b"first")
    assert kept_picture(tmp_path, "a") == b"first"
