"""What is popular lately: training interactions, each of which counts half as much with every ``HALF_LIFE_DAYS``.

An artefact whose training data have times brings the counts as the attachment ``trending.npy``, float64 [items].
Whoever nothing is known of gets the most popular items by them, else by the plain number of interactions.
"""

import io
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from shared.artifact import Artifact
from shared.errors import UserError

ATTACHMENT = "trending.npy"
HALF_LIFE_DAYS = 30
"""A season shorter than that of a year, and enough interactions for items that sell once a week."""

_SECONDS = HALF_LIFE_DAYS * 24 * 3600


def attachments_of(
    items: NDArray[np.integer], timestamps: NDArray[np.float64] | None, count: int, now: datetime
) -> dict[str, bytes]:
    """What an artefact takes along, for ``StudentModel.attachments``; nothing where there is no time to tell by.

    Args:
        items: (interactions,) of the training.
        timestamps: (interactions,) seconds since 1970; what is after ``now`` counts as of now.
        count: of items.
        now: an aware time.
    """
    if timestamps is None or len(timestamps) == 0 or timestamps.min() == timestamps.max():
        return {}
    times = np.minimum(timestamps, now.timestamp())
    buffer = io.BytesIO()
    np.save(buffer, np.bincount(items, np.exp2((times - times.max()) / _SECONDS), count), allow_pickle=False)
    return {ATTACHMENT: buffer.getvalue()}


def load_trending(artifact: Artifact) -> NDArray[np.float64] | None:
    """How popular each item is lately, float64 [items]; None where the model does not say.

    Raises:
        UserError: the attachment is not as :func:`attachments_of` makes it.
    """
    path = artifact.attachment(ATTACHMENT)
    if path is None:
        return None
    try:
        counts: NDArray[np.float64] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if counts.dtype != np.float64 or counts.shape != (len(artifact.items),):
        raise UserError(f"{path}: is no float64 table with a number for each item")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise UserError(f"{path}: holds what is no count")
    return counts


def order(popularity: NDArray[np.int64], trending: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """All items, the most popular ones lately first; of equal ones those with more interactions, then the lower row."""
    ranked: NDArray[np.int64] = np.argsort(-popularity, kind="stable")
    return ranked if trending is None else ranked[np.argsort(-trending[ranked], kind="stable")]
