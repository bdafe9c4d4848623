"""Items that a training never sees: they are taken out of a dataset whole, and judged as cold ones afterwards."""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from shared.errors import UserError
from trainer.dataset import Dataset, Modality

_NONE = -1


@dataclass(frozen=True, eq=False)
class ColdSplit:
    """A dataset without some of its items, and what is known of these.

    Attributes:
        warm: the dataset of the other items, renumbered; the users stay who they are.
        warm_items: (warm items,) their indices in the whole dataset, rising.
        cold_items: (cold items,) likewise.
        features: by modality (cold items, d_m); rows of items without it are zero.
        taken: (users, cold items), who took which, in whichever split.
    """

    warm: Dataset
    warm_items: NDArray[np.int64]
    cold_items: NDArray[np.int64]
    features: dict[str, NDArray[np.float32]]
    taken: sp.csr_matrix


def hold_items_out(dataset: Dataset, share: float, seed: int) -> ColdSplit:
    """Take a share of the items that somebody took, drawn at random, out of a dataset.

    Only items with features in some modality are drawn: of the others nothing could be said.

    Raises:
        UserError: there is no such item, or no modality has features.
    """
    features = {name: each.features for name, each in dataset.modalities.items() if each.features is not None}
    if not features:
        raise UserError(f"dataset {dataset.name}: no modality has features, so nothing is known of a cold item")
    described = np.any([dataset.modalities[name].present for name in features], axis=0)
    taken = np.bincount(dataset.items, minlength=len(dataset.item_ids)) > 0
    candidates = np.flatnonzero(described & taken)
    if len(candidates) < 2:
        raise UserError(f"dataset {dataset.name}: fewer than two items have both features and interactions")
    count = max(1, round(share * len(candidates)))
    cold = np.sort(np.random.default_rng(seed).permutation(candidates)[:count])
    warm = np.setdiff1d(np.arange(len(dataset.item_ids)), cold)
    return ColdSplit(
        warm=_only(dataset, warm, f"{share} of the items held out by seed {seed}"),
        warm_items=warm,
        cold_items=cold,
        features={name: values[cold] for name, values in features.items()},
        taken=_taken(dataset, cold),
    )


def _taken(dataset: Dataset, items: NDArray[np.int64]) -> sp.csr_matrix:
    kept = np.isin(dataset.items, items)
    columns = np.searchsorted(items, dataset.items[kept])
    shape = (len(dataset.user_ids), len(items))
    return sp.csr_matrix((np.ones(len(columns), np.float32), (dataset.users[kept], columns)), shape=shape)


def _only(dataset: Dataset, items: NDArray[np.int64], why: str) -> Dataset:
    """The dataset of these items, rising indices; ``why`` goes into its name and fingerprint."""
    kept = dataset.where(np.isin(dataset.items, items))
    new = np.full(len(dataset.item_ids), _NONE, np.int32)
    new[items] = np.arange(len(items), dtype=np.int32)
    return replace(
        kept,
        name=f"{dataset.name}-held-out",
        item_ids=[dataset.item_ids[item] for item in items],
        items=new[kept.items].astype(np.int64),
        modalities={name: _rows(modality, items, new) for name, modality in dataset.modalities.items()},
        catalogue=None if dataset.catalogue is None else [dataset.catalogue[item] for item in items],
        fingerprint=f"{dataset.fingerprint}, {why}",
    )


def _rows(modality: Modality, items: NDArray[np.int64], new: NDArray[np.int32]) -> Modality:
    """A modality of some of the items; neighbours that are gone leave a gap, and no cosine."""
    if modality.neighbours is None:
        neighbours = cosine = None
    else:
        old = modality.neighbours[items]
        neighbours = np.where(old >= 0, new[old], _NONE).astype(np.int32)
        cosine = None if modality.cosine is None else np.where(neighbours >= 0, modality.cosine[items], 0)
    return replace(
        modality,
        features=None if modality.features is None else modality.features[items],
        present=modality.present[items],
        neighbours=neighbours,
        cosine=cosine,
    )
