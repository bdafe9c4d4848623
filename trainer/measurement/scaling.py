"""How a training's cost grows with the interactions."""

import math
from collections.abc import Sequence

import numpy as np

from trainer.dataset import TRAIN, Dataset
from trainer.recipe import Recipe

STEPS_AN_EPOCH = 60


def fitted_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """The e of ``cost ~ size^e``: the slope of log cost over log size by least squares; None for fewer than 2 sizes.

    >>> round(fitted_exponent([1, 10, 100], [3, 30, 300]), 6)
    1.0
    """
    if len(set(sizes)) < 2:
        return None
    slope, _ = np.polyfit(np.log(sizes), np.log(costs), 1)
    return float(slope)


def with_scaled_batches(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with batches so large that an epoch has ``STEPS_AN_EPOCH`` steps, whatever the dataset's size."""
    triplets = int((dataset.labels == TRAIN).sum())
    return recipe.model_copy(update={"batch_size": max(1, math.ceil(triplets / STEPS_AN_EPOCH))})
