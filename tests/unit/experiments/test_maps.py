"""What t-SNE points are grouped by, and how pure their neighbourhoods are."""

from dataclasses import replace

import numpy as np

from trainer.dataset import TRAIN, Dataset
from trainer.experiments.maps import OTHERS, item_groups, purity_rows
from trainer.experiments.tables import Row


def test_categories_of_the_catalogue_are_the_groups_and_rare_ones_are_others(dataset: Dataset) -> None:
    groups = item_groups(dataset)
    own = [record["category"] for record in dataset.catalogue]
    assert all(group in (category, OTHERS) for group, category in zip(groups, own, strict=True))
    assert len(set(groups) - {OTHERS}) == min(8, len(set(own)))
    counts = {category: own.count(category) for category in own}
    assert min(counts[group] for group in groups if group != OTHERS) >= max(
        (counts[category] for group, category in zip(groups, own, strict=True) if group == OTHERS), default=0
    )


def test_the_first_genre_counts(dataset: Dataset) -> None:
    values = ["Comedy|Drama", "Comedy", ["Drama", "Comedy"], None]
    catalogue = [{"item_id": str(n), "Genres": values[n % 4]} for n in range(len(dataset.item_ids))]
    groups = item_groups(replace(dataset, catalogue=catalogue))
    assert groups[:4].tolist() == ["Comedy", "Comedy", "Drama", OTHERS]


def test_without_categories_items_are_grouped_by_popularity(dataset: Dataset) -> None:
    groups = item_groups(replace(dataset, catalogue=None))
    degree = np.asarray(dataset.interactions(TRAIN).sum(axis=0)).ravel()
    assert 2 <= len(set(groups)) <= 4
    for group in set(groups):
        low, high = (int(number) for number in group.removesuffix(" interactions").split("-"))
        assert np.array_equal(groups == group, (degree >= low) & (degree <= high))


def test_purity_of_two_heaps_and_of_a_mixture() -> None:
    generator = np.random.default_rng(0)

    def rows(name: str, apart: float) -> list[Row]:
        points = generator.normal(size=(40, 2)) + apart * (np.arange(40) % 2)[:, None]
        return [
            Row({"map": name, "item": str(n), "group": "ab"[n % 2]}, 0, {"x": float(x), "y": float(y)})
            for n, (x, y) in enumerate(points)
        ]

    heaps, mixture = purity_rows(rows("heaps", 100.0) + rows("mixture", 0.0))
    assert heaps.labels == {"map": "heaps"}
    assert heaps.figures["same_group"] == 1
    assert heaps.figures["points"] == 40
    assert heaps.figures["chance"] == mixture.figures["chance"] == 19 / 39
    assert 0.3 < mixture.figures["same_group"] < 0.7
