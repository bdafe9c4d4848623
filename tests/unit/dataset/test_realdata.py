"""The research datasets load as they are; only where MTS4MM_REALDATA names their folder."""

import os
from pathlib import Path

import numpy as np
import pytest

from trainer.dataset import TEST, TRAIN, VALIDATION, load_dataset, validate_directory

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif("MTS4MM_REALDATA" not in os.environ, reason="MTS4MM_REALDATA is not set"),
]


def folder(name: str) -> Path:
    return Path(os.environ["MTS4MM_REALDATA"]) / name


@pytest.mark.parametrize(
    ("name", "counts"), [("baby", (19_445, 7_050, 160_792)), ("sports", (35_598, 18_357, 296_337))]
)
def test_mmrec_directories_load_as_they_are(name: str, counts: tuple[int, int, int]) -> None:
    report = validate_directory(folder(name))
    assert report.ok
    dataset = load_dataset(folder(name))
    assert (len(dataset.user_ids), len(dataset.item_ids), len(dataset.users)) == counts
    assert dataset.split.kind == "given"
    assert sum(dataset.interactions(label).nnz for label in (TRAIN, VALIDATION, TEST)) == counts[2]
    for modality in ("image", "text"):
        found = dataset.modalities[modality]
        assert found.features is not None
        assert found.neighbours is not None
        assert found.cosine is not None
        assert found.features.shape == (counts[1], 128)
        assert found.neighbours.shape == (counts[1], 10)
        np.testing.assert_array_equal(found.features, np.load(folder(name) / f"{modality}_feat.npy"))
        np.testing.assert_array_equal(
            found.neighbours, np.load(folder(name) / f"{modality}_neighbors.npz")["neighbors"]
        )


def test_a_million_interactions_with_an_items_table_load() -> None:
    dataset = load_dataset(folder("ml1m"))
    assert (len(dataset.user_ids), len(dataset.item_ids), len(dataset.users)) == (6_040, 3_260, 998_539)
    assert dataset.catalogue is not None
    assert [record["item_id"] for record in dataset.catalogue] == dataset.item_ids
    assert all(record["title"] for record in dataset.catalogue)
