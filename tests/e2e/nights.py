"""A small shop whose last purchases come as events, and nights that run in processes of their own.

Its features are made by real ONNX networks from its pictures and words: small pixels, and which words there are.
"""

import csv
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import yaml
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from shared.events import Event
from shared.state import open_state
from tests.processes import FORKED
from tests.unit.encoders.conftest import PLAIN, save
from trainer.cli.encoders import encode_catalogue
from trainer.demo_shop import make_shop
from trainer.encoders.store import add_image_network, add_text_network

SIDE, CELL, WORDS_WIDTH = 16, 4, 96

SETTINGS = {
    "train": {"recipe": "demo", "set": ["epochs=16", "learning_rate=0.005"], "warm_epochs": 5},
    "gate": {"ndcg_margin": 0.25, "teacher_margin": 0.2, "slice_margin": 0.5, "concentration_margin": 2.0},
    "least_new": 50,
    "watch_seconds": 0,
}


@dataclass(frozen=True)
class Shop:
    """A shop that opened with the first purchases; the others are still to come.

    Attributes:
        base: the dataset that it opened with.
        later: what came after, in order of time.
    """

    base: Path
    later: list[Event]


def opened_shop(folder: Path, *, users: int = 300, items: int = 120, share: float = 0.7, seed: int = 3) -> Shop:
    """Make a demo shop, and take its last purchases out of the base."""
    base = folder / "shop"
    make_shop(base, users=users, items=items, seed=seed)
    encode(base, folder / "encoders")
    with (base / "interactions.csv").open() as file:
        rows = list(csv.DictReader(file))
    first = int(share * len(rows))
    with (base / "interactions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[:first])
    later = [
        Event(
            event_id=f"e{place}",
            user_id=row["user_id"],
            item_id=row["item_id"],
            type="purchase",
            timestamp=datetime.fromtimestamp(int(row["timestamp"]), UTC),
        )
        for place, row in enumerate(rows[first:])
    ]
    return Shop(base, later)


def encode(base: Path, encoders: Path) -> None:
    """Make the features anew from pictures and words, as ``mts4mm encode`` does."""
    encoders.mkdir()
    with (base / "items.csv").open() as file:
        rows = list(csv.DictReader(file))
    said = [set(re.findall(r"\w+", f"{row['title']} {row['description']}".lower())) for row in rows]
    words = ["[UNK]", *sorted(set().union(*said))]
    rarity = np.array([[np.log(len(said) / max(1, sum(word in each for each in said)))] for word in words])
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(encoders / "tokenizer.json"))
    table = (rarity * np.random.default_rng(0).normal(size=(len(words), WORDS_WIDTH))).astype(np.float32)
    network = save(
        encoders / "words.onnx",
        [helper.make_node("Gather", ["table", "input_ids"], ["out"])],
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])],
        [numpy_helper.from_array(table, "table")],
        ["n", "t", WORDS_WIDTH],
    )
    add_text_network(encoders / "store", "words", network, encoders / "tokenizer.json", {"pooling": "mean"})
    pixels = save(
        encoders / "pixels.onnx",
        [
            helper.make_node("AveragePool", ["picture"], ["small"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
            helper.make_node("Flatten", ["small"], ["out"]),
        ],
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [],
        ["n", 3 * (SIDE // CELL) ** 2],
    )
    preparation = PLAIN | {"height": SIDE, "width_pixels": SIDE, "mean": [0.5] * 3, "normalise": True}
    add_image_network(encoders / "store", "pixels", pixels, preparation)
    columns = {"text": ["title", "description"], "image": ["image"]}
    named = {"text": "words", "image": "pixels"}
    encode_catalogue(base, base, named, columns, encoders / "store", threads=1, replace=True)


def settings_file(folder: Path, **changes: object) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | changes))
    return path


def send(store: Path, events: Iterable[Event]) -> None:
    """Record events as the service does."""
    with open_state(None, store / ".state") as state:
        state.record(list(events))


def night(
    base: Path,
    store: Path,
    settings: Path,
    *,
    fault: str | None = None,
    service: str | None = None,
    dry_run: bool = False,
) -> int:
    """Run a night in a process of its own; returns its exit code, below 0 for the signal that ended it."""
    process = FORKED.Process(target=_run, args=(base, store, settings, fault, service, dry_run))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the night hangs"
    return process.exitcode


def _run(base: Path, store: Path, settings: Path, fault: str | None, service: str | None, dry_run: bool) -> None:
    import typer

    from trainer.cli.nightly import nightly

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("MTS4MM_FAULT", None)
    if fault is not None:
        os.environ["MTS4MM_FAULT"] = fault
    try:
        nightly(
            base,
            models=store,
            log=None,
            settings=settings,
            service=service,
            device="cpu",
            dry_run=dry_run,
            fresh=False,
            print_settings=False,
            json_=False,
        )
    except typer.Exit as end:
        raise SystemExit(int(end.exit_code)) from None
