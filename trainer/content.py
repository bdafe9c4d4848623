"""The features of a dataset's items, as the artefact takes them along: unit rows, narrow ones."""

import numpy as np
import torch
from numpy.typing import NDArray

from shared.content import MOST_WIDTH, Content
from trainer.dataset import Dataset

_FURTHER_DIRECTIONS = 16


def contents_of(dataset: Dataset) -> dict[str, Content]:
    """Content by modality, of those modalities that have features and not neighbours alone."""
    return {
        name: content_of(modality.features, modality.present)
        for name, modality in dataset.modalities.items()
        if modality.features is not None and name == name.lower()  # a file of an artefact has no capitals
    }


def content_of(features: NDArray[np.floating], present: NDArray[np.bool_], most: int = MOST_WIDTH) -> Content:
    """Content of features [items, any], of which those that are not ``present`` [items] count as missing."""
    known = np.where(present[:, None], features, 0).astype(np.float32)
    known = _unit(known)
    if known.shape[1] <= most:
        return Content(known.astype(np.float16), None)
    directions = _leading_directions(known, most)
    return Content(_unit(known @ directions).astype(np.float16), directions)


def _leading_directions(rows: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Those through the origin, because cosines are taken from there; (columns, at most ``most``)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wanted = min(most + _FURTHER_DIRECTIONS, *rows.shape)
        _, _, directions = torch.svd_lowrank(torch.from_numpy(rows), q=wanted)
    found: NDArray[np.float32] = np.ascontiguousarray(directions[:, :most].numpy())
    return found


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)
