"""The pictures of items: what is served, and all that must not be."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service import pictures
from service.app import create_app
from service.pictures import PictureFolder, media_type
from service.settings import Settings
from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel

PNG = b"\x89PNG\r\n\x1a\n" + b"rest"
HEADS = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0rest",
    "image/gif": b"GIF89arest",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBPrest",
    "image/avif": b"\x00\x00\x00\x1cftypavifrest",
}
NO_PICTURES = [
    b"",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"<!doctype html>",
    b"RIFF\x00\x00\x00\x00WAVE",
    b"\x89PN",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "mug.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG + b"secret")
    return folder


@pytest.mark.parametrize("kind", HEADS)
def test_a_picture_is_what_its_first_bytes_say(kind: str) -> None:
    assert media_type(HEADS[kind]) == kind


@pytest.mark.parametrize("content", NO_PICTURES)
def test_what_is_no_picture_has_no_type(content: bytes) -> None:
    assert media_type(content) is None


def test_a_picture_is_read_whatever_its_name_says(folder: Path) -> None:
    (folder / "images" / "jpeg-in-truth.png").write_bytes(HEADS["image/jpeg"])
    found = PictureFolder(folder).read("images/jpeg-in-truth.png")
    assert found is not None
    assert (found.media_type, found.content) == ("image/jpeg", HEADS["image/jpeg"])


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "images/../../secret.png", "/etc/passwd", "images", ".", "images/none.png", "a\x00b", "x" * 5000],
)
def test_nothing_outside_the_folder_and_nothing_that_is_no_file_is_read(folder: Path, path: str) -> None:
    assert PictureFolder(folder).read(path) is None


def test_an_absolute_path_is_refused_even_to_a_picture(folder: Path) -> None:
    assert PictureFolder(folder).read(str(folder.parent / "secret.png")) is None


def test_a_link_inside_the_folder_is_followed_and_one_out_of_it_is_not(folder: Path) -> None:
    (folder / "same.png").symlink_to(folder / "images" / "mug.png")
    (folder / "out.png").symlink_to(folder.parent / "secret.png")
    (folder / "away").symlink_to(folder.parent)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    inside = PictureFolder(folder)
    assert inside.read("same.png") is not None
    assert [inside.read(path) for path in ("out.png", "away/secret.png", "loop.png")] == [None, None, None]


def test_a_pipe_is_no_picture_and_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert PictureFolder(folder).read("pipe.png") is None


def test_a_file_that_is_too_large_is_not_served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", len(PNG))
    assert PictureFolder(folder).read("images/mug.png") is not None
    (folder / "images" / "mug.png").write_bytes(PNG + b"!")
    assert PictureFolder(folder).read("images/mug.png") is None


def test_the_etag_changes_with_the_file(folder: Path) -> None:
    before = PictureFolder(folder).read("images/mug.png")
    (folder / "images" / "mug.png").write_bytes(PNG + b"new")
    after = PictureFolder(folder).read("images/mug.png")
    assert before is not None
    assert after is not None
    assert before.etag != after.etag


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "mug.png").write_bytes(PNG)
    (folder / "page.png").write_bytes(b"<!doctype html><script>alert(1)</script>")
    rows = [{"image": "mug.png"}, {"image": "page.png"}, {"image": "../x"}, {"image": ""}, {"image": 7}, {}]
    store = tmp_path_factory.mktemp("models")
    model = StudentModel(
        user_ids=["ann"],
        item_ids=["mug", "page", "out", "empty", "number", "none/image"],
        user_embeddings=np.ones((1, 2), np.float32),
        item_embeddings=np.eye(6, 2, dtype=np.float32),
        train_indptr=np.array([0, 1]),
        train_indices=np.array([0]),
        items=rows,
    )
    dataset = DatasetInfo(
        name="s", fingerprint="f", users=1, items=6, interactions=1, split=Split(kind="random", seed=1)
    )
    artifact.publish(store, model, Provenance(dataset, {}, 1, {}))
    with TestClient(create_app(Settings(models=store, catalogue=folder)), raise_server_exceptions=False) as client:
        yield client


def test_an_items_picture_is_served_as_what_it_is_and_kept_for_an_hour(client: TestClient) -> None:
    answer = client.get("/items/mug/image")
    assert (answer.status_code, answer.content) == (200, PNG)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "private, max-age=3600"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_who_has_the_picture_already_is_not_sent_it_again(client: TestClient) -> None:
    etag = client.get("/items/mug/image").headers["etag"]
    again = client.get("/items/mug/image", headers={"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get("/items/mug/image", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize("item", ["page", "out", "empty", "number", "none/image", "unknown"])
def test_an_item_without_a_picture_is_answered_404(client: TestClient, item: str) -> None:
    answer = client.get(f"/items/{item}/image")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_without_a_catalogue_there_are_no_pictures(store: Path) -> None:
    with TestClient(create_app(Settings(models=store))) as client:
        assert client.get("/items/mug/image").status_code == 404
        assert client.get("/console/api/settings").json()["pictures"] is False
