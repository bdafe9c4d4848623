"""The HTTP API in process: answers, and every error as RFC 9457 has it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from hypothesis import given, settings
from hypothesis import strategies as st

from service import schemas
from service.app import create_app, openapi
from service.settings import Settings
from shared import artifact
from shared.errors import UserError
from tests.unit.service.conftest import publish
from trainer.encoders.sources import read_items

JSON = {"content-type": "application/json"}


NOTHING_MORE = {"reason": None, "explanation": None}
"""What an item says besides, where it is not cold and no explanation is asked for."""


def recommend(client: TestClient, body: Any) -> Response:
    response: Response = client.post("/recommend", json=body)
    return response


def problem(response: Response, status: int) -> dict[str, Any]:
    """The problem document of a response, which must be one."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == "about:blank"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == response.request.url.path
    assert document["request_id"] == response.headers["x-request-id"]
    return document


# Answers


def test_a_known_user_gets_a_personal_answer(client: TestClient, store: Path) -> None:
    response = recommend(client, {"user_id": "ann", "k": 2})

    assert response.status_code == 200
    body = response.json()
    assert len(body.pop("recommendation_id")) == 32
    assert body == {
        "model_version": artifact.current_version(store),
        "strategy": "personal",
        "reason": "trained",
        "user_id": "ann",
        "degraded": False,
        "unknown_items": [],
        "items": [
            {"item_id": "hat", "score": 3.0, "rank": 1, "metadata": {"title": "Blue hat"}} | NOTHING_MORE,
            {"item_id": "sock", "score": 3.0, "rank": 2, "metadata": {"title": "Sock"}} | NOTHING_MORE,
        ],
    }


def test_an_unknown_user_gets_a_popular_answer_and_no_error(client: TestClient) -> None:
    response = recommend(client, {"user_id": "63", "k": 1})

    assert response.status_code == 200
    assert response.json()["strategy"] == "popular"
    assert [item["item_id"] for item in response.json()["items"]] == ["mug"]


def test_the_versioned_path_answers_the_same(client: TestClient) -> None:
    first, second = (client.post(path, json={"user_id": "ann"}).json() for path in ("/recommend", "/v1/recommend"))
    assert first.pop("recommendation_id") != second.pop("recommendation_id")
    assert first == second


def test_history_filter_and_exclusions_are_heard(client: TestClient) -> None:
    body = {
        "history": ["mug", "nonsense"],
        "filter": {"title": {"in": ["Sock", "Pen", "Lamp"]}},
        "exclude_items": ["pen"],
    }
    answered = recommend(client, body).json()
    assert (answered["strategy"], answered["reason"], answered["user_id"]) == ("history", "folded_in", None)
    assert answered["unknown_items"] == ["nonsense"]
    assert {item["item_id"] for item in answered["items"]} == {"sock", "lamp"}


