"""Publishes a model again without some of its users: who asked to be forgotten leaves it, though no better one came."""

from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from shared import artifact, forgotten
from shared.artifact import Artifact, Provenance, StudentModel
from shared.artifact.layout import ATTACHED


def publish_without(
    store: Path, model: Artifact, users: Collection[str], until: datetime, gate: Mapping[str, Any]
) -> str:
    """Publish a model without the embeddings and the interactions of some users, not live yet; returns its version.

    What it learnt of items and of other users stays as it is.

    Args:
        store: where to.
        model: what it was.
        users: who leaves; some users have to stay.
        until: up to when what users asked to be forgotten is not in it any more.
        gate: what its manifest says of the gate.
    """
    stays = np.array([user not in users for user in model.users])
    taken = np.diff(model.train_indptr)
    described = [model.item_metadata(row) for row in range(len(model.items))]
    parts = model.parts
    student = StudentModel(
        user_ids=model.users.outside_many(np.flatnonzero(stays).tolist()),
        item_ids=list(model.items),
        user_embeddings=model.user_embeddings[stays],
        item_embeddings=model.item_embeddings,
        train_indptr=np.concatenate([[0], np.cumsum(taken[stays])]),
        train_indices=model.train_indices[np.repeat(stays, taken)],
        items=[each for each in described if each is not None] or None,
        user_parts=None if parts is None else {n: parts.users[p][stays] for p, n in enumerate(parts.names)},
        attachments={
            **{
                name.removeprefix(ATTACHED): model.path / name
                for name in model.manifest.files
                if name.startswith(ATTACHED)
            },
            forgotten.ATTACHMENT: forgotten.attachment(until, trained=forgotten.trained_until(model)),
        },
    )
    made = model.manifest
    gone = {"users": int(stays.sum()), "interactions": made.dataset.interactions - int(taken[~stays].sum())}
    dataset = made.dataset.model_copy(update=gone)
    provenance = Provenance(dataset, made.recipe, made.seed, made.metrics, made.code_revision, gate)
    return artifact.publish(store, student, provenance, activate=False)
