"""The item tower: distilled from the student, it gives an item's vector from the item's content alone.

Off the paper's path, which knows no item without interactions. For each modality the student's item vectors are
regressed on two things: the features x_i, centred and brought to length 1, and, as in Eq. 6-7 and 12 with a new node,
the mean m_i of the vectors of the ``NEIGHBOURS`` items most like it, weighed by the fourth power of the cosine,

    e_i ~ c + x_i W + m_i V,   W, V = argmin  sum_i n_i^1/4 |e_i - c - x_i W - m_i V|^2 + ridge |W, V|^2

with n_i an item's training interactions, since the vector of an item that many took is known better. Of up to
``MOST_IN_KERNEL`` items a kernel ridge regression is tried as well, which looks further than to ten neighbours,

    e_i ~ c + sum_j exp(``SHARPNESS`` (cos(x_i, x_j) - 1)) a_j,   a = (K + ridge I)^-1 (e - c)

How strong the ridge is, and which of the two a modality takes, the leave-one-out error decides, weighed as scores
weigh it (``|U (e - e')|^2``).

What is alike in several respects at once is more alike than the sum of them says. So the x_i of some modalities are put
side by side as one more modality, the joint one: of the ``MOST_JOINED`` best those with which all together explain
most, by the kernel where the items are few enough. Where an item has several modalities, their vectors, and the
joint one's where it has all that, are summed with the weights that explain most of the leave-one-out scores, solved for
every set of modalities; so any of them may be missing.

A vector that is right on average is too short, or too long, to stand among those that interactions made. Last, all are
brought to the largest of ``SCALES`` that is harmless: where a tenth of the items are ranked by their leave-one-out
vectors, the validation interactions of the other items must be found as often as if that tenth were not there.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from shared.item_tower import TowerDescription
from trainer.dataset import TRAIN, VALIDATION, Dataset
from trainer.evaluation import Holdout, chunks, top_items
from trainer.exact_search import ExactSearch

NEIGHBOURS = 10
COSINE_POWER = 4
LEAST_WEIGHT = 1e-9
POPULARITY_POWER = 0.25
RIDGES = tuple(10.0**power for power in np.arange(-4, 2.5, 0.5))
"""In units of the mean energy of a feature, which is at least ``LEAST_ENERGY``."""
LEAST_ENERGY = 1e-12
"""Features that are the same for every item have none; each ridge still has to have an inverse."""
KERNEL_RIDGES = (0.1, 0.3, 1.0)
"""In units of what an item is like itself, which is 1."""
SHARPNESS, JOINT_SHARPNESS = 3.0, 1.5
MOST_IN_KERNEL = 4_000
SCALES = tuple(0.5 * 1.1**power for power in range(24))
COLD_SHARE = 0.1
STACKING_RIDGE = 1e-6
MOST_MODALITIES = 8
MOST_JOINED = 3
MOST_DIRECTIONS = 512
"""Of wider features so many principal directions are learned from."""
MOST_LEARNED, MOST_NEIGHBOURS = 100_000, 50_000
"""Items that are learned from, and the most popular of these, which can be neighbours."""
MOST_JUDGED_SCORES = 2**28
"""Of the users that the stretching is judged by: fewer of them where there are more items."""
CUTOFF = 20
SEED = 0

Matrix = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NeighbourMap:
    """What one modality says of an item beyond the mean item, by its features and its neighbours.

    Attributes:
        mean: (d_m,), what features are centred by before they are brought to length 1.
        matrix: (d_m, width), W.
        offset: (width,), what is added.
        others: float16 (known items, d_m), the items that may be neighbours, centred and of length 1.
        carried: float16 (known items, width), what each of them adds as the only neighbour.
    """

    mean: Matrix
    matrix: Matrix
    offset: Matrix
    others: NDArray[np.float16]
    carried: NDArray[np.float16]

    def parts(self, features: Matrix) -> Matrix:
        """(items, width) of features (items, d_m)."""
        unit = unit_rows(features - self.mean)
        others, carried = self.others.astype(np.float32), self.carried.astype(np.float32)
        cosines, neighbours = nearest(others, unit, min(NEIGHBOURS, len(others)))
        weights = neighbour_weights(cosines)
        return np.asarray(
            unit @ self.matrix + np.einsum("nk,nkw->nw", weights, carried[neighbours]) + self.offset, np.float32
        )


@dataclass(frozen=True, eq=False)
class KernelMap:
    """What one modality says of an item beyond the mean item, by how like every known one it is.

    Attributes:
        mean: (d_m,), what features are centred by before they are brought to length 1.
        others: float16 (known items, d_m), centred and of length 1.
        carried: (known items, width), a, what each of them adds where an item is just like it.
        offset: (width,), what is added.
        sharpness: how fast likeness falls with the cosine.
    """

    mean: Matrix
    others: NDArray[np.float16]
    carried: Matrix
    offset: Matrix
    sharpness: float

    def parts(self, features: Matrix) -> Matrix:
        """(items, width) of features (items, d_m)."""
        likeness = alike(unit_rows(features - self.mean) @ self.others.astype(np.float32).T, self.sharpness)
        return np.asarray(likeness @ self.carried + self.offset, np.float32)


ModalityMap = NeighbourMap | KernelMap


@dataclass(frozen=True, eq=False)
class JointMap:
    """What several modalities say together.

    Attributes:
        modalities: whose features, centred and of length 1, are put side by side, in this order.
        map: of these.
    """

    modalities: tuple[str, ...]
    map: ModalityMap


@dataclass(frozen=True, eq=False)
class FittedTower:
    """A tower as numbers.

    Attributes:
        maps: by modality.
        joint: of several modalities; None if that explains no more.
        centre: (width,), c, the vector of the mean item.
        weights: (2 ^ modalities, modalities and the joint one); row r is for items with the modalities of the bits of
            r, the first one the lowest.
        explained: (2 ^ modalities,), the share of the scores that these modalities explain, leave-one-out.
        scale: what vectors are stretched by.
    """

    maps: dict[str, ModalityMap]
    joint: JointMap | None
    centre: Matrix
    weights: Matrix
    explained: NDArray[np.float64]
    scale: float = 1.0

    def vectors(self, features: Mapping[str, Matrix]) -> Matrix:
        """Vectors (items, width) of features (items, d_m) by modality, rows of zeros where an item lacks one."""
        present = np.stack([np.abs(features[name]).max(axis=1) > 0 for name in self.maps], axis=1)
        weights = self.weights[present @ _bits(len(self.maps))]
        parts = [modality.parts(features[name]) for name, modality in self.maps.items()]
        if self.joint is not None:
            parts.append(self.joint.map.parts(side_by_side(self.maps, features, self.joint.modalities)))
        summed = self.centre + sum(weights[:, [index]] * part for index, part in enumerate(parts))
        return np.asarray(self.scale * summed, dtype=np.float32)

    @property
    def description(self) -> TowerDescription:
        """What the tower says of itself."""
        names = list(self.maps)
        return TowerDescription(
            modalities={name: len(modality.mean) for name, modality in self.maps.items()},
            width=len(self.centre),
            scale=self.scale,
            explained={
                "+".join(name for bit, name in enumerate(names) if row >> bit & 1): float(self.explained[row])
                for row in range(1, len(self.weights))
            },
        )


def fit_item_tower(
    dataset: Dataset, modalities: Sequence[str], user_embeddings: Matrix, item_embeddings: Matrix
) -> FittedTower | None:
    """Distil a tower; None if no modality has features of two items that somebody took.

    Args:
        dataset: its features, its training and its validation interactions.
        modalities: whose features are used.
        user_embeddings: (users, width).
        item_embeddings: (items, width).
    """
    popularity = np.bincount(dataset.interactions(TRAIN).indices, minlength=len(item_embeddings))
    target = _Target.of(user_embeddings, item_embeddings, popularity)
    fits = {}
    for name in modalities:
        modality = dataset.modalities[name]
        rows = evenly_spread(np.flatnonzero(modality.present & (popularity > 0)), MOST_LEARNED)
        if modality.features is not None and len(rows) > 1:
            fits[name] = _fit_modality(modality.features, rows, target)
    if not fits:
        return None
    best = sorted(fits, key=lambda name: -fits[name].explained)[:MOST_MODALITIES]
    fits = {name: fits[name] for name in sorted(best)}
    maps = {name: fit.map for name, fit in fits.items()}
    voices = [_Voice(1 << place, fit) for place, fit in enumerate(fits.values())]
    names, joint = _joined(best[:MOST_JOINED], fits, voices, dataset, target)
    if joint is not None:
        voices.append(joint)
    weights, explained = _combined(voices, len(fits), target)
    joint_map = None if joint is None else JointMap(names, joint.fit.map)
    tower = FittedTower(maps, joint_map, target.centre.astype(np.float32), weights, explained)
    return replace(tower, scale=_scale(tower, voices, dataset, user_embeddings, item_embeddings))


@dataclass(frozen=True, eq=False)
class _Target:
    """What is to be predicted: (items, width) item vectors less their mean, and how errors count."""

    centred: NDArray[np.float64]
    centre: NDArray[np.float64]
    item_weights: NDArray[np.float64]
    energy: NDArray[np.float64]

    @classmethod
    def of(cls, users: Matrix, items: Matrix, popularity: NDArray[np.int64]) -> "_Target":
        weights = popularity.astype(np.float64) ** POPULARITY_POWER * (popularity > 0)
        centre = weights @ items / max(weights.sum(), 1)
        energy = users.T.astype(np.float64) @ users / max(len(users), 1)
        return cls(items - centre, centre, weights, energy)

    def inner(self, first: NDArray[np.float64], second: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
        """``sum over rows of n^1/4 <U a, U b>`` of two tables (rows, width)."""
        return float(self.item_weights[rows] @ ((first @ self.energy) * second).sum(axis=1))


@dataclass(frozen=True, eq=False)
class _ModalityFit:
    """A modality's map, and what it gave for the items ``rows`` when each was left out, (rows, width)."""

    map: ModalityMap
    rows: NDArray[np.int64]
    left_out: NDArray[np.float64]
    explained: float


