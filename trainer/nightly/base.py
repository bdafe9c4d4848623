"""By what the base is known again: its tables, its features and the encoders that made these."""

import hashlib
import json
from pathlib import Path

from shared.encoders.folder import DESCRIPTION, file_digest
from shared.errors import UserError
from trainer.encoders.features_manifest import ENCODERS

_READ = (".csv", ".parquet", ".jsonl", ".inter", ".npy", ".npz", ".json")
"""Endings of the files that a dataset is read from. Its pictures count by their features."""


def base_digest(base: Path) -> str:
    """The sha256 of all that a night takes from the base, by content: writing the same once more changes nothing.

    Of an encoder its description is enough, which has the digests of its files.

    Raises:
        UserError: it cannot be read.
    """
    try:
        own = [path for path in base.iterdir() if path.suffix in _READ and path.is_file()]
    except OSError as error:
        raise UserError(f"{base}: cannot be listed ({error.strerror}); give the dataset's directory") from error
    files = sorted([*own, *base.glob(f"{ENCODERS}/*/{DESCRIPTION}")])
    contents = [[str(path.relative_to(base)), file_digest(path)] for path in files]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()
