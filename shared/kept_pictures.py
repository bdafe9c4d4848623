"""The pictures that items were put with, kept beside the models for when the user state has let go of the items.

    <store>/.pictures/<digest of the item's id>/<sha256 of the picture>.jpg
    <store>/.pictures/<digest of the item's id>/none        it has none any more

The nightly job writes them, the service shows them, and an object store takes them along: a file's content never
changes, and an item has one file.
"""

import re
from hashlib import blake2b, sha256
from pathlib import Path

from shared import durable

FOLDER = ".pictures"

_NONE = "none"
_NAME = re.compile(rf"{re.escape(FOLDER)}/[0-9a-f]{{40}}/([0-9a-f]{{64}}\.jpg|{_NONE})")


def keep_picture(store: Path, item_id: str, picture: bytes | None) -> None:
    """Keep an item's picture, a JPEG file, in the place of the one that was kept; None takes that away."""
    place = _place(store, item_id)
    if picture is None and not place.exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    kept = place / (_NONE if picture is None else f"{sha256(picture).hexdigest()}.jpg")
    if not kept.exists():
        with durable.replacing(kept) as file:
            file.write(picture or b"")
    only(kept)


def kept_picture(store: Path, item_id: str) -> bytes | None:
    """The picture that is kept of an item; None if there is none."""
    for path in sorted(_place(store, item_id).glob("*.jpg")):
        try:
            return path.read_bytes()
        except OSError:  # another one took its place meanwhile
            continue
    return None


def is_name(name: str) -> bool:
    """Whether this is how a kept file is named below the store, with slashes; what another side names may be a path."""
    return _NAME.fullmatch(name) is not None


def is_whole(name: str, content: bytes) -> bool:
    """Whether a file of this name may hold this: a picture has its sha256 for a name, and no picture is no bytes."""
    kept = name.rpartition("/")[2]
    return not content if kept == _NONE else kept == f"{sha256(content).hexdigest()}.jpg"


def only(kept: Path) -> None:
    """Take away what an item had before a file."""
    for path in kept.parent.iterdir():
        if path != kept:
            path.unlink(missing_ok=True)


def _place(store: Path, item_id: str) -> Path:
    return store / FOLDER / blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
