"""Recall@K and NDCG@K by exact full ranking, with the paper's protocol.

Only training items are masked; users without training items are left out; a score is the mean over the users
with at least one held-out item. Of more than ``MOST_USERS`` such users a fixed sample of that size is judged.
Equal scores rank by the lower item index, so a figure never depends on how a library happens to order ties.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

CUTOFFS = (10, 20)
USERS_PER_CHUNK = 512
FEW_USERS = 128
"""With fewer the item table is read too often for what is computed with it."""
SCORES_KEPT = 2**22
"""16 MB: the C library keeps blocks of up to 32 MB to use again, and has larger ones cleared anew each time."""
SCORES_PER_CHUNK = 2**25
"""More are never formed at once."""
MOST_USERS = 50_000
NO_ITEM = -1
"""At the ranks of a list for which no item is left."""

Scores = Callable[[NDArray[np.int64]], Tensor]
"""From users (n,) to scores (n, items), a new tensor at each call."""


def recall(hits: NDArray[np.bool_], relevant: NDArray[np.int64], cutoff: int) -> NDArray[np.float64]:
    """Recall@K of each user: ``|top-K and relevant| / |relevant|``.

    Args:
        hits: (users, >= K), whether the item at each rank is relevant.
        relevant: (users,), how many items are relevant, at least 1.
        cutoff: K.

    >>> recall(np.array([[True, False, True]]), np.array([4]), 3).tolist()
    [0.5]
    """
    return np.asarray(hits[:, :cutoff].sum(axis=1) / relevant)


def ndcg(hits: NDArray[np.bool_], relevant: NDArray[np.int64], cutoff: int) -> NDArray[np.float64]:
    """NDCG@K of each user: ``sum over hits of 1 / log2(rank + 1)``, over the same sum of an ideal list.

    Ranks count from 1; the ideal list has its ``min(K, |relevant|)`` first ranks relevant.

    >>> ndcg(np.array([[False, True]]), np.array([1]), 2).round(4).tolist()
    [0.6309]
    """
    discounts = 1 / np.log2(np.arange(2, cutoff + 2))
    ideal = np.cumsum(discounts)[np.minimum(relevant, cutoff) - 1]
    found = hits[:, :cutoff]
    return np.asarray(found @ discounts[: found.shape[1]] / ideal)


@dataclass(frozen=True)
class Holdout:
    """What a ranking is judged against.

    Attributes:
        training: (users, items), the interactions to mask.
        held_out: (users, items), the interactions to find.
    """

    training: sp.csr_matrix
    held_out: sp.csr_matrix

    def users(self) -> NDArray[np.int64]:
        """Users with both training and held-out items; of more than ``MOST_USERS`` that many, evenly spread.

        Which ones depends on the interactions alone, so that whoever judges again judges the same users.
        """
        has_both = (np.diff(self.training.indptr) > 0) & (np.diff(self.held_out.indptr) > 0)
        users = np.flatnonzero(has_both)
        judged = min(len(users), MOST_USERS)
        return users[np.arange(judged) * len(users) // max(judged, 1)]


def evaluate(embeddings: Tensor, holdout: Holdout) -> dict[str, float]:
    """``recall@10, recall@20, ndcg@10, ndcg@20`` of inner products, Eq. 31; all NaN if there is no user to judge.

    Args:
        embeddings: (users + items, width), users first.
        holdout: training and held-out interactions.
    """
    user_count = holdout.training.shape[0]
    of_users, of_items = embeddings[:user_count], embeddings[user_count:]

    def scores(users: NDArray[np.int64]) -> Tensor:
        return of_users[torch.as_tensor(users, device=of_users.device)] @ of_items.T

    return evaluate_scores(scores, holdout)


def evaluate_scores(scores: Scores, holdout: Holdout) -> dict[str, float]:
    """The same figures of any scores."""
    return ranked(scores, holdout).metrics()


@dataclass(frozen=True)
class Ranking:
    """The best items of each judged user, and which of them were to be found.

    Attributes:
        users: (n,) the users that are judged.
        items: (n, max(CUTOFFS)) or fewer columns, the best items, best first, then ``NO_ITEM``.
        hits: of the same shape, whether the item is held out.
        relevant: (n,) how many items are held out, at least 1.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    hits: NDArray[np.bool_]
    relevant: NDArray[np.int64]

    def metrics(self) -> dict[str, float]:
        """Means over the users; all NaN if there is none."""
        if len(self.users) == 0:
            return {f"{name}@{cutoff}": float("nan") for name in ("recall", "ndcg") for cutoff in CUTOFFS}
        return {
            f"{name}@{cutoff}": float(metric(self.hits, self.relevant, cutoff).mean())
            for name, metric in (("recall", recall), ("ndcg", ndcg))
            for cutoff in CUTOFFS
        }


