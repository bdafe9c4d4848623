"""How well items are found that nobody has taken yet: by ways to give them vectors, and by content alone.

Items are held out whole, with interactions and features, and a student is trained on what is left. Their interactions
are then looked for among the held-out items alone, and among all items together. The baselines know no student, only
features of length 1, of each modality or of all side by side; ``centred`` takes the mean item's off first. Each has the
figure of the best of two ways: by a user's profile, the mean of what the user took, and items' cosines to it; and by
content-kNN, the sum of an item's cosines to those of its 10, 50 or 200 nearest that the user took.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from shared.errors import UserError
from trainer.dataset import TEST, TRAIN, Dataset
from trainer.evaluation import Holdout, evaluate_scores
from trainer.item_tower import Matrix, fit_item_tower, nearest, neighbour_weights, unit_rows
from trainer.measurement.cold_split import ColdSplit, hold_items_out
from trainer.training import TrainedStudent

METRIC = "recall@20"
NEIGHBOURS = 10
CONTENT_NEIGHBOURS = (10, 50, 200)

Scores = Callable[[NDArray[np.int64]], torch.Tensor]


@dataclass(frozen=True)
class ColdFigures:
    """Recall@20 of the held-out items' interactions.

    Attributes:
        users: who had taken some, and some of the others in training.
        items: how many were held out.
        others: how many were not.
        random: what chance finds among the held-out items.
        among_cold: by way, among the held-out items alone.
        among_all: by way to give vectors, among all items.
        warm: of the others' test interactions, before the held-out items are there.
        warm_with: by way, the same when they are.
    """

    users: int
    items: int
    others: int
    random: float
    among_cold: dict[str, float]
    among_all: dict[str, float]
    warm: float
    warm_with: dict[str, float]


def measure_cold_items(
    dataset: Dataset, share: float, seed: int, train: Callable[[Dataset], TrainedStudent]
) -> ColdFigures:
    """Hold items out, train without them, and look for them.

    Raises:
        UserError: no item can be held out, or nobody who took one took anything else.
    """
    split = hold_items_out(dataset, share, seed)
    student = train(split.warm)
    training = split.warm.interactions(TRAIN)
    empty = _some(split.taken, np.empty(0, np.int64))
    judged = Holdout(training, split.taken).users()
    if len(judged) == 0:
        raise UserError(f"dataset {dataset.name}: nobody who took a held-out item took another one in training")
    taken = _some(split.taken, judged)
    contents = content_ways(split, training)
    vectors = _vectors(split, student)
    by_vectors = {name: [_products(student.user_embeddings, found)] for name, found in vectors.items()}
    tables = {name: np.concatenate([student.item_embeddings, found]) for name, found in vectors.items()}
    masked = sp.hstack([training, empty], format="csr")
    everything = Holdout(masked, sp.hstack([_some(training, np.empty(0, np.int64)), taken], format="csr"))
    warm_test = split.warm.interactions(TEST)
    warm = Holdout(masked, sp.hstack([warm_test, empty], format="csr"))
    return ColdFigures(
        users=len(judged),
        items=len(split.cold_items),
        others=len(split.warm_items),
        random=min(1.0, 20 / len(split.cold_items)),
        among_cold={
            name: max(evaluate_scores(_alone(scores, len(split.warm_items)), everything)[METRIC] for scores in ways)
            for name, ways in {**contents, **by_vectors}.items()
        },
        among_all={
            name: evaluate_scores(_products(student.user_embeddings, table), everything)[METRIC]
            for name, table in tables.items()
        },
        warm=evaluate_scores(_products(student.user_embeddings, student.item_embeddings), Holdout(training, warm_test))[
            METRIC
        ],
        warm_with={
            name: evaluate_scores(_products(student.user_embeddings, table), warm)[METRIC]
            for name, table in tables.items()
        },
    )


def _vectors(split: ColdSplit, student: TrainedStudent) -> dict[str, Matrix]:
    tower = fit_item_tower(split.warm, sorted(split.features), student.user_embeddings, student.item_embeddings)
    found = {"neighbours": _neighbour_vectors(split, student.item_embeddings)}
    return found if tower is None else {**found, "tower": tower.vectors(split.features)}


def _neighbour_vectors(split: ColdSplit, items: Matrix) -> Matrix:
    """The mean over modalities of the nearest items' vectors, Eq. 6-7 and 12 with new nodes."""
    total = np.zeros((len(split.cold_items), items.shape[1]))
    count = np.zeros((len(split.cold_items), 1))
    for name, features in split.features.items():
        modality = split.warm.modalities[name]
        rows = np.flatnonzero(modality.present)
        there = np.abs(features).max(axis=1) > 0
        if modality.features is None or len(rows) == 0:
            continue
        mean = modality.features[rows].mean(axis=0)
        cosines, neighbours = nearest(
            unit_rows(modality.features[rows] - mean), unit_rows(features - mean), min(NEIGHBOURS, len(rows))
        )
        total[there] += np.einsum("nk,nkw->nw", neighbour_weights(cosines), items[rows[neighbours]])[there]
        count[there] += 1
    means: Matrix = (total / np.maximum(count, 1)).astype(np.float32)
    return means


