"""Ways to damage an artefact, as accidents or careful forgers do."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def reseal(directory: Path) -> None:
    """Make manifest and digest fit the files as they are now, as a careful forger would."""
    document = json.loads((directory / "manifest.json").read_text())
    document["files"] = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        for path in directory.iterdir()
        if path.name != "manifest.json"
    }
    write_manifest(directory, document)


def write_manifest(directory: Path, document: dict[str, Any]) -> None:
    document.pop("digest", None)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    document["digest"] = hashlib.sha256(text.encode()).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(document))


def save(path: Path, array: np.ndarray) -> None:
    """Unlike np.save on a path, also what would be pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    path.write_bytes(buffer.getvalue())


def truncate(name: str) -> Callable[[Path], None]:
    return lambda version: os.truncate(version / name, (version / name).stat().st_size - 1)


def flip(name: str) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        content = bytearray((version / name).read_bytes())
        content[len(content) // 2] ^= 0x10
        (version / name).write_bytes(content)

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda version: (version / name).unlink()


def forge(name: str, array: np.ndarray) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        save(version / name, array)
        reseal(version)

    return damage


def forge_text(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        (version / name).write_bytes(content)
        reseal(version)

    return damage


def edit(**fields: Any) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        document = json.loads((version / "manifest.json").read_text())
        write_manifest(version, document | fields)

    return damage


def edit_without_sealing(version: Path) -> None:
    text = (version / "manifest.json").read_text()
    (version / "manifest.json").write_text(text.replace("0.0951", "0.9951"))


def add_file_entry(name: str) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        document = json.loads((version / "manifest.json").read_text())
        document["files"][name] = document["files"]["README.md"]
        write_manifest(version, document)

    return damage


def link(name: str) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        (version / name).rename(version.parent / "elsewhere")
        (version / name).symlink_to(version.parent / "elsewhere")

    return damage


def make_folder(name: str) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        (version / name).unlink()
        (version / name).mkdir()

    return damage