def ranked(scores: Scores, holdout: Holdout) -> Ranking:
    """Rank all items that are not masked, for every user that is judged."""
    users = holdout.users()
    lists = ranked_for(scores, users, holdout)
    return Ranking(users, lists, found(lists, users, holdout), np.diff(holdout.held_out.indptr)[users].astype(np.int64))


def ranked_for(scores: Scores, users: NDArray[np.int64], holdout: Holdout) -> NDArray[np.int64]:
    """The best items of some users, (n, max(CUTOFFS)), then ``NO_ITEM``: training items and scores of -inf are none."""
    lists = [_best(scores(chunk), chunk, holdout) for chunk in chunks(users, holdout.training.shape[1])]
    return np.concatenate(lists) if lists else np.empty((0, max(CUTOFFS)), np.int64)


def chunks(users: NDArray[np.int64], items: int) -> list[NDArray[np.int64]]:
    """The users (n,) in chunks whose scores of so many items are to be formed at once."""
    wanted = min(USERS_PER_CHUNK, max(FEW_USERS, SCORES_KEPT // items))
    size = max(1, min(wanted, SCORES_PER_CHUNK // items))
    return [users[start : start + size] for start in range(0, len(users), size)]


def found(lists: NDArray[np.int64], users: NDArray[np.int64], holdout: Holdout) -> NDArray[np.bool_]:
    """Which items of the lists, (n, any), are held out of their users (n,); ``NO_ITEM`` is not."""
    relevant = holdout.held_out[users]
    pairs = relevant.tocoo()
    keys = pairs.row.astype(np.int64) * relevant.shape[1] + pairs.col
    listed = np.arange(len(users))[:, None] * relevant.shape[1] + lists
    return np.asarray(np.isin(listed, keys) & (lists != NO_ITEM))


def top_items(scores: Tensor, count: int) -> NDArray[np.int64]:
    """The ``count`` best columns of each row, best first, ties by the lower column: (rows, min(count, columns)).

    Args:
        scores: (rows, columns), finite or -inf.
        count: how many.
    """
    count = min(count, scores.shape[1])
    probe = min(count + 1, scores.shape[1])
    values, columns = (part.cpu().numpy() for part in scores.topk(probe, dim=1))
    order = np.lexsort((columns, -values), axis=1)[:, :count]
    best = np.take_along_axis(columns, order, axis=1)
    if probe > count:
        for row in np.flatnonzero(values[:, count] == values[:, count - 1]):
            best[row] = torch.sort(scores[row], descending=True, stable=True).indices[:count].cpu().numpy()
    return best


def _best(scores: Tensor, users: NDArray[np.int64], holdout: Holdout) -> NDArray[np.int64]:
    rows, columns = holdout.training[users].nonzero()
    scores[torch.as_tensor(rows), torch.as_tensor(columns)] = -torch.inf
    best = top_items(scores, max(CUTOFFS))
    possible = scores.gather(1, torch.as_tensor(best, device=scores.device)) != -torch.inf
    return np.where(possible.cpu().numpy(), best, NO_ITEM)
