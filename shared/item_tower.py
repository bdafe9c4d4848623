"""The item tower: the student's vector of an item that the training did not see, from its content alone.

It comes with the artefact as two attachments: a network, ``item_tower.onnx``, and what it says of itself,
``item_tower.json``. The network takes features (items, d_m) of each modality, a row of zeros where an item lacks it,
and gives vectors (items, width) in the space of the artefact's item embeddings. Only onnxruntime runs here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.artifact import Artifact
from shared.errors import UserError
from shared.onnx_runtime import onnxruntime

NETWORK, DESCRIPTION = "item_tower.onnx", "item_tower.json"
OUTPUT = "vectors"
_BATCH = 256
_FATAL = 4

Features = Mapping[str, NDArray[np.float32]]


class TowerDescription(BaseModel):
    """What a tower says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modalities: dict[str, int] = Field(min_length=1, description="the width of the features of each modality")
    width: int = Field(ge=1, description="of a vector")
    scale: float = Field(gt=0, description="what vectors were stretched by, so that they rank well among trained ones")
    explained: dict[str, float] = Field(
        description="by set of modalities, joined with +, the share of the items' scores that the tower explains, "
        "leave-one-out"
    )


class ItemTower:
    """A loaded tower; safe from any number of threads."""

    def __init__(self, network: bytes | str, description: TowerDescription) -> None:
        """Open a network, given as its bytes or as the path of its file.

        Raises:
            UserError: onnxruntime cannot run it, or it is not the one that is described.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no exception of its own to name
            raise UserError(f"{NETWORK}: onnxruntime cannot run it ({str(error).splitlines()[0]})") from error
        taken = {each.name: each.shape[-1] for each in self._session.get_inputs()}
        if taken != description.modalities:
            raise UserError(f"{NETWORK}: takes {taken}, and {DESCRIPTION} says {description.modalities}")
        self.description = description

    @property
    def modalities(self) -> Mapping[str, int]:
        """The width of the features of each modality."""
        return self.description.modalities

    def vectors(self, items: Sequence[Features]) -> NDArray[np.float32]:
        """Vectors of items, float32 [items, width]; the mean item's for one that has nothing the tower takes.

        Args:
            items: for each the features by modality, [d_m]; any of the modalities may be missing, others are ignored.
        """
        found = [np.empty((0, self.description.width), np.float32)]
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            inputs = {name: _table(name, width, batch) for name, width in self.modalities.items()}
            (vectors,) = self._session.run([OUTPUT], inputs)
            found.append(np.asarray(vectors, dtype=np.float32))
        return np.concatenate(found)


def load_item_tower(artifact: Artifact) -> ItemTower | None:
    """The tower of an artefact; None if it has none.

    Raises:
        UserError: it cannot be used; the message names its file.
    """
    network, described = artifact.attachment(NETWORK), artifact.attachment(DESCRIPTION)
    if network is None or described is None:
        return None
    try:
        description = TowerDescription.model_validate_json(described.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{described}: is no description of an item tower ({error})") from error
    if description.width != artifact.width:
        raise UserError(f"{described}: is of width {description.width}, and the embeddings of {artifact.width}")
    return ItemTower(str(network), description)


def _table(name: str, width: int, items: Sequence[Features]) -> NDArray[np.float32]:
    table = np.zeros((len(items), width), np.float32)
    for row, features in zip(table, items, strict=True):
        if name in features:
            row[:] = features[name]
    return table
