"""Where an interrupted run goes on: the last finished epoch, and the best model so far.

Files are replaced atomically, so that a kill at any moment leaves the previous ones whole. Nothing of a random
generator is kept, since an epoch's randomness follows from the seed and its number (``sampler``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from shared import durable
from shared.errors import UserError


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Replace ``path`` by ``state``, durably.

    Raises:
        OSError: the disk is full, say.
    """
    try:
        with durable.replacing(path) as file:
            torch.save(dict(state), file)
    except RuntimeError as error:
        # Torch closes an archive that was cut short, fails at it, and hides why: a full disk, or Ctrl-C.
        raise (error.__context__ or error) from None


def load(path: Path) -> dict[str, Any]:
    """Read what ``save`` wrote, as tensors and plain values only: no code is run from the file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path}: not a usable checkpoint ({type(error).__name__}); remove its folder to train anew"
        ) from error
    return state
