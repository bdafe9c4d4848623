"""What the console asks of the service beyond the public API, and how its files are served."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.console.facets import MOST_VALUES, Facet, Facets
from service.console.search import Search
from service.console.versions import ranked
from service.settings import Settings
from shared import artifact
from shared.artifact import Artifact, DatasetInfo, Provenance, Split, StudentModel

ITEMS = [
    {"title": "Red Mug", "kind": "mug", "price": 4.5, "tags": ["gift", "tea"]},
    {"title": "Blue mug <script>alert(1)</script>", "kind": "mug", "price": 9, "tags": ["tea"]},
    {"title": "Straße lamp", "kind": "lamp", "price": None},
    {"title": "赤いマグカップ", "kind": "mug"},
    {"title": "Mugwort tea", "kind": "", "price": 2},
]
IDS = ["m1", "m2", "l1", "j1", "t1"]
# Popularity 1, 3, 0, 1, 2.
SEEN = {"ann": [1, 4], "anna": [0, 1, 3, 4], "bob": [1], "új": []}
USERS = np.array([[1, 0], [0, 1], [1, 1], [2, 1]], np.float32)
VECTORS = np.array([[3, 0], [0, 3], [2, 2], [1, 0], [0, 1]], np.float32)


def facets_of(model: Artifact) -> list[Facet]:
    facets = Facets()
    Search(model, facets.add)
    return facets.found()


def publish(store: Path, users: np.ndarray = USERS, activate: bool = True) -> str:
    model = StudentModel(
        user_ids=list(SEEN),
        item_ids=IDS,
        user_embeddings=users,
        item_embeddings=VECTORS,
        train_indptr=np.cumsum([0, *(len(items) for items in SEEN.values())]),
        train_indices=np.array([item for items in SEEN.values() for item in items]),
        items=ITEMS,
    )
    split = Split(kind="random", seed=1)
    dataset = DatasetInfo(name="s", fingerprint="f", users=4, items=5, interactions=7, split=split)
    provenance = Provenance(dataset, {"width": 2}, 1, {"test.recall@20": 0.5})
    return artifact.publish(store, model, provenance, activate=activate)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("models")
    publish(store)
    return store


@pytest.fixture(scope="module")
def model(store: Path) -> Artifact:
    return artifact.load(store)


@pytest.fixture(scope="module")
def search(model: Artifact) -> Search:
    return Search(model, Facets().add)


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(models=store)), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("mug", ["m2", "t1", "m1", "j1"]),  # the most popular first, by the starts of words
        ("MUG", ["m2", "t1", "m1", "j1"]),
        ("mug red", ["m1"]),
        ("re mu", ["m1"]),
        ("ug", ["m2", "t1", "m1", "j1"]),  # starts no word, so it may stand anywhere
        ("strasse", ["l1"]),
        ("マグ", ["j1"]),
        ("tea", ["m2", "t1", "m1"]),
        ("gift", ["m1"]),
        ("l1", ["l1"]),
        ("4.5", ["m1"]),
        ("script", ["m2"]),
        ("nothing", []),
        ("mug nothing", []),
        ("...", ["m2", "t1", "m1", "j1", "l1"]),
    ],
)
def test_items_are_found_by_the_starts_of_their_words(search: Search, words: str, found: list[str]) -> None:
    assert [IDS[item] for item in search.items(words, 10)] == found


def test_no_more_items_are_found_than_asked_for(search: Search) -> None:
    assert [IDS[item] for item in search.items("mug", 2)] == ["m2", "t1"]


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("an", [("ann", 2), ("anna", 4)]),
        ("anna", [("anna", 4)]),
        ("ú", [("új", 0)]),
        ("annas", []),
        ("", [("anna", 4), ("ann", 2), ("bob", 1), ("új", 0)]),
        ("\ud800", []),
    ],
)
def test_users_are_found_by_the_start_of_their_id(search: Search, prefix: str, found: list[tuple[str, int]]) -> None:
    assert [(user.user_id, user.items) for user in search.users(prefix, 10)] == found


def test_facets_are_numbers_and_texts_of_which_there_are_few(model: Artifact) -> None:
    found = {facet.name: facet for facet in facets_of(model)}
    assert found["kind"].values == ["mug", "lamp"]
    assert (found["price"].low, found["price"].high) == (2, 9)
    assert found["tags"].values == ["tea", "gift"]
    assert len(ITEMS) <= MOST_VALUES
    assert "title" in found  # few items, so few titles


def test_texts_of_which_there_are_many_are_no_facet(tmp_path: Path) -> None:
    count = MOST_VALUES + 1
    model = StudentModel(
        user_ids=["ann"],
        item_ids=[str(item) for item in range(count)],
        user_embeddings=np.ones((1, 2), np.float32),
        item_embeddings=np.ones((count, 2), np.float32),
        train_indptr=np.array([0, 0]),
        train_indices=np.array([], dtype=np.int64),
        items=[{"title": f"Item {item}", "shelf": item % 2 == 0} for item in range(count)],
    )
    split = Split(kind="random", seed=1)
    dataset = DatasetInfo(name="s", fingerprint="f", users=1, items=count, interactions=0, split=split)
    artifact.publish(tmp_path, model, Provenance(dataset, {}, 1, {}))
    assert [(facet.name, facet.values) for facet in facets_of(artifact.load(tmp_path))] == [("shelf", [True, False])]


def test_a_versions_list_is_that_of_the_service(model: Artifact, client: TestClient) -> None:
    for user in ("ann", "bob"):
        served = client.post("/recommend", json={"user_id": user, "k": 3}).json()
        assert [IDS[item] for item in ranked(model, user, 3) or []] == [item["item_id"] for item in served["items"]]
    assert ranked(model, "anna", 9) == [2]
    assert ranked(model, "nobody", 3) is None


def test_two_versions_are_compared_for_a_user(tmp_path: Path) -> None:
    before = publish(tmp_path)
    after = publish(tmp_path, users=USERS[:, ::-1].copy())
    with TestClient(create_app(Settings(models=tmp_path))) as client:
        query = {"user_id": "bob", "before": before, "after": after, "k": 2}
        answer = client.get("/console/api/compare", params=query).json()
        assert [item["item_id"] for item in answer["before"]["items"]] == ["l1", "m1"]
        query["user_id"] = "ann"  # (1, 0) became (0, 1): what they did is left out in either
        answer = client.get("/console/api/compare", params=query).json()
        assert [item["item_id"] for item in answer["before"]["items"]] == ["m1", "l1"]
        assert [item["item_id"] for item in answer["after"]["items"]] == ["l1", "m1"]
        unknown = client.get("/console/api/compare", params=query | {"user_id": "x"}).json()
        assert (unknown["before"]["known"], unknown["after"]["items"]) == (False, [])
        for wrong in ("20200101T000000Z-00000000", "../etc", ""):
            assert client.get("/console/api/compare", params=query | {"after": wrong}).status_code == 404


def test_versions_say_what_their_manifests_say_and_a_damaged_one_that_it_is(tmp_path: Path) -> None:
    first = publish(tmp_path)
    second = publish(tmp_path, users=USERS * 2, activate=False)
    broken = tmp_path / "20991231T000000Z-00000000"
    broken.mkdir()
    (broken / "manifest.json").write_text("{}")
    (tmp_path / ".nightly").mkdir()
    with TestClient(create_app(Settings(models=tmp_path))) as client:
        found = {each["version"]: each for each in client.get("/console/api/versions").json()["versions"]}
    assert set(found) == {first, second, broken.name}
    assert (found[first]["current"], found[second]["current"]) == (True, False)
    assert found[first]["metrics"] == {"test.recall@20": 0.5}
    assert (
        found[first]["bytes"]
        == sum(file.stat().st_size for file in (tmp_path / first).iterdir())
        - (tmp_path / first / "manifest.json").stat().st_size
    )
    assert "schema version" in found[broken.name]["damage"]


def test_the_night_is_what_the_nightly_run_left(tmp_path: Path) -> None:
    publish(tmp_path)
    with TestClient(create_app(Settings(models=tmp_path))) as client:
        assert client.get("/console/api/night").json() == {"night": None}
        (tmp_path / ".nightly").mkdir()
        (tmp_path / ".nightly" / "status.json").write_text('{"verdict": "promoted"}')
        assert client.get("/console/api/night").json() == {"night": {"verdict": "promoted"}}
        (tmp_path / ".nightly" / "status.json").write_text("{half")
        assert client.get("/console/api/night").json() == {"night": None}


def test_another_model_is_searched_once_it_is_live(tmp_path: Path) -> None:
    publish(tmp_path)
    app = create_app(Settings(models=tmp_path))
    with TestClient(app) as client:
        before = client.get("/console/api/items", params={"q": "mug"}).json()["model_version"]
        after = publish(tmp_path, users=USERS * 3)
        app.state.live.refresh()
        assert client.get("/console/api/items", params={"q": "mug"}).json()["model_version"] == after != before


def test_items_are_looked_up_in_the_order_asked_for_and_unknown_ones_left_out(client: TestClient) -> None:
    answer = client.post("/console/api/items", json={"item_ids": ["t1", "none", "m2"]}).json()
    assert [(item["item_id"], item["popularity"]) for item in answer["items"]] == [("t1", 2), ("m2", 3)]
    assert client.post("/console/api/items", json={"item_ids": ["x"] * 1001}).status_code == 422


@pytest.mark.parametrize("path", ["api/users", "api/items", "api/model", "api/shelf"])
def test_without_a_model_the_page_is_told_so(empty_client: TestClient, path: str) -> None:
    assert empty_client.get(f"/console/{path}").status_code == 503
    assert empty_client.get("/console/").status_code == 200
    assert empty_client.get("/console/api/versions").json() == {"versions": []}


FILES = sorted((Path(__file__).parents[3] / "service" / "console" / "static").rglob("*.*"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_served_under_a_policy_without_inline_code(client: TestClient, file: Path) -> None:
    folder = Path(__file__).parents[3] / "service" / "console" / "static"
    answer = client.get(f"/console/{file.relative_to(folder)}")
    kinds = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
    assert answer.content == file.read_bytes()
    assert answer.headers["content-type"].split(";")[0] == kinds[file.suffix]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_needs_anything_from_outside_or_makes_html_of_text(file: Path) -> None:
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b", text)


def test_the_page_is_at_console_and_its_links_are_relative(client: TestClient) -> None:
    answer = client.get("/console", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, "console/")
    assert not re.search(r'(src|href)="/', client.get("/console/").text)


@pytest.mark.parametrize("path", ["../app.py", "%2e%2e/app.py", "..%2f..%2fapp.py", "none.js", "views", "lib/"])
def test_nothing_but_the_pages_files_is_served(client: TestClient, path: str) -> None:
    assert client.get(f"/console/{path}").status_code == 404


def test_the_report_of_the_night_is_found_by_its_status_and_nowhere_else(tmp_path: Path) -> None:
    publish(tmp_path)
    own = tmp_path / ".nightly"
    (own / "reports").mkdir(parents=True)
    (own / "reports" / "n1.json").write_text('{"night": "n1"}')
    (own / "reports" / "n1.html").write_text("<h1>n1</h1>")
    (tmp_path / "secret.json").write_text('{"night": "secret"}')
    with TestClient(create_app(Settings(models=tmp_path))) as client:
        (own / "status.json").write_text('{"report": "reports/n1.json"}')
        assert client.get("/console/api/night/report").json() == {"night": "n1"}
        page = client.get("/console/api/night/page")
        assert page.text == "<h1>n1</h1>"
        assert page.headers["content-security-policy"] == "sandbox"
        assert page.headers["content-disposition"].startswith("attachment")
        for named in ("../secret.json", "reports/../../secret.json", "/etc/passwd", "reports/none.json"):
            (own / "status.json").write_text(json.dumps({"report": named}))
            assert client.get("/console/api/night/report").status_code == 404
            assert client.get("/console/api/night/page").status_code == 404
