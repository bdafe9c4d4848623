"""What is in a file may be damaged, or of another model: that is told, and never the end of the process."""

import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from shared.errors import UserError
from shared.index import files
from shared.index.kinds import KINDS
from tests.unit.index.conftest import WIDTH, items_and_users

ITEMS = items_and_users(600, 1)[0]


def written(name: str, folder: Path, items: np.ndarray = ITEMS) -> Path:
    path = folder / name
    files.write(KINDS[name].build(items), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_file_with_a_wrong_bit_is_refused_or_answers_and_never_ends_the_process(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.index.damaged", name, tmp_path, "100", "7"],
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    refused, answered = map(int, done.stdout.split())
    assert refused >= 10
    assert answered >= 10


@pytest.mark.parametrize("name", KINDS)
def test_an_index_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    other = next(kind for kind in KINDS if kind != name)

    with pytest.raises(UserError, match=r"index"):
        files.read(written(other, tmp_path), KINDS[name], len(ITEMS), WIDTH)


@pytest.mark.parametrize("name", KINDS)
def test_an_index_of_fewer_items_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"items|another"):
        files.read(written(name, tmp_path, ITEMS[:-8]), KINDS[name], len(ITEMS), WIDTH)


@pytest.mark.parametrize("name", KINDS)
def test_an_index_of_another_width_is_refused(name: str, tmp_path: Path) -> None:
    narrow = np.ascontiguousarray(ITEMS[:, : WIDTH - 2])

    with pytest.raises(UserError, match=r"another"):
        files.read(written(name, tmp_path, narrow), KINDS[name], len(ITEMS), WIDTH)


@pytest.mark.parametrize("content", [b"", b"no index", b"\x00" * 4096], ids=["empty", "text", "zeros"])
def test_what_is_no_index_at_all_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(content)

    with pytest.raises(UserError, match="no index that faiss reads"):
        files.read(path, KINDS["ivf-flat"], len(ITEMS), WIDTH)


def test_links_of_a_graph_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    """faiss would follow them out of its tables."""
    path = written("hnsw", tmp_path)
    sound = files.read(path, KINDS["hnsw"], len(ITEMS), WIDTH)
    links = faiss.rev_swig_ptr(sound.hnsw.neighbors.data(), sound.hnsw.neighbors.size())
    content = bytearray(path.read_bytes())
    place = content.index(links[:8].tobytes())
    content[place : place + 4] = np.array([len(ITEMS)], np.int32).tobytes()
    other = tmp_path / "other"
    other.write_bytes(content)

    with pytest.raises(UserError, match=r"links to items that do not exist|out of range"):
        files.read(other, KINDS["hnsw"], len(ITEMS), WIDTH)


def test_an_item_that_is_numbered_twice_is_refused(tmp_path: Path) -> None:
    path = written("norm-ordered", tmp_path)
    content = bytearray(path.read_bytes())
    content[-8:] = content[-16:-8]  # the numbers of the items are what the file ends with
    path.write_bytes(content)

    with pytest.raises(UserError, match="number each item once"):
        files.read(path, KINDS["norm-ordered"], len(ITEMS), WIDTH)
