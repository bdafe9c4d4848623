"""t-SNE maps of items: by view, of teachers and student, and of the views together."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import TRAIN, Dataset
from trainer.experiments.tables import Row
from trainer.experiments.trained_model import TrainedModel
from trainer.views import ID_VIEW

SAMPLED_ITEMS = 1500
JOINT_ITEMS = 300
FUSED = "student, fused"
JOINT = "student, all views"
CATEGORY_KEYS = ("category", "categories", "genre", "genres")
MOST_CATEGORIES = 8
OTHERS = "others"
NEAREST = 10
FEWEST_POINTS = 5

_PERPLEXITY = 30.0


def map_rows(model: TrainedModel, dataset: Dataset, seed: int) -> list[Row]:
    """Coordinates of every point: labels ``map``, ``item`` and ``group``, figures ``x`` and ``y``.

    An item is on the map of a view if it has that view; a map of fewer than ``FEWEST_POINTS`` is left out. Groups are
    the catalogue's categories if it has any, else quarters of popularity in training; on the joint map they are the
    views.
    """
    generator = np.random.default_rng(seed)
    items = np.sort(generator.permutation(len(dataset.item_ids))[:SAMPLED_ITEMS])
    groups = item_groups(dataset)
    users = len(dataset.user_ids)
    student = {name: view[users:].cpu().numpy() for name, view in model.student_views().items()}
    teachers = {name: view[users:].cpu().numpy() for name, view in model.teacher_views().items()}
    present = {name: mask[users:].cpu().numpy() for name, mask in model.present.items()}
    fused = model.student({ID_VIEW, *present})[users:].cpu().numpy()
    rows = []
    for holder, views in (("teacher", teachers), ("student", student)):
        for name, view in views.items():
            shown = items[present[name][items]] if name in present else items
            rows += _rows(f"{holder}, {name}", view[shown], shown, groups[shown], dataset, seed)
    rows += _rows(FUSED, fused[items], items, groups[items], dataset, seed)
    complete = items[np.all([mask[items] for mask in present.values()], axis=0)] if present else items
    few = np.sort(generator.permutation(complete)[:JOINT_ITEMS])
    together = {**student, "fused": fused}
    points = np.concatenate([view[few] for view in together.values()])
    by_view = np.repeat(np.array(list(together)), len(few))
    return rows + _rows(JOINT, points, np.tile(few, len(together)), by_view, dataset, seed)


def purity_rows(rows: list[Row]) -> list[Row]:
    """For each map: the share of an item's ``NEAREST`` nearest points that are of its group, and chance's share."""
    by_map: dict[str, list[Row]] = {}
    for row in rows:
        by_map.setdefault(row.labels["map"], []).append(row)
    condensed = []
    for name, points in by_map.items():
        places = np.array([[point.figures["x"], point.figures["y"]] for point in points])
        groups = np.unique([point.labels["group"] for point in points], return_inverse=True)[1]
        condensed.append(Row({"map": name}, points[0].seed, _purity(places, groups)))
    return condensed


def item_groups(dataset: Dataset) -> NDArray[np.str_]:
    """The group of each item, (items,): its category, or how often it was taken in training."""
    categories = _categories(dataset.catalogue or [])
    return _popularity_quarters(dataset) if categories is None else np.array(categories)


def _rows(
    name: str,
    points: NDArray[np.float32],
    items: NDArray[np.int64],
    groups: NDArray[np.str_],
    dataset: Dataset,
    seed: int,
) -> list[Row]:
    if len(points) < FEWEST_POINTS:
        return []
    return [
        Row(
            {"map": name, "item": dataset.item_ids[item], "group": str(group)},
            seed,
            {"x": float(x), "y": float(y)},
        )
        for item, group, (x, y) in zip(items, groups, _plane(points, seed), strict=True)
    ]


def _plane(points: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """t-SNE of points (n, width), (n, 2)."""
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    plane: NDArray[np.float32] = TSNE(
        metric="cosine", init="random", perplexity=perplexity, random_state=seed
    ).fit_transform(points)
    return plane


def _purity(places: NDArray[np.float64], groups: NDArray[np.int64]) -> dict[str, float]:
    count = len(places)
    nearest = min(NEAREST, count - 1)
    squares = np.square(places).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2 * places @ places.T
    np.fill_diagonal(distances, np.inf)
    neighbours = np.argpartition(distances, nearest - 1, axis=1)[:, :nearest]
    sizes = np.bincount(groups)
    return {
        "points": float(count),
        "same_group": float((groups[neighbours] == groups[:, None]).mean()),
        "chance": float((sizes * (sizes - 1)).sum() / (count * (count - 1))),
    }


def _categories(catalogue: list[dict[str, Any]]) -> list[str] | None:
    """Each item's first category, rare ones as ``OTHERS``; None if the catalogue tells no two apart."""
    if not catalogue:
        return None
    keys = {key.lower(): key for key in catalogue[0]}
    key = next((keys[known] for known in CATEGORY_KEYS if known in keys), None)
    if key is None:
        return None
    named = [_first(record.get(key)) for record in catalogue]
    counted = Counter(named)
    common = {name for name, _ in counted.most_common(MOST_CATEGORIES)}
    return [name if name in common else OTHERS for name in named] if len(counted) > 1 else None


def _first(value: Any) -> str:
    if isinstance(value, list):
        value = value[0] if value else None
    text = "" if value is None else str(value)
    return text.replace("|", ",").split(",")[0].strip() or OTHERS


def _popularity_quarters(dataset: Dataset) -> NDArray[np.str_]:
    degree = np.asarray(dataset.interactions(TRAIN).sum(axis=0)).ravel().astype(int)
    quarter = np.searchsorted(np.unique(np.quantile(degree, (0.25, 0.5, 0.75))), degree)
    names = {}
    for number in np.unique(quarter):
        within = degree[quarter == number]
        names[number] = f"{within.min()}-{within.max()} interactions"
    return np.array([names[number] for number in quarter])
