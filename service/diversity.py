"""Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): trade a little score for less of the same."""

import numpy as np
from numpy.typing import NDArray

CANDIDATES_PER_PLACE = 5
FEWEST_CANDIDATES = 100


def candidate_count(k: int) -> int:
    """How many of the best items compete for ``k`` places."""
    return max(CANDIDATES_PER_PLACE * k, FEWEST_CANDIDATES)


def diversified(
    scores: NDArray[np.float64], embeddings: NDArray[np.float32], k: int, diversity: float
) -> NDArray[np.int64]:
    """Positions of ``min(k, candidates)`` candidates in the order in which they are picked, each once.

    Each place goes to the candidate with the largest

        (1 - diversity) relevance - diversity (largest cosine to those picked before)

    where relevance is the score, scaled to run from 0 to 1 over the candidates. Ties go to the better score.

    Args:
        scores: (candidates,), falling.
        embeddings: (candidates, width).
        k: places.
        diversity: 0 keeps the order, 1 looks at nothing but likeness.
    """
    span = scores[0] - scores[-1] if len(scores) else 0.0
    relevance = (scores - scores[-1]) / span if span > 0 else np.zeros(len(scores))
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)
    likeness = np.full(len(scores), -1.0)
    gain = (1 - diversity) * relevance
    picked = np.empty(min(k, len(scores)), dtype=np.int64)
    for place in range(len(picked)):
        best = int(np.argmax(gain if place == 0 else gain - diversity * likeness))
        picked[place] = best
        gain[best] = -np.inf
        likeness = np.maximum(likeness, unit @ unit[best])
    return picked