def test_a_catalogue_from_a_csv_is_filtered_by_numbers(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(
        "item_id,price,size\nmug,60,S\nhat,55.95,38\npen,1.50,38\nsock,60.05,40\n42,,38\nlamp,300,40\n"
    )
    publish(tmp_path / "models", items=read_items(tmp_path).records)

    with TestClient(create_app(Settings(models=tmp_path / "models"))) as client:

        def found(**wanted: Any) -> list[str]:
            return [item["item_id"] for item in recommend(client, {"user_id": "007", "filter": wanted}).json()["items"]]

        assert sorted(found(price={"max": 60})) == ["hat", "mug", "pen"]
        assert sorted(found(price={"min": 60})) == ["lamp", "mug", "sock"]
        assert found(price=55.95) == ["hat"]
        assert found(price="55.95") == [], "a number is no text"
        assert sorted(found(size="38")) == ["42", "hat", "pen"], "nor is a text a number"
        (error,) = problem(recommend(client, {"user_id": "007", "filter": {"size": {"max": 40}}}), 422)["errors"]
        assert error["pointer"] == "#/filter/size"
        assert "No item has a number here" in error["detail"]


def test_a_batch_answers_each_user_as_alone(client: TestClient) -> None:
    users = ["ann", "nobody", "dan", "ann"]
    batch = client.post("/recommend:batch", json={"user_ids": users, "k": 3, "exclude_items": ["hat"]})
    assert batch.status_code == 200
    for user, answered in zip(users, batch.json()["recommendations"], strict=True):
        alone = recommend(client, {"user_id": user, "k": 3, "exclude_items": ["hat"]}).json()
        assert answered.pop("recommendation_id") != alone.pop("recommendation_id")
        assert answered == alone
    assert problem(client.post("/recommend:batch", json={"user_ids": []}), 422)["errors"][0]["pointer"] == "#/user_ids"
    assert problem(client.post("/recommend:batch", json={"user_ids": ["a"] * 1001}), 422)


@pytest.mark.parametrize(
    ("k", "explain", "most"), [(500, False, 100), (51, False, 980), (20, True, 1_000), (21, True, 952)]
)
def test_a_batch_has_so_many_items_that_they_fit_one_answer(
    client: TestClient, k: int, explain: bool, most: int
) -> None:
    def asked(users: int) -> Response:
        body = {"user_ids": ["ann"] * users, "k": k, "explain": explain}
        return client.post("/recommend:batch", json=body)

    assert len(asked(most).json()["recommendations"]) == most
    if most < schemas.MAX_USERS:
        [error] = problem(asked(most + 1), 422)["errors"]
        assert error["pointer"] == "#/user_ids"
        assert error["detail"].endswith(": send fewer at once")


def test_items_and_users_are_looked_up(client: TestClient, store: Path) -> None:
    version = artifact.current_version(store)
    assert client.get("/items/42").json() == {
        "model_version": version,
        "item_id": "42",
        "popularity": 2,
        "metadata": {"title": "Answer"},
    }
    assert client.get("/users/ann").json() == {
        "model_version": version,
        "user_id": "ann",
        "trained": True,
        "items": ["mug", "lamp"],
        "recent": [],
        "hidden": [],
    }
    similar = client.get("/items/mug/similar", params={"k": 2}).json()
    assert [item["rank"] for item in similar["items"]] == [1, 2]
    assert "mug" not in {item["item_id"] for item in similar["items"]}
    assert problem(client.get("/items/a%2Fb"), 404)["detail"] == "The model knows no such item."
    assert problem(client.get("/items/nonsense/similar"), 404)
    assert problem(client.get("/users/nobody"), 404)["detail"] == "There is no such user."
    assert problem(client.get("/items/mug/similar", params={"k": 0}), 422)["errors"][0]["pointer"] == "#/k"


def test_ids_made_of_digits_stay_text(client: TestClient) -> None:
    assert recommend(client, {"user_id": "007"}).json()["user_id"] == "007"
    assert "42" in [item["item_id"] for item in recommend(client, {"user_id": "ann"}).json()["items"]]


def test_a_user_who_has_seen_everything_gets_an_empty_list(client: TestClient) -> None:
    body = recommend(client, {"user_id": "dan"}).json()

    assert (body["strategy"], body["items"]) == ("personal", [])


def test_every_answer_has_an_id_of_its_own(client: TestClient) -> None:
    ids = {recommend(client, {"user_id": "ann"}).json()["recommendation_id"] for _ in range(5)}

    assert len(ids) == 5


@given(user_id=st.sampled_from(["ann", "007", "cyd", "dan"]) | st.text(min_size=1), k=st.integers(1, 500))
@settings(deadline=None, max_examples=40)
def test_any_user_and_k_get_distinct_ranked_items(client: TestClient, user_id: str, k: int) -> None:
    response = recommend(client, {"user_id": user_id, "k": k})

    assert response.status_code == 200
    items = response.json()["items"]
    eligible = {"ann": 4, "cyd": 1, "dan": 0}.get(user_id, 6)
    assert len({item["item_id"] for item in items}) == len(items) == min(k, eligible)
    assert [item["rank"] for item in items] == list(range(1, len(items) + 1))
    assert [item["score"] for item in items] == sorted((item["score"] for item in items), reverse=True)


def test_health_names_the_model(client: TestClient, store: Path) -> None:
    response = client.get("/health")

    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "ok"
    assert body["model_version"] == artifact.current_version(store)
    assert (body["users"], body["items"]) == (4, 6)
    assert (body["index"], body["index_recall"]) == ("flat", 1.0)
    assert 0 <= body["uptime_seconds"] < 600
    assert 0 <= body["model_age_seconds"] < 600


# Errors


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#"),
        ({"user_id": ""}, "#/user_id"),
        ({"user_id": 63}, "#/user_id"),
        ({"user_id": None}, "#"),
        ({"user_id": ["ann"]}, "#/user_id"),
        ({"user_id": True}, "#/user_id"),
        ({"user_id": "ann", "k": "abc"}, "#/k"),
        ({"user_id": "ann", "k": "5"}, "#/k"),
        ({"user_id": "ann", "k": 0}, "#/k"),
        ({"user_id": "ann", "k": -1}, "#/k"),
        ({"user_id": "ann", "k": 501}, "#/k"),
        ({"user_id": "ann", "k": 10**40}, "#/k"),
        ({"user_id": "ann", "k": 2.5}, "#/k"),
        ({"user_id": "ann", "k": True}, "#/k"),
        ({"user_id": "ann", "k": None}, "#/k"),
        ({"user_id": "ann", "K": 5}, "#/K"),
        ({"user_id": "ann", "a/b~c": 5}, "#/a~1b~0c"),
        ({"history": []}, "#"),
        ({"history": [""]}, "#/history/0"),
        ({"history": "mug"}, "#/history"),
        ({"history": ["mug"] * 1001}, "#/history"),
        ({"user_id": "ann", "exclude_seen": 1}, "#/exclude_seen"),
        ({"user_id": "ann", "exclude_items": [1]}, "#/exclude_items/0"),
        ({"user_id": "ann", "diversity": 1.01}, "#/diversity"),
        ({"user_id": "ann", "filter": {"colour": "red"}}, "#/filter/colour"),
        ({"user_id": "ann", "filter": {"title": {"min": 1}}}, "#/filter/title"),
        ({"user_id": "ann", "at_most": {"colour": 1}}, "#/at_most/colour"),
        ({"user_id": "ann", "filter": {"title": "Sock"}, "at_most": {"colour": 1}}, "#/at_most/colour"),
        ({"user_id": "ann", "at_most": {"title": 0}}, "#/at_most/title"),
        ({"user_id": "ann", "weights": {"image": 1}}, "#/weights/image"),
        ({"user_id": "ann", "weights": {"id": -1}}, "#/weights/id"),
        ({"user_id": "ann", "explain": "yes"}, "#/explain"),
        ([], "#"),
        ("ann", "#"),
        (None, "#"),
        (7, "#"),
    ],
)
def test_a_wrong_field_is_pointed_at(client: TestClient, body: Any, pointer: str) -> None:
    response = client.post("/recommend", content=json.dumps(body), headers=JSON)

    document = problem(response, 422)
    assert [error["pointer"] for error in document["errors"]] == [pointer]
    assert document["detail"] == "The request has 1 error."


