"""The content features that go with an artefact: nearness by them is that of the features they come from."""

from pathlib import Path

import numpy as np
import pytest

from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel
from shared.content import Content, attachments_of, load_contents
from shared.errors import UserError
from trainer.content import content_of

ITEMS = 30


def features(width: int) -> np.ndarray:
    """Items of a few kinds, so that leading directions hold most of them."""
    rng = np.random.default_rng(3)
    kinds = rng.normal(size=(4, width))
    return (kinds[rng.integers(0, 4, ITEMS)] + 0.05 * rng.normal(size=(ITEMS, width))).astype(np.float32)


def cosines(table: np.ndarray, query: np.ndarray) -> np.ndarray:
    return (table @ query) / np.linalg.norm(table, axis=1) / np.linalg.norm(query)


@pytest.mark.parametrize("width", [12, 200])
def test_nearness_is_the_cosine_of_the_features_also_where_these_are_too_wide(width: int) -> None:
    table = features(width)
    content = content_of(table, np.ones(ITEMS, dtype=bool), most=20)
    assert content.rows.shape == (ITEMS, min(width, 20))
    assert content.features == width
    assert content.cosines_to(7) == pytest.approx(cosines(table, table[7]), abs=0.02)
    query = table[3] + 0.05
    assert content.cosines(query * 9) == pytest.approx(cosines(table, query), abs=0.06)


def test_an_item_without_the_modality_is_near_to_nothing() -> None:
    present = np.ones(ITEMS, dtype=bool)
    present[[2, 5]] = False
    content = content_of(features(8), present)
    assert (content.has(2), content.has(3)) == (False, True)
    assert np.flatnonzero(np.isinf(content.cosines_to(3))).tolist() == [2, 5]
    assert np.isinf(content.cosines_to(2)).all()
    assert np.isinf(content.cosines(np.zeros(8, np.float32))).all()


@pytest.mark.parametrize("width", [12, 200])
@pytest.mark.parametrize("scale", [1e38, 1e20, 1e-25, 1e-37])
def test_features_however_long_are_near_to_what_they_point_to(width: int, scale: float) -> None:
    table = features(width)
    content = content_of(table, np.ones(ITEMS, dtype=bool), most=20)
    query = (table[3] / np.abs(table[3]).max()).astype(np.float32)
    assert content.cosines(query * np.float32(scale)) == pytest.approx(content.cosines(query), abs=1e-5)


def publish(store: Path, attachments: dict[str, bytes]) -> artifact.Artifact:
    model = StudentModel(
        user_ids=["ann"],
        item_ids=[str(item) for item in range(ITEMS)],
        user_embeddings=np.ones((1, 2), np.float32),
        item_embeddings=np.ones((ITEMS, 2), np.float32),
        train_indptr=np.array([0, 0]),
        train_indices=np.array([], dtype=np.int64),
        attachments=dict(attachments),
    )
    split = Split(kind="random", seed=1)
    dataset = DatasetInfo(name="s", fingerprint="f", users=1, items=ITEMS, interactions=0, split=split)
    artifact.publish(store, model, Provenance(dataset, {}, 1, {}))
    return artifact.load(store)


def test_contents_come_back_from_the_artefact_as_they_were(tmp_path: Path) -> None:
    present = np.ones(ITEMS, dtype=bool)
    given = {"image": content_of(features(40), present, most=10), "text": content_of(features(6), present)}
    found = load_contents(publish(tmp_path, attachments_of(given)))
    assert sorted(found) == ["image", "text"]
    for name, content in given.items():
        assert np.array_equal(found[name].rows, content.rows)
        assert found[name].cosines_to(4) == pytest.approx(content.cosines_to(4))


@pytest.mark.parametrize(
    "rows", [np.zeros((ITEMS - 1, 4), np.float16), np.zeros((ITEMS, 4), np.float32), np.zeros(ITEMS, np.float16)]
)
def test_a_table_of_another_form_is_refused(tmp_path: Path, rows: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"content_text\.npy"):
        load_contents(publish(tmp_path, attachments_of({"text": Content(rows, None)})))
