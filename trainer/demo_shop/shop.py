"""The demo shop as a dataset directory: interactions, items, pictures and features.

Only what a customer could see is written. The folder is built beside its final place and then renamed, so that
it is there whole or not at all.
"""

import csv
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.encoders.texts import TEXT_FIELDS
from shared.errors import UsageError, UserError
from trainer.demo_shop.features import image_features, text_features
from trainer.demo_shop.pictures import STYLES, draw_picture
from trainer.demo_shop.truth import ShopTruth, draw_shop
from trainer.demo_shop.words import KINDS, THEMES, write_copy
from trainer.encoders.encode import LOCK, Source, encode_modality
from trainer.encoders.features_manifest import ENCODERS
from trainer.encoders.sources import IMAGE_FIELDS, PictureSource, TextSource, read_items

Progress = Callable[[str, int, int], None]
"""Called with (what is being made, how many are done, how many there are in all)."""

MIN_USERS = 50
MIN_ITEMS = 50

_STAMP = "demo-shop.json"
_CONTENTS = {_STAMP, "interactions.csv", "items.csv", "images", ENCODERS, LOCK} | {
    f"{modality}_feat.{kind}" for modality in ("image", "text") for kind in ("npy", "json")
}
_OPENED = 1_757_289_600
"""2025-09-08 00:00 UTC, in Unix seconds."""
_DAYS = 120
_SHARE_WITHOUT = 0.02


class Item(NamedTuple):
    """A row of ``items.csv``, in the order of its columns."""

    item_id: str
    title: str
    description: str
    image: str
    category: str
    price: str
    colour: str


def make_shop(
    directory: Path, *, users: int = 2000, items: int = 800, seed: int = 0, progress: Progress | None = None
) -> None:
    """Make a synthetic shop; the same seed and sizes make the same files, byte for byte.

    Writes ``interactions.csv``, ``items.csv``, ``images/``, and ``image_feat.npy`` and ``text_feat.npy``, both
    float32, row r for row r of ``items.csv``, with the encoders that make them. One item in fifty has no picture and
    one in fifty no description; their rows of the features are NaN.

    Args:
        directory: Where; new, empty, or a shop made earlier, which is replaced.
        users: How many users, at least `MIN_USERS`.
        items: How many items, at least `MIN_ITEMS`.
        seed: Another seed is another shop; not negative.
        progress: Told how far it is.

    Raises:
        UsageError: A size or the seed is too small.
        UserError: The place is taken or cannot be written, or Pillow or scikit-learn is missing.
    """
    for name, value, least in (("users", users, MIN_USERS), ("items", items, MIN_ITEMS), ("seed", seed, 0)):
        if value < least:
            raise UsageError(f"{name} is {value}: give at least {least}")
    directory = directory.resolve()
    try:
        _refuse_taken(directory)
        with _replacing(directory) as building:
            _write_shop(building, draw_shop(seed, users=users, items=items), seed, progress or _silent)
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror or error}; choose another folder") from error


def _silent(stage: str, done: int, total: int) -> None:
    del stage, done, total