def test_a_filter_on_an_unknown_attribute_names_those_there_are(client: TestClient) -> None:
    document = problem(recommend(client, {"user_id": "nobody", "filter": {"colour": "red"}}), 422)
    assert document["errors"] == [
        {"pointer": "#/filter/colour", "detail": "The model knows no attribute of this name. It knows: title"}
    ]


@pytest.mark.parametrize(
    ("wanted", "pointers", "says"),
    [
        ({}, [""], "give min, max or both"),
        ({"max": None}, [""], "give min, max or both"),
        ({"min": "1"}, ["/min"], "a valid number"),
        ({"min": float("nan")}, ["/min"], "a finite number"),
        ({"str": 1, "max": 1}, ["/str"], "Extra inputs"),
        ({"in": []}, ["/in"], "at least 1 item"),
        ({"in": "a"}, ["/in"], "a valid list"),
        ({"in": ["a"], "min": 1}, ["/min"], "Extra inputs"),
        ({"in": ["a", None, 1.5, ["a"], {}]}, ["/in/1", "/in/3", "/in/4"], "a string, a boolean or a finite number"),
        (None, [""], "an object of `in`"),
        (["a"], [""], "an object of `in`"),
        (float("inf"), [""], "a finite number"),
    ],
)
def test_a_condition_that_makes_no_sense_is_pointed_at_once(
    client: TestClient, wanted: Any, pointers: list[str], says: str
) -> None:
    for path, who in (("/recommend", {"user_id": "ann"}), ("/recommend:batch", {"user_ids": ["ann"]})):
        body = json.dumps({**who, "filter": {"title": wanted}})
        document = problem(client.post(path, content=body, headers=JSON), 422)
        assert [error["pointer"] for error in document["errors"]] == [f"#/filter/title{end}" for end in pointers]
        assert all(says in error["detail"] for error in document["errors"])


