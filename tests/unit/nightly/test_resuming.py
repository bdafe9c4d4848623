"""Which night an interrupted one is gone on with by: the same settings, champion and base."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.encoders import EncoderFolder
from shared.errors import UserError
from tests.unit.encoders.conftest import store, words
from trainer.cli.encoders import encode_catalogue
from trainer.encoders.store import add_text_network
from trainer.nightly.drain import StateOpener
from trainer.nightly.job import Night
from trainer.nightly.places import Places
from trainer.nightly.settings import NightlySettings

__all__ = ["store", "words"]


def no_state() -> StateOpener:
    raise AssertionError("a night that has not begun asks nobody")


@pytest.fixture
def base(tmp_path: Path, store: Path, words: EncoderFolder) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "items.csv").write_text("item_id,title\ni0,red mug\ni1,blue lamp\n")
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\nu0,i0,1\nu1,i1,2\n")
    encode_catalogue(folder, folder, {"text": "words"}, {"text": ["title"]}, store, threads=1)
    return folder


@pytest.fixture
def taken_up(base: Path, tmp_path: Path) -> Callable[[], str]:
    """The name of the night that would be gone on with now."""
    places = Places(base, tmp_path / "models", tmp_path / "log")
    return lambda: Night(places, NightlySettings(), no_state, {"view": 1.0}).journal.name


def test_a_base_that_is_the_same_is_gone_on_with_though_it_was_written_anew(
    taken_up: Callable[[], str], base: Path, store: Path
) -> None:
    night = taken_up()
    encode_catalogue(base, base, {"text": "words"}, {"text": ["title"]}, store, threads=1)
    (base / "items.csv").write_bytes((base / "items.csv").read_bytes())
    assert taken_up() == night


def test_another_base_in_the_same_place_is_another_night(
    taken_up: Callable[[], str], base: Path, store: Path, tmp_path: Path
) -> None:
    nights = [taken_up()]
    (base / "items.csv").write_text("item_id,title\ni0,red mug\ni1,blue lamb\n")
    nights.append(taken_up())
    other = {"max_tokens": 8, "pooling": "mean"}
    network = store / "text" / "words"
    add_text_network(store, "other", network / "model.onnx", network / "tokenizer.json", other)
    encode_catalogue(base, base, {"text": "other"}, {"text": ["title"]}, store, threads=1)
    nights.append(taken_up())
    assert len(set(nights)) == 3


def test_a_base_that_is_not_there_is_named(taken_up: Callable[[], str], base: Path) -> None:
    base.rename(base.with_name("elsewhere"))
    with pytest.raises(UserError, match=r"base: cannot be listed"):
        taken_up()
