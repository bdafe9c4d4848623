"""Opening ``.npy`` and ``.npz`` files that strangers wrote: never unpickling, memory-mapped where possible."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from trainer.dataset.findings import UnreadableError
from trainer.dataset.tables import require_contents

_PICKLE_MARK = b"\x80"
_MOST_UNPACKED = 100
_UNPACKED_ANYWAY = 2**26
"""A member of an archive may be so many times as large as it is stored, or have so many bytes."""


def open_npy(path: Path) -> NDArray[Any]:
    """A read-only memory map of one array.

    Raises:
        UnreadableError: the file is empty, truncated, no ``.npy`` file, or needs pickle.
    """
    require_contents(path)
    try:
        with path.open("rb") as file:
            _refuse_pickle(file, path.name)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except UnreadableError:
        raise
    except Exception as fault:  # a damaged header raises whatever numpy's tokenizer happens to meet
        raise _damaged(fault, "np.save") from fault
    if not isinstance(array, np.ndarray):
        raise UnreadableError("damaged_file", "is no single array: write it again with np.save")
    return array


def open_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those of the named arrays that the archive has.

    Raises:
        UnreadableError: the file is empty, truncated, no ``.npz`` file, or a named array needs pickle or is a bomb.
    """
    require_contents(path)
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if f"{name}.npy" not in archive.namelist():
                    continue
                _refuse_bomb(archive.getinfo(f"{name}.npy"), name)
                with archive.open(f"{name}.npy") as member:
                    _refuse_pickle(member, name)
                with archive.open(f"{name}.npy") as member:
                    arrays[name] = npy.read_array(member, allow_pickle=False)
    except UnreadableError:
        raise
    except Exception as fault:  # as above, and whatever zipfile and zlib make of damage
        raise _damaged(fault, "np.savez") from fault
    return arrays


def _refuse_bomb(member: zipfile.ZipInfo, name: str) -> None:
    """What a member says of its size is all that is ever unpacked of it."""
    if member.file_size > max(_UNPACKED_ANYWAY, _MOST_UNPACKED * member.compress_size):
        raise UnreadableError(
            "zip_bomb",
            f"{name} unpacks from {member.compress_size:,} to {member.file_size:,} bytes: write it with np.savez",
        )


def _refuse_pickle(file: IO[bytes], name: str) -> None:
    """Look at the header alone."""
    mark = file.read(npy.MAGIC_LEN)
    if mark.startswith(_PICKLE_MARK) or (mark.startswith(npy.MAGIC_PREFIX) and _holds_objects(mark, file)):
        raise UnreadableError(
            "pickle_refused", f"{name} holds Python objects, which are never unpickled: save it as numbers"
        )


def _holds_objects(mark: bytes, file: IO[bytes]) -> bool:
    read_header = npy.read_array_header_1_0 if mark[-2] == 1 else npy.read_array_header_2_0
    _, _, dtype = read_header(file)
    return bool(dtype.hasobject)


def _damaged(fault: BaseException, writer: str) -> UnreadableError:
    reason = (str(fault) or type(fault).__name__).splitlines()[0]
    return UnreadableError("damaged_file", f"is truncated or damaged ({reason}): write it again with {writer}")
