"""Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): trade a little score for less of the same."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CANDIDATES_PER_PLACE = 5
FEWEST_CANDIDATES = 100


def candidate_count(k: int) -> int:
    """How many of the best items compete for ``k`` places."""
    return max(CANDIDATES_PER_PLACE * k, FEWEST_CANDIDATES)


def diversified(
    scores: NDArray[np.float64],
    embeddings: NDArray[np.float32],
    k: int,
    diversity: float,
    *,
    before: NDArray[np.float32],
    is_taken: Callable[[int], bool],
) -> NDArray[np.int64]:
    """Positions of at most ``k`` candidates in the order in which they are picked, each once.

    Each place goes to the candidate with the largest

        (1 - diversity) relevance - diversity (largest cosine to those picked before)

    where relevance is the score, scaled to run from 0 to 1 over the candidates. Ties go to the better score.

    Args:
        scores: (candidates,), falling.
        embeddings: (candidates, width).
        k: places.
        diversity: 0 keeps the order, 1 looks at nothing but likeness.
        before: (any, width), of what was picked from other candidates already.
        is_taken: whether a candidate may have the place that it would get; it is asked once for each at most.
    """
    span = scores[0] - scores[-1] if len(scores) else 0.0
    relevance = (scores - scores[-1]) / span if span > 0 else np.zeros(len(scores))
    unit, picked_before = _unit_rows(embeddings), _unit_rows(before)
    likeness = (unit @ picked_before.T).max(axis=1, initial=-1.0)
    gain = (1 - diversity) * relevance
    picked: list[int] = []
    is_first = not len(before)
    for _ in range(len(scores)):
        if len(picked) == k:
            break
        best = int(np.argmax(gain if is_first else gain - diversity * likeness))
        gain[best] = -np.inf
        if is_taken(best):
            picked.append(best)
            likeness = np.maximum(likeness, unit @ unit[best])
            is_first = False
    return np.array(picked, dtype=np.int64)


def _unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    unit: NDArray[np.float32] = rows / lengths
    return unit