@dataclass(frozen=True, eq=False)
class _Voice:
    """What is summed up: a modality's fit, or the joint one's; ``code`` has the bits of all that it needs."""

    code: int
    fit: _ModalityFit


def _joined(
    best: Sequence[str], fits: Mapping[str, _ModalityFit], voices: Sequence[_Voice], dataset: Dataset, target: _Target
) -> tuple[tuple[str, ...], _Voice | None]:
    """The modalities that are best put side by side, and their voice; None if all items are explained no better by it.

    Args:
        best: modalities to choose among.
        fits: of all modalities.
        voices: the same.
        dataset: its features.
        target: to be predicted.
    """
    maps = {name: fit.map for name, fit in fits.items()}
    features = {name: known for name in best if (known := dataset.modalities[name].features) is not None}
    _, most = _stacked(voices, target)
    chosen: tuple[tuple[str, ...], _Voice | None] = ((), None)
    for count in range(2, len(best) + 1):
        for names in combinations(best, count):
            rows = reduce(np.intersect1d, [fits[name].rows for name in names])
            if len(rows) < 2:
                continue
            fit = _fit_joint(side_by_side(maps, features, names), rows, target)
            voice = _Voice(sum(1 << list(fits).index(name) for name in names), fit)
            _, explained = _stacked([*voices, voice], target)
            if explained > most:
                chosen, most = (names, voice), explained
    return chosen


