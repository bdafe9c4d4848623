"""Models in an object store: a real S3 server (moto's), and a folder by URL."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import numpy as np
import pytest
from fastapi.testclient import TestClient
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from service import app, model_mirror
from service.settings import Settings
from shared import artifact, last_night
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel
from shared.errors import SupersededError, UserError
from shared.kept_pictures import keep_picture, kept_picture
from shared.object_store import ObjectStore
from trainer.cli.app import app as commands

MODEL = StudentModel(
    user_ids=["ann", "bob"],
    item_ids=["mug", "hat", "pen"],
    user_embeddings=np.eye(2, dtype=np.float32),
    item_embeddings=np.array([[1, 2], [3, 4], [5, 6]], np.float32),
    train_indptr=np.array([0, 1, 2]),
    train_indices=np.array([1, 0]),
)
DATASET = DatasetInfo(name="shop", fingerprint="f", users=2, items=3, interactions=2, split=Split(kind="given"))


def publish(store: Path) -> str:
    return artifact.publish(store, MODEL, Provenance(DATASET, {}, 1, {}))


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of an S3 server, named in the environment as the AWS tools read it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield endpoint
    server.stop()


@pytest.fixture(params=["s3", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/bucket/models"
    endpoint = request.getfixturevalue("s3")
    bucket = f"bucket-{uuid4().hex[:8]}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=bucket)
    return f"s3://{bucket}/models"


def test_a_pushed_model_is_pulled_whole_and_live(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    first, second = publish(here), publish(here)
    assert set(ObjectStore(url, here).push()) == {first, second}
    assert ObjectStore(url, there).pull() == second
    assert artifact.current_version(there) == second
    for version in (first, second):
        assert artifact.verify(there / version) == artifact.verify(here / version)


def test_what_is_there_is_not_sent_or_fetched_again(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    version = publish(here)
    ObjectStore(url, here).push()
    ObjectStore(url, there).pull()
    before = (there / version).stat().st_ino
    assert ObjectStore(url, here).push() == []
    assert ObjectStore(url, there).pull() == version
    assert (there / version).stat().st_ino == before


def test_a_rollback_travels(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    first, _ = publish(here), publish(here)
    ObjectStore(url, here).push()
    ObjectStore(url, there).pull()
    artifact.rollback(there)
    ObjectStore(url, there).push()
    assert ObjectStore(url, here).pull() == first
    assert artifact.current_version(here) == first


def test_the_time_of_the_last_change_is_that_of_the_last_push(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    store = ObjectStore(url, here)
    assert store.changed_at() is None
    publish(here)
    store.push()
    first = store.changed_at()
    ObjectStore(url, there).pull()
    assert first == store.changed_at() == ObjectStore(url, there).changed_at()
    time.sleep(1.1)  # S3 counts in seconds
    publish(there)
    ObjectStore(url, there).push()
    assert first != store.changed_at()


def test_an_empty_object_store_has_no_model_and_is_no_error(url: str, tmp_path: Path) -> None:
    assert ObjectStore(url, tmp_path / "there").pull() is None
    assert artifact.current_version(tmp_path / "there") is None


def test_a_damaged_version_is_refused_and_the_live_one_stays(tmp_path: Path) -> None:
    here, there, bucket = tmp_path / "here", tmp_path / "there", tmp_path / "bucket"
    first = publish(here)
    store = ObjectStore(f"file://{bucket}", here)
    store.push()
    ObjectStore(f"file://{bucket}", there).pull()
    second = publish(here)
    store.push()
    change_a_byte(bucket / second / "item_embeddings.npy")
    with pytest.raises(UserError, match=r"item_embeddings.npy: its sha256"):
        ObjectStore(f"file://{bucket}", there).pull()
    assert artifact.current_version(there) == first
    assert not (there / second).exists()


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize("damage", [change_a_byte, Path.unlink])
def test_a_version_that_was_damaged_in_the_folder_is_fetched_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], same_process: bool
) -> None:
    url, here, there = f"file://{tmp_path}/bucket", tmp_path / "here", tmp_path / "there"
    first, second = publish(here), publish(here)
    ObjectStore(url, here).push()
    following = ObjectStore(url, there)
    following.pull()
    for version in (first, second):
        damage(there / version / "item_embeddings.npy")
    following = following if same_process else ObjectStore(url, there)
    assert following.pull() == second
    for version in (first, second):
        assert artifact.verify(there / version) == artifact.verify(here / version)
        assert f"{version} is damaged here, and is fetched again" in caplog.text
    assert {path.name for path in there.iterdir() if path.is_dir()} == {first, second}


def test_what_was_found_whole_is_not_read_again_with_every_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, here, there = f"file://{tmp_path}/bucket", tmp_path / "here", tmp_path / "there"
    publish(here)
    ObjectStore(url, here).push()
    following = ObjectStore(url, there)
    version = following.pull()
    monkeypatch.setattr(artifact, "load_path", lambda path: 1 // 0)
    assert following.pull() == version


def test_what_is_damaged_on_both_sides_is_named_by_its_url_and_the_remedy_helps(tmp_path: Path) -> None:
    url, here, there = f"file://{tmp_path}/bucket", tmp_path / "here", tmp_path / "there"
    version = publish(here)
    ObjectStore(url, here).push()
    ObjectStore(url, there).pull()
    for folder in (there, tmp_path / "bucket"):
        change_a_byte(folder / version / "item_embeddings.npy")
    with pytest.raises(UserError, match=rf"{url}/{version}: is not there as it was published; 'mts4mm models push"):
        ObjectStore(url, there).pull()
    assert CliRunner().invoke(commands, ["models", "push", url, str(here)]).exit_code == 0
    assert ObjectStore(url, there).pull() == version
    assert artifact.verify(there / version)


def test_a_version_that_was_damaged_in_the_object_store_is_sent_again(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    version = publish(here)
    store = ObjectStore(url, here)
    store.push()
    table, manifest = (f"{store._root}/{version}/{name}" for name in ("item_embeddings.npy", "manifest.json"))
    size = (here / version / "item_embeddings.npy").stat().st_size
    damages: list[Callable[[], object]] = [
        lambda: store._files.rm_file(table),
        lambda: store._files.pipe_file(table, b"short"),
        lambda: store._files.pipe_file(table, b"\x00" * size),
        lambda: store._files.pipe_file(manifest, b"{}"),
    ]
    for damage in damages:
        damage()
        assert store.push() == [version]
    assert store.push() == []
    assert ObjectStore(url, there).pull() == version


def test_a_change_sends_again_what_is_not_of_its_size_in_the_object_store(tmp_path: Path) -> None:
    url, here = f"file://{tmp_path}/bucket", tmp_path / "here"
    first, _ = publish(here), publish(here)
    store = ObjectStore(url, here)
    store.push()
    (tmp_path / "bucket" / first / "item_embeddings.npy").write_bytes(b"short")
    with store.held() as push:
        artifact.rollback(here)
        assert push() == [first]
    assert ObjectStore(url, tmp_path / "there").pull() == first


def test_an_old_version_that_is_damaged_here_keeps_no_live_one_from_being_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, here = f"file://{tmp_path}/bucket", tmp_path / "here"
    first = publish(here)
    change_a_byte(here / first / "item_embeddings.npy")
    second = publish(here)
    assert ObjectStore(url, here).push() == [second]
    assert f"{first} cannot be sent" in caplog.text
    change_a_byte(here / second / "item_embeddings.npy")
    with pytest.raises(UserError, match="its sha256"):
        ObjectStore(f"file://{tmp_path}/other", here).push()


@pytest.mark.parametrize("damage", ["a file is gone", "a file was changed", "all of it is gone"])
def test_a_version_before_that_is_damaged_does_not_keep_the_live_one_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    here, there, bucket = tmp_path / "here", tmp_path / "there", tmp_path / "bucket"
    first, second = publish(here), publish(here)
    ObjectStore(f"file://{bucket}", here).push()
    if damage == "all of it is gone":
        shutil.rmtree(bucket / first)
    elif damage == "a file is gone":
        (bucket / first / "item_embeddings.npy").unlink()
    else:
        (bucket / first / "item_embeddings.npy").write_bytes(b"changed")
    store, fetched = ObjectStore(f"file://{bucket}", there), list[str]()
    fetch = ObjectStore._fetch

    def noted(store: ObjectStore, version: str) -> None:
        fetched.append(version)
        fetch(store, version)

    monkeypatch.setattr(ObjectStore, "_fetch", noted)
    for _ in range(2):
        assert store.pull() == second
    assert artifact.activations(there) == [second, first]
    assert [path.name for path in there.glob(f"*{first}*")] == []
    assert fetched.count(first) == caplog.text.count(f"{first} is left out") == (0 if "all" in damage else 1)


def test_pictures_that_cannot_be_fetched_do_not_keep_the_live_model_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, there, bucket = tmp_path / "here", tmp_path / "there", tmp_path / "bucket"
    version = publish(here)
    keep_picture(here, "mug", b"mug")
    ObjectStore(f"file://{bucket}", here).push_pictures()
    ObjectStore(f"file://{bucket}", here).push()
    there.mkdir()
    (there / ".pictures").touch()  # where no folder can be made
    store = ObjectStore(f"file://{bucket}", there)
    for _ in range(2):
        assert store.pull() == version
    assert caplog.text.count("pictures cannot be fetched") == 1
    (there / ".pictures").unlink()
    store.pull()
    assert kept_picture(there, "mug") == b"mug"


def test_half_an_upload_is_not_there_for_a_reader(tmp_path: Path) -> None:
    """What is killed while it uploads has written neither the manifest nor CURRENT."""
    here, there, bucket = tmp_path / "here", tmp_path / "there", tmp_path / "bucket"
    first = publish(here)
    ObjectStore(f"file://{bucket}", here).push()
    second = publish(here)
    (bucket / second).mkdir()
    (bucket / second / "item_embeddings.npy").write_bytes(b"half")
    assert ObjectStore(f"file://{bucket}", there).pull() == first
    assert ObjectStore(f"file://{bucket}", here).push() == [second]
    assert ObjectStore(f"file://{bucket}", there).pull() == second


@pytest.mark.parametrize("content", ["../../etc", "a b c", "x" * 2000])
def test_a_current_that_names_no_version_never_becomes_a_path(tmp_path: Path, content: str) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "CURRENT").write_text(content)
    with pytest.raises(UserError, match=r"CURRENT: holds anything but names of versions"):
        ObjectStore(f"file://{tmp_path}/bucket", tmp_path / "there").pull()


def test_a_bucket_that_is_not_there_is_said_by_its_url(s3: str, tmp_path: Path) -> None:
    assert os.environ["AWS_ENDPOINT_URL"] == s3
    publish(tmp_path / "here")
    with pytest.raises(UserError, match=r"s3://nowhere/models: cannot be reached or refuses"):
        ObjectStore("s3://nowhere/models", tmp_path / "here").push()


def test_the_service_follows_the_object_store(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_mirror, "FOLLOW_SECONDS", 0.2)
    monkeypatch.setattr(app, "POLL_SECONDS", 0.1)
    here = tmp_path / "here"
    first = publish(here)
    ObjectStore(url, here).push()
    settings = Settings(models=tmp_path / "pod", models_url=url, state=tmp_path / "state")
    with TestClient(app.create_app(settings)) as client:
        assert client.get("/health").json()["model_version"] == first
        second = publish(here)
        ObjectStore(url, here).push()
        deadline = time.monotonic() + 20
        while client.get("/health").json()["model_version"] != second:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.post("/recommend", json={"user_id": "ann"}).json()["model_version"] == second


def test_a_rollback_over_http_is_the_object_stores_too(url: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    first, _ = publish(here), publish(here)
    ObjectStore(url, here).push()
    settings = Settings(models=tmp_path / "pod", models_url=url, state=tmp_path / "state")
    with TestClient(app.create_app(settings)) as client:
        assert client.post("/admin/rollback", json={}).json()["live"] == first
    assert ObjectStore(url, here).pull() == first


@pytest.mark.parametrize("change", ["rollback", "activate"])
def test_a_change_from_the_command_line_begins_with_the_object_stores_and_is_its_too(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    here, elsewhere, there = tmp_path / "here", tmp_path / "elsewhere", tmp_path / "there"
    first, second = publish(here), publish(here)
    ObjectStore(url, here).push()
    ObjectStore(url, elsewhere).pull()
    third = publish(elsewhere)  # which the folder here knows nothing of
    ObjectStore(url, elsewhere).push()
    monkeypatch.setenv("MTS4MM_MODELS_URL", url)
    words, now, before = (["rollback"], second, first) if change == "rollback" else (["activate", first], first, third)
    told = CliRunner().invoke(commands, ["models", *words, str(here), "--json"])
    assert json.loads(told.output) == {"store": str(here), "live": now}
    assert ObjectStore(url, there).pull() == now
    assert artifact.activations(there)[1] == before


def test_a_change_that_the_object_store_was_not_told_of_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, here = f"file://{tmp_path}/bucket", tmp_path / "here"
    first, second = publish(here), publish(here)
    ObjectStore(url, here).push()

    def and_then_the_bucket_goes(store: Path) -> str:
        (tmp_path / "bucket").rename(tmp_path / "gone")
        (tmp_path / "bucket").touch()
        return roll_back(store)

    roll_back = artifact.rollback
    monkeypatch.setattr(artifact, "rollback", and_then_the_bucket_goes)
    monkeypatch.setenv("MTS4MM_MODELS_URL", url)
    told = CliRunner().invoke(commands, ["models", "rollback", str(here)])
    assert isinstance(told.exception, UserError)
    assert "could not be told" in str(told.exception)
    assert (tmp_path / "gone" / "CURRENT").read_text().split() == [second, first]


@pytest.mark.parametrize("change", ["rollback", "activate"])
def test_a_look_between_a_change_over_http_and_its_push_does_not_undo_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    url, pod, other = f"file://{tmp_path}/bucket", tmp_path / "pod", tmp_path / "other"
    first, second = publish(pod), publish(pod)
    ObjectStore(url, pod).push()
    settings = Settings(models=pod, models_url=url, state=tmp_path / "state")
    looks: list[threading.Thread] = []

    def and_then_somebody_looks(*given: Any) -> Any:
        done = changing(*given)
        looks.append(threading.Thread(target=ObjectStore(url, pod).pull))
        looks[0].start()
        looks[0].join(0.5)  # long enough for a look that nothing holds back
        return done

    with TestClient(app.create_app(settings)) as client:
        changing = getattr(artifact, change)
        monkeypatch.setattr(artifact, change, and_then_somebody_looks)
        path = "/admin/rollback" if change == "rollback" else f"/admin/models/{first}:activate"
        assert client.post(path).json() == {"live": first, "before": second}
        looks[0].join(10)
        assert client.get("/health").json()["model_version"] == first
    assert artifact.current_version(pod) == first
    assert ObjectStore(url, other).pull() == first


def test_what_is_pushed_while_a_version_is_fetched_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, here, pod = f"file://{tmp_path}/bucket", tmp_path / "here", tmp_path / "pod"
    first = publish(here)
    ObjectStore(url, here).push()
    fetch, fetched = ObjectStore._fetch, list[str]()

    def and_then_somebody_pushes(store: ObjectStore, version: str) -> None:
        fetch(store, version)
        fetched.append(version)
        if fetched == [first]:
            publish(here)
            ObjectStore(url, here).push()

    monkeypatch.setattr(ObjectStore, "_fetch", and_then_somebody_pushes)
    second = ObjectStore(url, pod).pull()
    assert second == artifact.current_version(here) == artifact.current_version(pod) != first
    assert artifact.activations(pod) == [second, first]


def test_a_version_that_was_sent_is_live_only_once_it_is_pushed(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    first = publish(here)
    objects = ObjectStore(url, here)
    objects.push()
    second = artifact.publish(here, MODEL, Provenance(DATASET, {}, 1, {}), activate=False)
    objects.send(second)
    assert ObjectStore(url, there).pull() == first
    with objects.held() as push:
        artifact.activate(here, second)
        assert push() == []
    assert ObjectStore(url, there).pull() == second


def test_a_change_of_what_is_not_live_any_more_is_taken_back(url: str, tmp_path: Path) -> None:
    here, stale = tmp_path / "here", tmp_path / "stale"
    first, second = publish(here), publish(here)
    ObjectStore(url, here).push()
    ObjectStore(url, stale).pull()
    third = publish(here)
    ObjectStore(url, here).push()
    with ObjectStore(url, stale).held() as push:
        artifact.rollback(stale)
        with pytest.raises(SupersededError, match="another version is live there by now"):
            push()
    assert artifact.activations(stale) == [second, first]
    assert ObjectStore(url, stale).pull() == third
    with ObjectStore(url, stale).held() as push:
        artifact.rollback(stale)
        push()
    assert ObjectStore(url, here).pull() == second


def test_a_change_may_be_the_first_thing_that_an_object_store_is_told(url: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    objects = ObjectStore(url, here)
    with objects.held() as push:
        version = publish(here)
        assert push() == [version]
    assert ObjectStore(url, tmp_path / "there").pull() == version


def test_a_folder_whose_current_cannot_be_read_follows_again(tmp_path: Path) -> None:
    here = tmp_path / "here"
    objects = ObjectStore(f"file://{tmp_path}/bucket", here)
    version = publish(here)
    objects.push()
    (here / "CURRENT").write_text("garbled")
    assert objects.pull() == artifact.current_version(here) == version


@pytest.mark.parametrize("change", ["rollback", "activate"])
def test_a_pod_that_is_behind_changes_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(model_mirror, "FOLLOW_SECONDS", 60.0)
    url, here, pod = f"file://{tmp_path}/bucket", tmp_path / "here", tmp_path / "pod"
    first, second = publish(here), publish(here)
    ObjectStore(url, here).push()
    settings = Settings(models=pod, models_url=url, state=tmp_path / "state")
    with TestClient(app.create_app(settings)) as client:
        third = publish(here)
        ObjectStore(url, here).push()
        answer = client.post("/admin/rollback" if change == "rollback" else f"/admin/models/{first}:activate")
        assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
        assert "another version is live there by now; try again in a moment" in answer.json()["detail"]
        assert client.get("/health").json()["model_version"] == second
    assert artifact.current_version(pod) == second
    assert ObjectStore(url, here).pull() == third


@pytest.mark.parametrize(
    ("in_the_way", "said"),
    [
        ("bucket/CURRENT", "file://"),
        ("pod/.object-store.lock", "models cannot be written here"),
        ("pod/.object-store.live.lock", "models cannot be written here"),
    ],
)
def test_an_object_store_that_is_away_degrades_the_service_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_the_way: str, said: str
) -> None:
    """Neither does a folder that cannot be written, be it for a moment."""
    monkeypatch.setattr(model_mirror, "FOLLOW_SECONDS", 0.1)
    bucket, pod = tmp_path / "bucket", tmp_path / "pod"
    version = publish(pod)
    ObjectStore(f"file://{bucket}", pod).push()
    for path in (tmp_path / in_the_way, *pod.glob(".object-store*")):
        path.unlink(missing_ok=True)
    (tmp_path / in_the_way).mkdir()  # what cannot be opened as a file
    settings = Settings(models=pod, models_url=f"file://{bucket}", state=tmp_path / "state")
    with TestClient(app.create_app(settings)) as client:
        health = client.get("/health").json()
        assert (health["status"], health["model_version"]) == ("degraded", version)
        assert any(problem.startswith("Object store: ") and said in problem for problem in health["problems"])
        assert client.post("/recommend", json={"user_id": "ann"}).status_code == 200
        if "live" in in_the_way:
            activated = client.post(f"/admin/models/{version}:activate")
            assert (activated.status_code, said in activated.json()["detail"]) == (409, True)
        (tmp_path / in_the_way).rmdir()
        ObjectStore(f"file://{bucket}", pod).push()
        deadline = time.monotonic() + 20
        while client.get("/health").json()["status"] != "ok":
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_looking_goes_on_whatever_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    version = publish(tmp_path / "here")
    objects = ObjectStore(f"file://{tmp_path}/bucket", tmp_path / "here")
    objects.push()
    mirror = model_mirror.ModelMirror(objects, on_look=lambda: None, serving=lambda: None)
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(artifact, "activations", lambda folder: 1 // 0)
        for _ in range(2):
            mirror.look()
    assert mirror.problem is not None
    assert caplog.text.count("models cannot be fetched") == 1
    mirror.look()
    assert (mirror.problem, artifact.current_version(tmp_path / "here")) == (None, version)


def test_an_unknown_kind_of_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nosuch://x: cannot be used as an object store"):
        ObjectStore("nosuch://x", tmp_path)
    with pytest.raises(UserError, match=r"ftp://127\.0\.0\.1:9/x: cannot be used as an object store"):
        ObjectStore("ftp://127.0.0.1:9/x", tmp_path)


def test_pictures_that_were_kept_travel_along_and_the_last_one_counts(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    publish(here)
    keep_picture(here, "mug", b"first")
    keep_picture(here, "hat", b"hat")
    ObjectStore(url, here).push_pictures()
    ObjectStore(url, here).push()
    ObjectStore(url, there).pull()
    assert (kept_picture(there, "mug"), kept_picture(there, "hat")) == (b"first", b"hat")
    keep_picture(here, "mug", b"second")
    keep_picture(here, "hat", None)
    ObjectStore(url, here).push_pictures()
    ObjectStore(url, there).push()  # of the pictures a follower has it takes nothing back
    ObjectStore(url, there).pull()
    assert (kept_picture(there, "mug"), kept_picture(there, "hat")) == (b"second", None)
    fresh = tmp_path / "fresh"
    ObjectStore(url, fresh).pull()
    assert (kept_picture(fresh, "mug"), kept_picture(fresh, "hat")) == (b"second", None)
    assert len(list(fresh.glob(".pictures/*/*"))) == 2


def test_what_is_no_picture_by_its_name_or_content_never_becomes_a_file(
    s3: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = f"bucket-{uuid4().hex[:8]}"
    client = boto3.client("s3", endpoint_url=s3)
    client.create_bucket(Bucket=bucket)
    here, there, outside = tmp_path / "here", tmp_path / "there", tmp_path / "outside"
    version = publish(here)
    keep_picture(here, "mug", b"mug")
    store = ObjectStore(f"s3://{bucket}/models", here)
    store.push_pictures()
    store.push()
    outside.mkdir()
    (outside / "precious").touch()
    item, right = "0" * 40, f"{sha256(b'right').hexdigest()}.jpg"
    for name in ("", "x/../../../outside/planted", f"{item}/notes.txt", f"{item}/{right}", f"{item}/none", "a/b/c"):
        client.put_object(Bucket=bucket, Key=f"models/.pictures/{name}", Body=b"<html>")
    follower = ObjectStore(f"s3://{bucket}/models", there)
    for _ in range(2):
        assert follower.pull() == version
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert [path.read_bytes() for path in there.glob(".pictures/**/*") if path.is_file()] == [b"mug"]
    assert caplog.text.count("is left out: its content is not that of its name") == 2
    store.push_pictures()  # takes nothing away that is not an item's own
    assert client.head_object(Bucket=bucket, Key=f"models/.pictures/{item}/notes.txt")


def versions(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}


def test_a_follower_keeps_the_few_versions_that_it_can_need(tmp_path: Path) -> None:
    url, here, pod = f"file://{tmp_path}/bucket", tmp_path / "here", tmp_path / "pod"
    served = publish(here)
    store = ObjectStore(url, here)
    store.push()
    following = ObjectStore(url, pod)
    mirror = model_mirror.ModelMirror(following, on_look=lambda: None, serving=lambda: served)
    for _ in range(6):
        publish(here)
        store.push()
        mirror.look()
    trail = artifact.activations(here)
    assert versions(pod) == {*sorted(versions(here))[-3:], *trail[:2], served}
    assert artifact.activations(pod) == trail
    with following.held() as push:
        artifact.rollback(pod)
        push()
    mirror.look()
    assert trail[2] in versions(pod), "the next rollback's"
    with following.held() as push:
        assert artifact.rollback(pod) == trail[2]
        push()
    assert store.pull() == trail[2]


def test_what_a_killed_fetch_left_goes_with_the_next_look(tmp_path: Path) -> None:
    url, here, pod = f"file://{tmp_path}/bucket", tmp_path / "here", tmp_path / "pod"
    version = publish(here)
    ObjectStore(url, here).push()
    (pod / ".fetching-20200101T000000Z-00000000").mkdir(parents=True)
    model_mirror.ModelMirror(ObjectStore(url, pod), on_look=lambda: None, serving=lambda: None).look()
    assert [path.name for path in pod.iterdir() if path.is_dir()] == [version]


def test_nothing_goes_from_a_folder_whose_object_store_is_empty(tmp_path: Path) -> None:
    pod = tmp_path / "pod"
    kept = {publish(pod) for _ in range(6)}
    mirror = model_mirror.ModelMirror(
        ObjectStore(f"file://{tmp_path}/bucket", pod), on_look=lambda: None, serving=lambda: None
    )
    mirror.look()
    assert (mirror.problem, versions(pod)) == (None, kept)


def test_the_nightly_jobs_own_folder_is_left_to_it(tmp_path: Path) -> None:
    url, here = f"file://{tmp_path}/bucket", tmp_path / "here"
    kept = {publish(here) for _ in range(6)}
    (here / ".nightly").mkdir()
    (here / ".nightly" / "lock").touch()
    ObjectStore(url, here).push()
    model_mirror.ModelMirror(ObjectStore(url, here), on_look=lambda: None, serving=lambda: None).look()
    assert versions(here) == kept


def test_old_versions_go_from_the_object_store_but_not_what_is_live_or_was_before(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    names = sorted(publish(here) for _ in range(6))
    for name in (names[1], names[0]):
        artifact.activate(here, name)
    store = ObjectStore(url, here)
    store.push()
    assert store.prune(keep=2) == names[2:4]
    assert store.prune(keep=2) == []
    assert ObjectStore(url, there).pull() == names[0]
    assert versions(there) == set(names[:2])
    artifact.activate(here, names[2])
    assert store.push() == names[2:4], "what is still here can be live there again"


def test_a_version_whose_removal_was_cut_short_is_no_version_and_goes_later(url: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    names = sorted(publish(here) for _ in range(3))
    for name in names:
        artifact.activate(here, name)
    store = ObjectStore(url, here)
    store.push()
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(store._files, "rm", lambda *_, **__: 1 // 0)
        with pytest.raises(UserError, match="cannot be reached or refuses"):
            store.prune(keep=1)
    assert not store._has(names[0])
    assert store.prune(keep=1) == names[:1]


def removing(store: Path, url: str, elsewhere: Path) -> tuple[list[str], ObjectStore, ObjectStore]:
    """Three versions that are there, oldest first, the newest live; the folder that has them, and one that prunes."""
    names = sorted(publish(store) for _ in range(3))
    for name in names:
        artifact.activate(store, name)
    objects = ObjectStore(url, store)
    objects.push()
    return names, objects, ObjectStore(url, elsewhere)


def test_a_version_that_is_made_live_just_before_its_manifest_is_removed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, here, there = f"file://{tmp_path}/bucket", tmp_path / "here", tmp_path / "there"
    names, store, pruning = removing(here, url, tmp_path / "elsewhere")
    remove = pruning._files.rm_file

    def after_an_activation(path: str) -> None:
        with store.held() as push:
            artifact.activate(here, names[0])
            assert push() == []
        remove(path)

    monkeypatch.setattr(pruning._files, "rm_file", after_an_activation)
    assert names[0] not in pruning.prune(keep=1)
    assert ObjectStore(url, there).pull() == names[0]


def test_a_version_that_is_made_live_while_its_files_are_removed_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, here, there = f"file://{tmp_path}/bucket", tmp_path / "here", tmp_path / "there"
    names, store, pruning = removing(here, url, tmp_path / "elsewhere")
    remove, upload, has, sent = pruning._files.rm, store._upload, store._has, list[str]()

    def as_before_the_removal(version: str, *, by_content: bool = False) -> bool:
        monkeypatch.setattr(store, "_has", has)
        return True

    def while_files_go(version: str) -> None:
        upload(version)
        if not sent:
            remove(f"{store._root}/{version}", recursive=True)
        sent.append(version)

    def after_an_activation(path: str, **how: Any) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(store, "_has", as_before_the_removal)
        monkeypatch.setattr(store, "_upload", while_files_go)
        with store.held() as push:
            artifact.activate(here, names[0])
            push()

    monkeypatch.setattr(pruning._files, "rm", after_an_activation)
    pruning.prune(keep=1)
    assert sent == [names[0]] * 2
    assert ObjectStore(url, there).pull() == names[0]


def test_what_was_made_live_during_a_long_removal_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, here = f"file://{tmp_path}/bucket", tmp_path / "here"
    names = sorted(publish(here) for _ in range(5))
    for name in names:
        artifact.activate(here, name)
    store = ObjectStore(url, here)
    store.push()
    remove = store._files.rm

    def and_then_somebody_activates(path: str, **how: Any) -> None:
        remove(path, **how)
        if path.endswith(names[0]):
            artifact.activate(here, names[2])
            ObjectStore(url, here).push()

    monkeypatch.setattr(store._files, "rm", and_then_somebody_activates)
    assert store.prune(keep=1) == [*names[:2], names[3]]
    assert ObjectStore(url, tmp_path / "there").pull() == names[2]


def test_old_versions_go_from_the_object_store_by_the_command_line_too(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    names = sorted(publish(here) for _ in range(4))
    for name in names:
        artifact.activate(here, name)
    ObjectStore(url, here).push()
    artifact.prune(here, keep=3)
    monkeypatch.setenv("MTS4MM_MODELS_URL", url)
    words = ["models", "prune", str(here), "--keep", "2"]
    told = CliRunner().invoke(commands, [*words, "--json"])
    assert json.loads(told.output) == {
        "store": str(here),
        "removed": names[1:2],
        "runs": [],
        "url": url,
        "removed_there": names[:2],
    }
    assert CliRunner().invoke(commands, words).output == f"{here}: removed nothing\n{url}: removed nothing\n"
    monkeypatch.setenv("MTS4MM_MODELS_URL", f"file://{tmp_path}/nowhere")
    told = CliRunner().invoke(commands, words)
    assert isinstance(told.exception, UserError)
    assert (told.output, "nowhere: cannot be reached" in str(told.exception)) == (f"{here}: removed nothing\n", True)


def a_night(store: Path, name: str, **said: object) -> None:
    """What the job leaves of a night, in its own folder."""
    own = store / ".nightly"
    (own / "reports").mkdir(parents=True, exist_ok=True)
    (own / "lock").touch()
    for suffix in ("json", "html"):
        (own / "reports" / f"{name}.{suffix}").write_text(json.dumps({"night": name}))
    status = {"started": "2026-11-24T03:00:00+00:00", "outcome": "promoted", "report": f"reports/{name}.json", **said}
    (own / "status.json").write_text(json.dumps(status))


def nightly_files(store: Path) -> set[str]:
    return {path.name for path in store.glob(".nightly/**/*") if path.is_file() and path.name != "lock"}


def test_how_the_last_night_ended_is_said_by_who_follows_the_object_store(url: str, tmp_path: Path) -> None:
    here, pod = tmp_path / "here", tmp_path / "pod"
    publish(here)
    objects = ObjectStore(url, here)
    objects.push_night()  # before the first night there is nothing to say
    objects.push()
    a_night(here, "first")
    objects.push_night()
    settings = Settings(models=pod, models_url=url, state=tmp_path / "state")
    with TestClient(app.create_app(settings)) as client:
        assert "\nmts4mm_nightly_last_start_timestamp_seconds 1.7" in client.get("/metrics").text
        assert client.get("/console/api/night").json()["night"]["outcome"] == "promoted"
        assert client.get("/console/api/night/report").json() == {"night": "first"}
        assert client.get("/console/api/night/page").status_code == 200
    a_night(here, "second")
    objects.push_night()
    mirror = model_mirror.ModelMirror(ObjectStore(url, pod), on_look=lambda: None, serving=lambda: None)
    mirror.look()
    assert nightly_files(pod) == {"status.json", "second.json", "second.html"}, "samples of users go with their report"
    fresh = tmp_path / "fresh"
    ObjectStore(url, fresh).pull()
    assert nightly_files(fresh) == nightly_files(pod)
    a_night(here, "third", report=None)
    objects.push_night()
    mirror.look()
    assert nightly_files(pod) == {"status.json"}


def test_the_jobs_own_status_is_never_that_of_the_object_store(tmp_path: Path) -> None:
    url, here = f"file://{tmp_path}/bucket", tmp_path / "here"
    publish(here)
    objects = ObjectStore(url, here)
    objects.push()
    a_night(here, "first")
    objects.push_night()
    a_night(here, "second")  # of which the object store could not be told
    objects.pull()
    objects.tidy(None)
    assert json.loads((here / ".nightly" / "status.json").read_text())["report"] == "reports/second.json"
    assert nightly_files(here) == {"status.json", *(f"{n}.{s}" for n in ("first", "second") for s in ("json", "html"))}


@pytest.mark.parametrize(
    "status",
    [
        b"garbled",
        b"[]",
        json.dumps({"report": "../../../outside.json"}).encode(),
        json.dumps({"report": "reports/large.json"}).encode(),
        b" " * (last_night.MOST_BYTES + 1),
    ],
)
def test_a_status_that_cannot_be_the_jobs_is_left_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: bytes
) -> None:
    url, here, pod, bucket = f"file://{tmp_path}/bucket", tmp_path / "here", tmp_path / "pod", tmp_path / "bucket"
    version = publish(here)
    ObjectStore(url, here).push()
    (bucket / ".nightly" / "reports").mkdir(parents=True)
    (bucket / ".nightly" / "status.json").write_bytes(status)
    (bucket / ".nightly" / "reports" / "large.json").write_bytes(b" " * (last_night.MOST_BYTES + 1))
    (tmp_path / "outside.json").touch()
    assert ObjectStore(url, pod).pull() == version
    assert nightly_files(pod) == set()
    assert "the last night's status cannot be fetched" in caplog.text
