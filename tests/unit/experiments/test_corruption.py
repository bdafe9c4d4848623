"""Shuffled and missing content: who suffers, how much, and what stays."""

from dataclasses import replace

import numpy as np
import pytest

from trainer.dataset import Dataset
from trainer.experiments.corruption import Corruption, corrupted
from trainer.graph import nearest_neighbours

K = 6


@pytest.fixture
def with_lists(dataset: Dataset) -> Dataset:
    """The shop, whose neighbour lists were computed beforehand, and whose texts no two items share."""
    generator = np.random.default_rng(0)
    modalities = {}
    for name, modality in dataset.modalities.items():
        features = generator.normal(size=(len(dataset.item_ids), 12)).astype(np.float32) * modality.present[:, None]
        neighbours, cosine = nearest_neighbours(features, modality.present, K)
        modalities[name] = replace(modality, features=features, neighbours=neighbours, cosine=cosine)
    return replace(dataset, modalities=modalities)


def changed_items(before: Dataset, after: Dataset, name: str) -> set[int]:
    return set(
        np.flatnonzero((before.modalities[name].features != after.modalities[name].features).any(axis=1)).tolist()
    )


def test_shuffling_hands_features_out_among_the_chosen_and_no_others(with_lists: Dataset) -> None:
    after = corrupted(with_lists, Corruption("shuffled", ("text",), 0.5), seed=1)
    before, text = with_lists.modalities["text"], after.modalities["text"]
    changed = changed_items(with_lists, after, "text")
    chosen = round(0.5 * before.present.sum())
    assert chosen - 4 <= len(changed) <= chosen  # a permutation leaves one in its place on average
    assert np.array_equal(text.present, before.present)
    assert sorted(map(tuple, text.features.tolist())) == sorted(map(tuple, before.features.tolist()))
    assert not changed_items(with_lists, after, "image")
    assert with_lists.modalities["text"] is before


def test_shuffled_neighbour_lists_are_those_of_the_shuffled_features(with_lists: Dataset) -> None:
    text = corrupted(with_lists, Corruption("shuffled", ("text",), 0.5), seed=1).modalities["text"]
    neighbours, cosine = nearest_neighbours(text.features, text.present, K)
    assert np.array_equal(text.neighbours, neighbours)
    assert np.allclose(text.cosine, cosine, atol=1e-5)


def test_missing_items_have_nothing_and_are_nobodys_neighbours(with_lists: Dataset) -> None:
    after = corrupted(with_lists, Corruption("missing", ("image", "text"), 0.5), seed=2)
    lost = {}
    for name, modality in after.modalities.items():
        before = with_lists.modalities[name]
        gone = before.present & ~modality.present
        lost[name] = gone
        assert gone.sum() == round(0.5 * before.present.sum())
        assert not modality.features[~modality.present].any()
        assert np.array_equal(modality.features[modality.present], before.features[modality.present])
        for item, (row, cosines) in enumerate(zip(modality.neighbours, modality.cosine, strict=True)):
            kept = [j for j in before.neighbours[item] if j >= 0 and modality.present[j] and modality.present[item]]
            assert row.tolist() == kept + [-1] * (K - len(kept))
            assert (cosines[len(kept) :] == 0).all()
            place = dict(zip(before.neighbours[item], before.cosine[item], strict=True))
            assert cosines[: len(kept)].tolist() == [place[j] for j in kept]
    assert (lost["image"] != lost["text"]).any()


def test_a_larger_share_harms_whom_a_smaller_one_harms(with_lists: Dataset) -> None:
    shares = [
        ~corrupted(with_lists, Corruption("missing", ("text",), share), 0).modalities["text"].present
        for share in (0.25, 0.5, 0.75)
    ]
    assert (shares[0] <= shares[1]).all()
    assert (shares[1] <= shares[2]).all()


def test_every_corruption_has_its_own_fingerprint_and_none_keeps_the_datasets(with_lists: Dataset) -> None:
    prints = {
        corrupted(with_lists, Corruption(kind, modalities, share), seed).fingerprint
        for kind in ("shuffled", "missing")
        for modalities in (("text",), ("image",), ("image", "text"))
        for share in (0.25, 0.5)
        for seed in (0, 1)
    }
    assert len(prints) == 24
    assert with_lists.fingerprint not in prints
    assert corrupted(with_lists, Corruption("missing", ("text",), 0.0), 0) is with_lists
    again = [corrupted(with_lists, Corruption("shuffled", ("text",), 0.5), 3) for _ in range(2)]
    assert again[0].fingerprint == again[1].fingerprint
    assert np.array_equal(again[0].modalities["text"].features, again[1].modalities["text"].features)