def side_by_side(maps: Mapping[str, ModalityMap], features: Mapping[str, Matrix], names: Sequence[str]) -> Matrix:
    """Features of several modalities, each centred and of length 1: (items, all their widths)."""
    return np.concatenate([unit_rows(features[name] - maps[name].mean) for name in names], axis=1)


def _fit_modality(features: Matrix, rows: NDArray[np.int64], target: _Target) -> _ModalityFit:
    """The way that explains more, leave-one-out."""
    mean, unit = _centred(features, rows)
    fits = [_by_neighbours(mean, unit, rows, target)]
    if len(rows) <= MOST_IN_KERNEL:
        fits.append(_by_kernel(mean, unit, rows, target, SHARPNESS))
    return max(fits, key=lambda fit: fit.explained)


def _fit_joint(features: Matrix, rows: NDArray[np.int64], target: _Target) -> _ModalityFit:
    mean, unit = _centred(features, rows)
    if len(rows) <= MOST_IN_KERNEL:
        return _by_kernel(mean, unit, rows, target, JOINT_SHARPNESS)
    return _by_neighbours(mean, unit, rows, target)


def _centred(features: Matrix, rows: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """The mean (d,) of some items' features, and these without it, of length 1, (rows, d)."""
    mean = features[rows].mean(axis=0)
    return mean, unit_rows(features[rows] - mean)


def _by_neighbours(mean: Matrix, unit: Matrix, rows: NDArray[np.int64], target: _Target) -> _ModalityFit:
    directions = _leading_directions(unit, MOST_DIRECTIONS)
    weights, outputs = target.item_weights[rows], target.centred[rows]
    likely = np.sort(np.argsort(-weights, kind="stable")[:MOST_NEIGHBOURS])
    around = _means_of_others(unit, likely, outputs)
    spread = max(float(np.sqrt(around.var(axis=0).sum())), float(np.finfo(np.float32).tiny))
    inputs = np.concatenate([unit if directions is None else unit @ directions, around / spread], axis=1)
    middle, level = weights @ inputs / weights.sum(), weights @ outputs / weights.sum()
    solution, left_out = _ridge(inputs - middle, outputs - level, weights, target, rows)
    of_features, of_neighbours = np.split(solution, [inputs.shape[1] - outputs.shape[1]])
    fitted = NeighbourMap(
        mean,
        (of_features if directions is None else directions @ of_features).astype(np.float32),
        (level - middle @ solution).astype(np.float32),
        unit[likely].astype(np.float16),
        (outputs[likely] @ of_neighbours / spread).astype(np.float16),
    )
    return _ModalityFit(fitted, rows, left_out + level, _explained(left_out + level, rows, target))


def _by_kernel(mean: Matrix, unit: Matrix, rows: NDArray[np.int64], target: _Target, sharpness: float) -> _ModalityFit:
    likeness = torch.from_numpy(alike(unit @ unit.T, sharpness))
    level = target.centred[rows].mean(axis=0)
    outputs = target.centred[rows] - level
    best: tuple[float, NDArray[np.float64], NDArray[np.float64]] | None = None
    for ridge in KERNEL_RIDGES:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(likeness + ridge * torch.eye(len(rows)))).numpy()
        carried = inverse @ outputs
        residual = carried / np.diagonal(inverse)[:, None]
        error = target.inner(residual, residual, rows)
        if best is None or error < best[0]:
            best = error, carried, level + outputs - residual
    assert best is not None  # noqa: S101 (there are ridges)
    _, carried, left_out = best
    fitted = KernelMap(mean, unit.astype(np.float16), carried.astype(np.float32), level.astype(np.float32), sharpness)
    return _ModalityFit(fitted, rows, left_out, _explained(left_out, rows, target))