def test_conditions_keep_the_kind_of_their_values() -> None:
    conditions = {"a": 1, "b": 1.0, "c": True, "d": "1", "e": {"in": [1, 1.0, True, "1"]}, "f": {"max": 2}}
    read = schemas.RecommendRequest.model_validate_json(json.dumps({"user_id": "ann", "filter": conditions}))
    expected = {**conditions, "f": {"min": None, "max": 2.0}}
    assert repr(read.model_dump(by_alias=True)["filter"]) == repr(expected)
    assert schemas.RecommendRequest(user_id="ann", filter=read.filter) == read


def test_all_wrong_fields_are_pointed_at(client: TestClient) -> None:
    document = problem(recommend(client, {"user_id": 1, "k": 0, "x": 1}), 422)

    assert {error["pointer"] for error in document["errors"]} == {"#/user_id", "#/k", "#/x"}


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (b'{"user_id": "\\ud800"}', "#/user_id"),
        (b'{"user_id": "ann", "\\ud800": 1}', "#"),
        (b'{"user_id": "ann", "filter": {"\\ud800": "x"}}', "#/filter/?"),
        (b'{"user_id": "ann", "weights": {"\\ud800": 1}}', "#/weights/?"),
        (b'{"user_id": "ann", "at_most": {"\\ud800": 1}}', "#/at_most/?"),
        (b'{"user_id": "ann", "k": NaN}', "#/k"),
        (b'{"user_id": "ann", "k": 1e999}', "#/k"),
        (b"", "#"),
    ],
)
def test_values_that_json_lets_through_are_refused(client: TestClient, content: bytes, pointer: str) -> None:
    document = problem(client.post("/recommend", content=content, headers=JSON), 422)

    assert [error["pointer"] for error in document["errors"]] == [pointer]


@pytest.mark.parametrize(
    "content",
    [b"{", b"user_id=ann", b"\xff\xfe\xfa", b'{"user_id": "\xe9"}', b"[" * 50_000, b'{"k": ' + b"1" * 9000 + b"}"],
)
def test_a_body_that_is_not_json_is_refused(client: TestClient, content: bytes) -> None:
    problem(client.post("/recommend", content=content, headers=JSON), 400)


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {"content-type": ""}, {}],
)
def test_a_body_that_is_not_said_to_be_json_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    problem(client.post("/recommend", content=b'{"user_id": "ann"}', headers=headers), 415)


def test_a_json_body_may_name_its_charset(client: TestClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}

    assert client.post("/recommend", content=b'{"user_id": "ann"}', headers=headers).status_code == 200


def test_a_body_up_to_the_limit_is_read_and_one_byte_more_is_refused(client: TestClient) -> None:
    frame = len('{"user_id": ""}')
    most = json.dumps({"user_id": "x" * (1024 * 1024 - frame)})

    assert client.post("/recommend", content=most, headers=JSON).status_code == 200
    document = problem(client.post("/recommend", content=most + " ", headers=JSON), 413)
    assert "1048576 bytes" in document["detail"]