def content_ways(split: ColdSplit, training: sp.csr_matrix) -> dict[str, list[Scores]]:
    """By what is looked at, the ways to rank the held-out items by it."""
    plain, centred = {}, {}
    for name, features in split.features.items():
        modality = split.warm.modalities[name]
        known = modality.features
        if known is None:
            continue
        there = (modality.present[:, None], (np.abs(features).max(axis=1) > 0)[:, None])
        mean = known[modality.present].mean(axis=0)
        plain[f"content {name}"] = (unit_rows(known), unit_rows(features))
        centred[f"content {name}, centred"] = (
            unit_rows((known - mean) * there[0]),
            unit_rows((features - mean) * there[1]),
        )
    looked_at = {name: [table] for name, table in {**plain, **centred}.items()}
    if len(plain) > 1:
        looked_at["content, all of it"] = list(plain.values())
        looked_at["content, all of it, centred"] = list(centred.values())
    return {name: [_by_profile(training, tables), *_by_nearest(training, tables)] for name, tables in looked_at.items()}


def _by_profile(training: sp.csr_matrix, tables: list[tuple[Matrix, Matrix]]) -> Scores:
    def scores(users: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(sum(unit_rows(training[users] @ known) @ cold.T for known, cold in tables))

    return scores


def _by_nearest(training: sp.csr_matrix, tables: list[tuple[Matrix, Matrix]]) -> list[Scores]:
    """Content-kNN, by how many of the nearest items count."""
    known, cold = (np.concatenate(side, axis=1) for side in zip(*tables, strict=True))
    cosines, neighbours = nearest(known, cold, min(max(CONTENT_NEIGHBOURS), len(known)))

    def scores_of(count: int) -> Scores:
        weights, columns = np.maximum(cosines[:, :count], 0), neighbours[:, :count]
        starts = np.arange(len(cold) + 1) * weights.shape[1]
        likeness = sp.csr_matrix((weights.ravel(), columns.ravel(), starts), shape=(len(cold), len(known)))
        return lambda users: torch.from_numpy((training[users] @ likeness.T).toarray())

    return [scores_of(count) for count in CONTENT_NEIGHBOURS]


def _alone(scores: Scores, others: int) -> Scores:
    """Scores over all items of which only the held-out ones are ever ranked."""

    def padded(users: NDArray[np.int64]) -> torch.Tensor:
        return torch.nn.functional.pad(scores(users), (others, 0), value=-torch.inf)

    return padded


def _products(users: Matrix, items: Matrix) -> Scores:
    return lambda chosen: torch.from_numpy(users[chosen] @ items.T)


def _some(matrix: sp.csr_matrix, users: NDArray[np.int64]) -> sp.csr_matrix:
    """Only these users' rows."""
    chosen = np.zeros(matrix.shape[0], np.float32)
    chosen[users] = 1
    kept = sp.csr_matrix(sp.diags(chosen) @ matrix)
    kept.eliminate_zeros()
    return kept
