"""Datasets whose content is worse than it was: some items' content swapped among them, or gone.

A larger share harms all that a smaller one does, and more. Interactions stay as they are.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Dataset, Modality

Kind = Literal["shuffled", "missing"]


@dataclass(frozen=True)
class Corruption:
    """What is done to whom.

    Attributes:
        kind: ``shuffled`` hands the content of the chosen items out among them at random, ``missing`` takes it away.
        modalities: the ones that suffer; each has its own items chosen, whatever befalls the others.
        share: of the items that have the modality, in [0, 1].
    """

    kind: Kind
    modalities: tuple[str, ...]
    share: float


def corrupted(dataset: Dataset, corruption: Corruption, seed: int) -> Dataset:
    """The dataset after the corruption, under a fingerprint of its own; the same one for a share of 0.

    Neighbour lists suffer as if they had been computed from the corrupted content, but for one thing: an item whose
    neighbours went missing has fewer of them, not farther ones.

    Args:
        dataset: is left as it is.
        corruption: what to do.
        seed: of the choice of items.
    """
    if corruption.share == 0:
        return dataset
    change: Callable[[Modality, NDArray[np.int64], np.random.Generator], Modality] = {
        "shuffled": _shuffled,
        "missing": _without,
    }[corruption.kind]
    modalities = dict(dataset.modalities)
    for name in corruption.modalities:
        generator = np.random.default_rng([seed, *name.encode()])
        owners = generator.permutation(np.flatnonzero(modalities[name].present))
        chosen = owners[: round(corruption.share * len(owners))]
        modalities[name] = change(modalities[name], chosen, generator)
    identity = json.dumps([dataset.fingerprint, asdict(corruption), seed])
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    return replace(dataset, modalities=modalities, fingerprint=fingerprint)


def _shuffled(modality: Modality, chosen: NDArray[np.int64], generator: np.random.Generator) -> Modality:
    """Item ``chosen[n]`` gets the content of another of them; ``source[i]`` is whose content item i has now."""
    source = np.arange(len(modality.present))
    source[chosen] = generator.permutation(chosen)
    holder = np.argsort(source)
    neighbours = modality.neighbours
    if neighbours is not None:
        moved = neighbours[source]
        neighbours = np.where(moved >= 0, holder[moved], -1).astype(np.int32)
    return replace(
        modality,
        features=None if modality.features is None else modality.features[source],
        neighbours=neighbours,
        cosine=None if modality.cosine is None else modality.cosine[source],
    )


def _without(modality: Modality, chosen: NDArray[np.int64], generator: np.random.Generator) -> Modality:
    del generator
    present = modality.present.copy()
    present[chosen] = False
    neighbours, cosine = modality.neighbours, modality.cosine
    if neighbours is not None:
        gone = (neighbours < 0) | ~present[neighbours] | ~present[:, None]
        nearest_first = np.argsort(gone, axis=1, kind="stable")
        neighbours = np.take_along_axis(np.where(gone, -1, neighbours), nearest_first, axis=1)
        if cosine is not None:
            cosine = np.take_along_axis(np.where(gone, 0, cosine), nearest_first, axis=1)
    features = None if modality.features is None else np.where(present[:, None], modality.features, 0)
    return replace(modality, features=features, present=present, neighbours=neighbours, cosine=cosine)