def _refuse_taken(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is not a folder: name a new one for the shop")
    if not directory.exists():
        return
    present = {entry.name for entry in directory.iterdir()}
    if not present:
        return
    if _STAMP not in present:
        raise UserError(f"{directory} is not empty and not a demo shop: name a new folder, or empty it")
    foreign = sorted(present - _CONTENTS)
    if foreign:
        raise UserError(f"{directory} holds {foreign[0]}, which no demo shop has: move it out, or name a new folder")


@contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``directory`` at the end, or vanishes if anything goes wrong."""
    parent = directory.parent
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{directory.name}.building-"
    _clear_abandoned(parent, prefix)
    workshop = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with _locked(workshop):
            building = workshop / "shop"
            building.mkdir()
            yield building
            _refuse_taken(directory)
            if directory.exists():
                directory.rename(workshop / "previous")
            building.rename(directory)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _clear_abandoned(parent: Path, prefix: str) -> None:
    """Remove what killed builders left behind: theirs is the only lock that nobody holds."""
    for folder in [entry for entry in parent.iterdir() if entry.name.startswith(prefix)]:
        with suppress(FileNotFoundError), _locked(folder) as ours:
            if ours:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the lock of ``folder`` is ours meanwhile; a builder's lock ends with its process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _try_lock(handle)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_shop(folder: Path, truth: ShopTruth, seed: int, progress: Progress) -> None:
    stock = _write_items(folder, truth, np.random.default_rng([seed, 1]), progress)
    _write_interactions(folder / "interactions.csv", truth, stock, np.random.default_rng([seed, 2]))
    _encode(folder, stock, progress)
    stamp = {"made_by": "mts4mm demo-data", "seed": seed, "users": len(truth.user_mix), "items": len(stock)}
    (folder / _STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")


def _encode(folder: Path, stock: Sequence[Item], progress: Progress) -> None:
    """Fit encoders to the shop's pictures and words, and let ``mts4mm encode`` make the features with them."""
    from trainer.demo_shop.encoders import write_picture_encoder, write_word_encoder

    pictures = [folder / item.image if item.image else None for item in stock]
    seen = image_features(pictures, lambda done, total: progress("looking at pictures", done, total))
    progress("reading texts", 0, len(stock))
    read = text_features([f"{item.title}. {item.description}" if item.description else "" for item in stock])
    progress("reading texts", len(stock), len(stock))
    items = read_items(folder)
    sources: dict[str, Source] = {
        "image": PictureSource(items, IMAGE_FIELDS),
        "text": _DescribedItems(items, TEXT_FIELDS),
    }
    with tempfile.TemporaryDirectory() as store:
        encoders = {
            "image": write_picture_encoder(Path(store) / "image", seen),
            "text": write_word_encoder(Path(store) / "text", read),
        }
        for modality, encoder in encoders.items():
            shown = partial(progress, f"encoding {modality}")
            encode_modality(modality, sources[modality], items.ids, encoder, folder, threads=1, progress=shown)
    (folder / LOCK).unlink()


class _DescribedItems(TextSource):
    """The words of those items that have a description; a title alone does not count."""

    def read(self, row: int) -> str | None:
        """The text of an item; None where it has no description."""
        return super().read(row) if self.items.records[row].get("description") else None


def _write_items(folder: Path, truth: ShopTruth, rng: np.random.Generator, progress: Progress) -> list[Item]:
    (folder / "images").mkdir()
    count = len(truth.item_kind)
    without = round(_SHARE_WITHOUT * count)
    no_picture, no_description = (set(rng.permutation(count)[:without].tolist()) for _ in range(2))
    stock = []
    for number in range(count):
        item = _item(truth, number, rng)
        style = STYLES[truth.item_style[number]]
        picture = draw_picture(style, item.category, style.palette.names.index(item.colour), rng)
        if number in no_picture:
            item = item._replace(image="", colour="")
        else:
            picture.save(folder / item.image, format="PNG")
        if number in no_description:
            item = item._replace(description="")
        stock.append(item)
        progress("drawing pictures", number + 1, count)
    _write_table(folder / "items.csv", Item._fields, stock)
    return stock


def _item(truth: ShopTruth, number: int, rng: np.random.Generator) -> Item:
    kind = KINDS[truth.item_kind[number]]
    copy = write_copy(kind, THEMES[truth.item_theme[number]], rng)
    colour = STYLES[truth.item_style[number]].palette.names[int(rng.integers(2))]
    price = round(kind.price * float(rng.lognormal(0, 0.3))) - 0.05
    item_id = f"{kind.name}-{number:04d}"
    return Item(
        item_id, copy.title, copy.description, f"images/{item_id}.png", kind.name, f"{price:.2f}", colour
    )  # fmt: skip


def _write_interactions(path: Path, truth: ShopTruth, stock: Sequence[Item], rng: np.random.Generator) -> None:
    """In order of time: users join over the first half, and buy on any day after, rather in the evening."""
    joined = rng.uniform(0, _DAYS / 2, len(truth.user_mix))[truth.users]
    day = np.floor(joined + rng.uniform(0, 1, len(truth.users)) * (_DAYS - joined))
    second = np.floor(24 * 3600 * rng.beta(5, 2.5, len(truth.users)))
    timestamps = (_OPENED + day * 24 * 3600 + second).astype(np.int64)
    order = np.lexsort((truth.items, truth.users, timestamps))
    rows = ((f"u{truth.users[row] + 1:04d}", stock[truth.items[row]].item_id, int(timestamps[row])) for row in order)
    _write_table(path, ("user_id", "item_id", "timestamp"), rows)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