def _explained(left_out: NDArray[np.float64], rows: NDArray[np.int64], target: _Target) -> float:
    """The share of the scores of some items that their leave-one-out vectors explain."""
    outputs = target.centred[rows]
    wrong, all_of_it = outputs - left_out, max(target.inner(outputs, outputs, rows), np.finfo(np.float64).tiny)
    return 1 - target.inner(wrong, wrong, rows) / all_of_it


def alike(cosines: Matrix, sharpness: float) -> Matrix:
    """How alike items are, from their cosines, of the same shape: 1 for the same direction, falling from there."""
    return np.asarray(np.exp(np.float32(sharpness) * (cosines - 1)), np.float32)


def _means_of_others(unit: Matrix, likely: NDArray[np.int64], outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows, width), the weighed mean of each row's neighbours among the ``likely`` rows, itself not among them."""
    cosines, neighbours = nearest(unit[likely], unit, min(NEIGHBOURS + 1, len(likely)))
    weights = neighbour_weights(np.where(likely[neighbours] == np.arange(len(unit))[:, None], 0, cosines))
    means: NDArray[np.float64] = np.einsum("nk,nkw->nw", weights, outputs[likely][neighbours])
    return means


def nearest(others: Matrix, unit: Matrix, count: int) -> tuple[Matrix, NDArray[np.int64]]:
    """Cosines and indices (rows, count) of the nearest of the other unit vectors."""
    return ExactSearch(others).nearest(unit, count)


