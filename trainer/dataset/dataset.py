"""The dataset as the trainer sees it: dense ids, labelled interactions, modalities.

Knows no files beyond the directory it is read from; ids from outside live in ``user_ids`` and ``item_ids`` only.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from shared.encoders import EncoderFolder
from shared.errors import UserError
from trainer.dataset.contents import Contents, read_contents
from trainer.dataset.features import Modality
from trainer.dataset.findings import Finding, Findings
from trainer.dataset.splits import SplitSpec, validate_command
from trainer.encoders.features_manifest import encoders_of

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions, items and what is known of them.

    Attributes:
        name: of the directory.
        user_ids: ids from outside, in dense order.
        item_ids: likewise; items without interactions included.
        users: (interactions,) dense ids, sorted by user, then item, each pair once.
        items: (interactions,).
        labels: (interactions,) 0 train, 1 validation, 2 test.
        timestamps: (interactions,) seconds since 1970, of a pair's first event.
        weights: (interactions,) of a pair's first event.
        modalities: sorted by name.
        catalogue: one record an item, in dense order, fit for JSON.
        split: how the labels came about.
        fingerprint: sha256 of ids, interactions, labels and modalities, wherever they were read from.
        encoders: by modality, what made its features, where that is known (``mts4mm encode``).
    """

    name: str
    user_ids: list[str]
    item_ids: list[str]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    labels: NDArray[np.int8]
    timestamps: NDArray[np.float64] | None
    weights: NDArray[np.float32] | None
    modalities: dict[str, Modality]
    catalogue: list[dict[str, Any]] | None
    split: SplitSpec
    fingerprint: str
    encoders: dict[str, EncoderFolder] = field(default_factory=dict)

    def interactions(self, label: int) -> sp.csr_matrix:
        """Y of one split, (users, items), float32, 1 where there is an interaction."""
        chosen = self.labels == label
        ones = np.ones(int(chosen.sum()), np.float32)
        shape = (len(self.user_ids), len(self.item_ids))
        return sp.csr_matrix((ones, (self.users[chosen], self.items[chosen])), shape=shape)

    def relative_weights(self, label: int) -> NDArray[np.float32] | None:
        """Weights of one split over the largest of them, (interactions of the split,); None where there are none."""
        if self.weights is None:
            return None
        weights = self.weights[self.labels == label]
        largest = np.float32(max(weights.max(initial=0), np.finfo(np.float32).tiny))
        relative: NDArray[np.float32] = weights / largest
        return relative

    def where(self, kept: NDArray[np.bool_]) -> "Dataset":
        """The same users and items with some of the interactions only, bool (interactions,)."""
        return replace(
            self,
            users=self.users[kept],
            items=self.items[kept],
            labels=self.labels[kept],
            timestamps=None if self.timestamps is None else self.timestamps[kept],
            weights=None if self.weights is None else self.weights[kept],
        )


def load_dataset(
    directory: Path, split: SplitSpec | None = None, progress: Callable[[str], None] = lambda what: None
) -> Dataset:
    """Read, check, encode and split a directory.

    Args:
        directory: see the package's modules for what may lie in it.
        split: None takes the file's x_label if it has one, else a random split with seed 0.
        progress: told what is being read.

    Raises:
        UserError: the directory has an error; ``validate_directory`` lists all of them.
    """
    findings = Findings()
    contents = read_contents(directory, split, findings, progress)
    if findings.errors or contents is None or contents.labels is None:
        raise UserError(_refusal(directory, findings.errors, split))
    progress("fingerprint")
    return Dataset(
        name=directory.resolve().name,
        user_ids=contents.user_ids,
        item_ids=contents.item_ids,
        users=contents.users,
        items=contents.items,
        labels=contents.labels,
        timestamps=contents.timestamps,
        weights=contents.weights,
        modalities=contents.modalities,
        catalogue=contents.catalogue,
        split=contents.split,
        fingerprint=_fingerprint(contents),
        encoders=encoders_of(directory, contents.manifests),
    )


def _refusal(directory: Path, errors: list[Finding], split: SplitSpec | None) -> str:
    lines = [f"{directory} cannot be loaded:", *(f"- {error}" for error in errors[:_SHOWN])]
    if len(errors) > _SHOWN:
        lines.append(f"- and {len(errors) - _SHOWN} more; '{validate_command(directory, split)}' lists them all")
    return "\n".join(lines)


def _fingerprint(contents: Contents) -> str:
    digest = hashlib.sha256()
    for name, ids in (("users", contents.user_ids), ("items", contents.item_ids)):
        digest.update(f"{name} {json.dumps(ids)}\n".encode())
    arrays: dict[str, NDArray[Any] | None] = {
        "interaction users": contents.users,
        "interaction items": contents.items,
        "labels": contents.labels,
        "timestamps": contents.timestamps,
        "weights": contents.weights,
    }
    for modality in contents.modalities.values():
        arrays |= {
            f"{modality.name} features": modality.features,
            f"{modality.name} present": modality.present,
            f"{modality.name} neighbours": modality.neighbours,
            f"{modality.name} cosine": modality.cosine,
        }
    for name, array in arrays.items():
        if array is not None:
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            digest.update(f"{name} {little.dtype.str} {little.shape}\n".encode())
            digest.update(little.data)
    return digest.hexdigest()
