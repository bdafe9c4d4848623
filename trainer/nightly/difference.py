"""How far two versions' recommendations differ, for users that both know."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.artifact import Artifact
from shared.errors import UserError

CUTOFF = 20
PERSISTENCE = 0.9
"""Of rank-biased overlap: how likely a reader goes on to the next rank."""
SEED = 0


@dataclass(frozen=True)
class Difference:
    """Means over the users that were compared.

    Attributes:
        users: how many.
        overlap: share of the top 20 that both lists have.
        rank_biased_overlap: the same, the first ranks counting most (Webber et al., 2010), over 20 ranks.
        churn: share of the users whose first item is another one.
        unchanged: share of the users whose lists are the same.
    """

    users: int
    overlap: float
    rank_biased_overlap: float
    churn: float
    unchanged: float


def difference(first: Artifact, second: Artifact, users: int) -> Difference:
    """Compare the lists of a sample of users, each without what the version knows them to have.

    Raises:
        UserError: no user is in both.
    """
    common = [user for user in first.users if second.users.dense(user) is not None]
    if not common:
        raise UserError("the two versions have no user in common")
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(common))[:users])
    lists = [(_best(first, common[user]), _best(second, common[user])) for user in chosen]
    return Difference(
        users=len(lists),
        overlap=float(np.mean([len(set(one) & set(other)) / CUTOFF for one, other in lists])),
        rank_biased_overlap=float(np.mean([rank_biased_overlap(one, other) for one, other in lists])),
        churn=float(np.mean([one[:1] != other[:1] for one, other in lists])),
        unchanged=float(np.mean([one == other for one, other in lists])),
    )


def rank_biased_overlap(one: list[str], other: list[str]) -> float:
    """Rank-biased overlap over the ranks that both lists have, its weights made to sum to 1.

    >>> rank_biased_overlap(["a", "b"], ["a", "b"]), rank_biased_overlap(["a"], ["b"])
    (1.0, 0.0)
    """
    depth = min(len(one), len(other))
    weights: NDArray[np.floating] = PERSISTENCE ** np.arange(depth)
    agreement = [len(set(one[:rank]) & set(other[:rank])) / rank for rank in range(1, depth + 1)]
    return float(weights @ agreement / weights.sum()) if depth else 0.0


def _best(model: Artifact, user: str) -> list[str]:
    place = model.users.dense(user)
    if place is None:
        raise KeyError(user)
    scores = model.item_embeddings @ model.user_embeddings[place]
    seen = model.seen(place)
    scores[seen] = -np.inf
    order = np.lexsort((np.arange(len(scores)), -scores))[: min(CUTOFF, len(scores) - len(seen))]
    return model.items.outside_many(order)