def neighbour_weights(cosines: Matrix) -> Matrix:
    """What each neighbour counts, (rows, neighbours), by its cosine; a row sums to 1, or to 0 without any alike."""
    weights = np.maximum(cosines, 0) ** COSINE_POWER
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), LEAST_WEIGHT), dtype=np.float32)


def _ridge(
    inputs: NDArray[np.float64],
    outputs: NDArray[np.float64],
    weights: NDArray[np.float64],
    target: _Target,
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """W (inputs, width) of the ridge with the least leave-one-out error, and the predictions without each row."""
    root = np.sqrt(weights)[:, None]
    scaled = inputs * root
    energies, basis = np.linalg.eigh(scaled.T @ scaled)
    energies = np.maximum(energies, 0)
    rotated = scaled @ basis
    moment = rotated.T @ (outputs * root)
    best: tuple[float, NDArray[np.float64], NDArray[np.float64]] | None = None
    for ridge in np.array(RIDGES) * max(energies.mean(), LEAST_ENERGY):
        inverse = 1 / (energies + ridge)
        solution = inverse[:, None] * moment
        leverage = np.square(rotated) @ inverse
        residual = (outputs - (rotated / root) @ solution) / np.maximum(1 - leverage, LEAST_WEIGHT)[:, None]
        error = target.inner(residual, residual, rows)
        if best is None or error < best[0]:
            best = error, basis @ solution, outputs - residual
    assert best is not None  # noqa: S101 (there are ridges)
    return best[1], best[2]


def _combined(voices: Sequence[_Voice], modalities: int, target: _Target) -> tuple[Matrix, NDArray[np.float64]]:
    """Weights (2 ^ modalities, voices) by set of modalities, and what each set explains, leave-one-out."""
    weights, explained = np.zeros((2**modalities, len(voices)), np.float32), np.zeros(2**modalities)
    for code in range(1, 2**modalities):
        chosen = [index for index, voice in enumerate(voices) if voice.code & code == voice.code]
        weights[code, chosen], explained[code] = _stacked([voices[index] for index in chosen], target)
    return weights, explained


def _stacked(voices: Sequence[_Voice], target: _Target) -> tuple[NDArray[np.float64], float]:
    """Weights (voices,) by which they explain most of the scores of items that have all of them, and how much that is.

    Equal weights, and nothing explained, where there is no such item.
    """
    fits = [voice.fit for voice in voices]
    rows = reduce(np.intersect1d, [fit.rows for fit in fits])
    if len(rows) == 0:
        return np.full(len(fits), 1 / len(fits)), 0.0
    parts = [fit.left_out[np.searchsorted(fit.rows, rows)] for fit in fits]
    outputs = target.centred[rows]
    gram = np.array([[target.inner(one, other, rows) for other in parts] for one in parts])
    moment = np.array([target.inner(part, outputs, rows) for part in parts])
    total = max(target.inner(outputs, outputs, rows), np.finfo(np.float64).tiny)
    solved = np.linalg.lstsq(gram + STACKING_RIDGE * np.trace(gram) * np.eye(len(fits)), moment, rcond=None)[0]
    return solved, float((2 * solved @ moment - solved @ gram @ solved) / total)


def _scale(tower: FittedTower, voices: Sequence[_Voice], dataset: Dataset, users: Matrix, items: Matrix) -> float:
    """The largest harmless factor, see above, or the least there is; 1 without validation interactions."""
    training, held_out = dataset.interactions(TRAIN), dataset.interactions(VALIDATION)
    judged = evenly_spread(Holdout(training, held_out).users(), max(1, MOST_JUDGED_SCORES // len(items)))
    if len(judged) == 0:
        return 1.0
    known = reduce(np.union1d, [voice.fit.rows for voice in voices])
    cold = np.sort(np.random.default_rng(SEED).permutation(known)[: max(1, round(COLD_SHARE * len(known)))])
    left_out = _left_out_vectors(tower, voices, cold)

    def found(scale: float) -> int:
        """Interactions with the others that are found among all; with a scale of 0 none of the tenth is there."""
        return sum(found_by(chunk, scale) for chunk in chunks(judged, len(items)))

    def found_by(chunk: NDArray[np.int64], scale: float) -> int:
        scores = users[chunk] @ items.T
        taken, relevant = (matrix[chunk].toarray() > 0 for matrix in (training, held_out))
        relevant[:, cold] = False
        scores[taken] = -np.inf
        # also for those who took them: they would find a new item like it first of all
        scores[:, cold] = users[chunk] @ (np.float32(scale) * left_out).T if scale else -np.inf
        best = top_items(torch.from_numpy(scores), CUTOFF)
        return int(np.take_along_axis(relevant, best, axis=1).sum())

    needed = found(0)
    harmless = bisect_left(SCALES, True, key=lambda scale: found(scale) < needed)
    return SCALES[max(harmless - 1, 0)]


def _left_out_vectors(tower: FittedTower, voices: Sequence[_Voice], items: NDArray[np.int64]) -> Matrix:
    """The vectors of some items as the tower gives them, unstretched, when each was left out of its fit."""
    present = np.stack([np.isin(items, voice.fit.rows) for voice in voices], axis=1)
    weights = tower.weights[present[:, : len(tower.maps)] @ _bits(len(tower.maps))]
    vectors = np.tile(tower.centre, (len(items), 1))
    for index, voice in enumerate(voices):
        there = np.flatnonzero(present[:, index])
        left_out = voice.fit.left_out[np.searchsorted(voice.fit.rows, items[there])]
        vectors[there] += (weights[there, index, None] * left_out).astype(np.float32)
    return vectors


def _leading_directions(rows: Matrix, most: int) -> Matrix | None:
    """(d, most) principal directions of rows (n, d) that are wider; None for others."""
    if rows.shape[1] <= most:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        _, _, directions = torch.pca_lowrank(torch.from_numpy(rows), q=min(most, *rows.shape))
    found: Matrix = directions.numpy()
    return found


def unit_rows(rows: Matrix) -> Matrix:
    """Rows (n, any) brought to length 1; zeros stay."""
    lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(rows / lengths, dtype=np.float32)


def _bits(count: int) -> NDArray[np.int64]:
    return 1 << np.arange(count, dtype=np.int64)


def evenly_spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the rows, evenly spread."""
    kept = min(len(rows), most)
    return rows[np.arange(kept) * len(rows) // max(kept, 1)]