def test_a_body_of_unsaid_length_is_refused_too(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(1025):
            yield b" " * 1024

    problem(client.post("/recommend", content=chunks(), headers=JSON), 413)


@pytest.mark.parametrize("path", ["/", "/recommend/", "/nothing", "/recommend/ann", "/%00", "/..%2f..%2fetc"])
def test_a_path_that_is_not_there_is_a_problem(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "There is nothing at this path."


LITERAL = [
    (method, path) for path, methods in openapi()["paths"].items() for method in methods if not path.endswith("}")
] + [("get", "/docs"), ("get", "/console"), ("get", "/console/api/settings")]


@pytest.mark.parametrize(("method", "path"), LITERAL)
def test_a_line_end_after_a_path_is_not_overlooked(client: TestClient, method: str, path: str) -> None:
    asked = path.replace("{item_id}", "mug").replace("{version}", "v") + "%0A"
    assert client.request(method, asked, json={"user_id": "ann"}).status_code in (404, 405)


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", "/recommend", "POST"), ("POST", "/health", "GET")])
def test_a_method_that_is_not_there_is_a_problem_that_names_those_there_are(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)

    problem(response, 405)
    assert response.headers["allow"] == allowed


def test_a_defect_of_the_service_is_a_problem_that_tells_nothing_of_its_inside(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(models=store))
    app.state.live.engine = "no engine at all"
    client = TestClient(app, raise_server_exceptions=False)

    response = client.post("/recommend", json={"user_id": "ann"}, headers={"X-Request-ID": "trace-me"})

    document = problem(response, 500)
    assert document["request_id"] == "trace-me"
    assert "attribute" not in response.text
    assert "trace-me" in caplog.text


# Without a model


def test_without_a_model_recommendations_are_unavailable(empty_client: TestClient) -> None:
    document = problem(recommend(empty_client, {"user_id": "ann"}), 503)

    assert "publish" in document["detail"]


def test_without_a_model_health_is_unavailable(empty_client: TestClient) -> None:
    response = empty_client.get("/health")

    assert response.status_code == 503
    assert response.json()["status"] == "unavailable"
    assert response.json()["model_version"] is None


def test_a_damaged_model_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").write_text("20261122T231501Z-3fa9c1d2\n")

    with pytest.raises(UserError, match="there is no such version"):
        create_app(Settings(models=tmp_path))


# Request ids and the description


@pytest.mark.parametrize("given_id", ["abc-123", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "x" * 128])
def test_a_request_id_is_echoed(client: TestClient, given_id: str) -> None:
    assert client.get("/health", headers={"X-Request-ID": given_id}).headers["x-request-id"] == given_id


@pytest.mark.parametrize("given_id", [None, "", "x" * 129, "two words", "é", 'quote"', "a,b", "a;b"])
def test_a_request_id_that_is_missing_or_could_garble_a_log_is_made(client: TestClient, given_id: str | None) -> None:
    headers = {} if given_id is None else {"X-Request-ID": given_id.encode()}

    made = [client.get("/health", headers=headers).headers["x-request-id"] for _ in range(2)]

    assert all(len(id_) == 32 and id_.isalnum() for id_ in made)
    assert made[0] != made[1]


def test_the_description_has_every_error_as_a_problem(client: TestClient) -> None:
    description = client.get("/openapi.json").json()

    assert description["openapi"].startswith("3.1")
    responses = description["paths"]["/recommend"]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "403", "408", "413", "415", "422", "429", "503"}
    for status, response in responses.items():
        media_type, schema = ("json", "RecommendResponse") if status == "200" else ("problem+json", "Problem")
        assert response["content"] == {
            f"application/{media_type}": {"schema": {"$ref": f"#/components/schemas/{schema}"}}
        }
    assert description["components"]["schemas"]["Problem"]["properties"].keys() >= {"type", "title", "status"}
    assert "HTTPValidationError" not in description["components"]["schemas"]
    assert description == client.get("/openapi.json").json()


def test_the_committed_description_is_that_of_the_api(client: TestClient) -> None:
    committed = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text())
    assert client.get("/openapi.json").json() == committed, "run `make openapi` and look at what has changed"


def test_requests_and_answers_have_examples_which_are_such(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["components"]["schemas"]
    shown = {name for name, schema in described.items() if "examples" in schema}
    for name in shown:
        kind: Any = getattr(schemas, name)
        for example in kind.model_config["json_schema_extra"]["examples"]:
            assert kind.model_validate_json(json.dumps(example)).model_dump(mode="json").keys() >= example.keys()
    assert shown >= {
        *("RecommendRequest", "RecommendResponse", "BatchRequest", "EventBatch", "EventsResponse", "SimilarResponse"),
        *("ItemResponse", "PutItemRequest", "PutItemResponse", "RetiredResponse", "UserResponse", "ForgottenResponse"),
        *("ModelsResponse", "ActivationResponse", "Problem"),
    }


def test_a_model_that_is_published_later_is_served_without_a_restart(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(models=tmp_path / "models"))) as later:
        assert later.get("/health").status_code == 503
        version = publish(tmp_path / "models")
        deadline = time.monotonic() + 30
        while later.get("/health").status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert recommend(later, {"user_id": "ann"}).json()["model_version"] == version
