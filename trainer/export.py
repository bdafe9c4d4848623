"""Hand a trained student over: its embeddings, the ids, what each user has taken, and where it all came from."""

import math
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import artifact, content, forgotten, trending
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel
from shared.encoders import EncoderFolder, attachments_of
from trainer.content import contents_of
from trainer.dataset import TRAIN, Dataset
from trainer.index_choice import choose_index
from trainer.inputs import chosen_modalities
from trainer.item_tower_network import item_tower_attachments
from trainer.recipe import Recipe
from trainer.training import TrainedStudent


def publish(
    store: Path,
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    trained: TrainedStudent,
    *,
    activate: bool = True,
    gate: Mapping[str, Any] | None = None,
    forgotten_until: datetime | None = None,
    index: Mapping[str, bytes | Path] | None = None,
    tower: Mapping[str, bytes] | None = None,
) -> str:
    """Publish the student's artefact to ``store`` and return its version.

    Kinds of index are measured on the student, and the best one goes with it, unless one was chosen already.

    Args:
        store: where to.
        dataset: that it was trained on.
        recipe: of the training; its seed likewise.
        seed: see above.
        trained: the student.
        activate: whether to make it the live version.
        gate: the verdict on it, where it was judged.
        forgotten_until: up to when what users asked to be forgotten is not in the dataset; None if nobody looked.
        index: what :func:`trainer.index_choice.choose_index` gave for these items.
        tower: what :func:`item_tower` gave, where it was fitted before interactions held out were folded in.
    """
    with tempfile.TemporaryDirectory(prefix="mts4mm-index-") as folder:
        if index is None:
            index = choose_index(trained.item_embeddings, _active_users(dataset, trained), seed, Path(folder))
        attached = {**index, **(item_tower(dataset, recipe, trained) if tower is None else tower)}
        model = _student_model(dataset, recipe, trained, attached, forgotten_until)
        provenance = _provenance(dataset, recipe, seed, trained, gate)
        return artifact.publish(store, model, provenance, activate=activate)


def item_tower(dataset: Dataset, recipe: Recipe, trained: TrainedStudent) -> dict[str, bytes]:
    """The files of the student's item tower, fitted on the training interactions, as long as the validation bears."""
    return item_tower_attachments(
        dataset, chosen_modalities(dataset, recipe), trained.user_embeddings, trained.item_embeddings
    )


def _student_model(
    dataset: Dataset,
    recipe: Recipe,
    trained: TrainedStudent,
    attached: Mapping[str, bytes | Path],
    forgotten_until: datetime | None,
) -> StudentModel:
    interactions = dataset.interactions(TRAIN)
    interactions.sort_indices()
    return StudentModel(
        user_ids=dataset.user_ids,
        item_ids=dataset.item_ids,
        user_embeddings=trained.user_embeddings,
        item_embeddings=trained.item_embeddings,
        train_indptr=interactions.indptr,
        train_indices=interactions.indices,
        items=dataset.catalogue,
        user_parts=trained.user_parts or None,
        attachments={
            **attachments_of(_used_encoders(dataset, recipe)),
            **content.attachments_of(contents_of(dataset)),
            **trending.attachments_of(*_timed(dataset), len(dataset.item_ids), datetime.now(UTC)),
            **attached,
            **(
                {}
                if forgotten_until is None
                else {forgotten.ATTACHMENT: forgotten.attachment(forgotten_until, trained=forgotten_until)}
            ),
        },
    )


def _provenance(
    dataset: Dataset, recipe: Recipe, seed: int, trained: TrainedStudent, gate: Mapping[str, Any] | None
) -> Provenance:
    return Provenance(
        dataset=DatasetInfo(
            name=dataset.name,
            fingerprint=dataset.fingerprint,
            users=len(dataset.user_ids),
            items=len(dataset.item_ids),
            interactions=len(dataset.users),
            split=Split(kind=dataset.split.kind, seed=dataset.split.seed),
        ),
        recipe=recipe.model_dump(mode="json"),
        seed=seed,
        metrics=flat_metrics(trained),
        code_revision=_code_revision(),
        gate=gate,
    )


def _used_encoders(dataset: Dataset, recipe: Recipe) -> dict[str, EncoderFolder]:
    chosen = dataset.encoders if recipe.modalities is None else recipe.modalities
    return {modality: encoder for modality, encoder in dataset.encoders.items() if modality in chosen}


def _timed(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """The items of the training interactions, and when these were."""
    chosen = dataset.labels == TRAIN
    return dataset.items[chosen], None if dataset.timestamps is None else dataset.timestamps[chosen]


def _active_users(dataset: Dataset, trained: TrainedStudent) -> NDArray[np.float32]:
    """The embeddings of users with training interactions, or of all where nobody has any."""
    active = np.unique(dataset.users[dataset.labels == TRAIN])
    embeddings: NDArray[np.float32] = trained.user_embeddings
    return embeddings[active] if len(active) else embeddings


def flat_metrics(trained: TrainedStudent) -> dict[str, float]:
    """All figures by dotted name, such as ``test.recall@20``, ``alone.test.recall@20``, ``teacher.id.test.recall@20``.

    ``missing.0.25.recall@20`` is the test figure of the student alone with a quarter of the content missing. Undefined
    ones are left out.
    """
    named = {
        **{f"validation.{name}": value for name, value in trained.validation.items()},
        **{f"test.{name}": value for name, value in trained.test.items()},
        "best_epoch": float(trained.best_epoch),
    }
    for part, metrics in trained.alone.items():
        named |= {f"alone.{part}.{name}": value for name, value in metrics.items()}
    for share, metrics in trained.missing.items():
        named |= {f"missing.{share}.{name}": value for name, value in metrics.items()}
    for teacher, parts in trained.teachers.items():
        for part, metrics in parts.items():
            named |= {f"teacher.{teacher}.{part}.{name}": value for name, value in metrics.items()}
    return {name: value for name, value in named.items() if math.isfinite(value)}


def _code_revision() -> str | None:
    """The commit this code was checked out from, or None outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
