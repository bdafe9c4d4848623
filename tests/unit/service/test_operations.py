"""What operators rely on, in process: keys, probes, metrics, the access log, headers, limits."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

import service.access
from service.app import create_app
from service.logs import AccessLog
from service.routes import ROUTERS
from service.settings import Settings
from shared.api_keys import Scope, new_key, save_keys
from tests.unit.service.conftest import publish

ASK = {"user_id": "ann", "k": 2}
EVENT = {"event_id": "e1", "user_id": "ann", "item_id": "mug", "type": "view", "timestamp": "2026-11-24T06:00:00Z"}
OPEN_PATHS = {"/livez", "/readyz", "/health", "/metrics", "/v2/health/live", "/v2/health/ready"}


@contextmanager
def serving(store: Path, log: io.StringIO | None = None, **settings: Any) -> Iterator[TestClient]:
    access = None if log is None else AccessLog(log, for_people=False)
    with TestClient(create_app(Settings(models=store, **settings), access), raise_server_exceptions=False) as client:
        yield client


def samples(client: TestClient) -> dict[str, float]:
    """Every sample of /metrics by its name and labels."""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").raise_for_status().text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


# Keys


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, dict[Scope, str]]:
    made = {scope: new_key(str(scope), [scope]) for scope in Scope}
    save_keys(tmp_path / "keys.json", [entry for _, entry in made.values()])
    return tmp_path / "keys.json", {scope: secret for scope, (secret, _) in made.items()}


def test_every_route_but_the_probes_asks_for_a_key_of_its_scope(
    store: Path, keys: tuple[Path, dict[Scope, str]]
) -> None:
    path, secrets = keys
    with serving(store, keys=path) as client:
        assert client.post("/recommend", json=ASK).status_code == 401
        assert client.post("/recommend", json=ASK, headers={"X-API-Key": "mts_guess"}).status_code == 401
        assert client.post("/recommend", json=ASK, headers={"X-API-Key": secrets[Scope.EVENTS]}).status_code == 403
        assert client.post("/recommend", json=ASK, headers={"X-API-Key": secrets[Scope.READ]}).status_code == 200
        bearer = {"Authorization": f"Bearer {secrets[Scope.EVENTS]}"}
        assert client.post("/events", json=EVENT, headers=bearer).status_code == 200
        assert client.post("/events", json=EVENT, headers={"X-API-Key": secrets[Scope.READ]}).status_code == 403
        for described, methods in client.get("/openapi.json").json()["paths"].items():
            for method, operation in methods.items():
                asked = client.request(method, re.sub(r"\{\w+\}", "mug", described), json={})
                assert (asked.status_code == 401) == (described not in OPEN_PATHS), (method, described)
                assert ("security" in operation) == (described not in OPEN_PATHS)


def test_no_route_is_left_open_by_oversight() -> None:
    guarded = {str(scope) for scope in Scope}
    for router in ROUTERS:
        for route in router.routes:
            scopes = [getattr(each.dependency, "scope", None) for each in getattr(route, "dependencies", [])]
            named = {str(scope) for scope in scopes} & guarded
            path = route.path  # type: ignore[attr-defined]
            page = path in ("/console", "/console/{path:path}", "/console/api/settings", "/docs", "/docs/style.css")
            assert named or page or path in OPEN_PATHS, path


def test_a_changed_keys_file_counts_and_a_flawed_one_changes_nothing(
    store: Path, keys: tuple[Path, dict[Scope, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.access, "LOOK_SECONDS", 0.0)
    path, secrets = keys
    with serving(store, keys=path) as client:
        old = {"X-API-Key": secrets[Scope.READ]}
        assert client.post("/recommend", json=ASK, headers=old).status_code == 200
        path.write_text("{")
        assert client.post("/recommend", json=ASK, headers=old).status_code == 200
        secret, entry = new_key("new", [Scope.READ])
        save_keys(path, [entry])
        assert client.post("/recommend", json=ASK, headers=old).status_code == 401
        assert client.post("/recommend", json=ASK, headers={"X-API-Key": secret}).status_code == 200


def test_too_many_calls_are_told_when_to_come_again(store: Path, keys: tuple[Path, dict[Scope, str]]) -> None:
    path, secrets = keys
    with serving(store, keys=path, rate_limit="2/minute") as client:
        headers = {"X-API-Key": secrets[Scope.READ]}
        statuses = [client.post("/recommend", json=ASK, headers=headers).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = client.post("/recommend", json=ASK, headers=headers)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["content-type"] == "application/problem+json"
        assert client.get("/livez").status_code == 200


# How it is


def test_probes_say_yes_while_a_search_works_and_no_while_the_service_leaves(store: Path) -> None:
    with serving(store) as client:
        for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).json() == {"status": "ok"}
        app: Any = client.app
        app.state.vitals._draining.active = True
        leaving = client.get("/readyz")
        assert (leaving.status_code, leaving.json()["detail"]) == (503, "The service is leaving.")
        assert leaving.headers["connection"] == "close"
        assert client.get("/livez").status_code == 200
        assert client.post("/recommend", json=ASK).status_code == 200
        app.state.vitals._draining.active = False
        app.state.live.engine.index = None
        broken = client.get("/readyz")
        assert (broken.status_code, broken.json()["detail"]) == (503, "A search failed: AttributeError.")


def test_without_a_model_it_lives_and_is_not_ready(empty_client: TestClient) -> None:
    assert empty_client.get("/livez").status_code == 200
    assert empty_client.get("/readyz").status_code == 503
    assert samples(empty_client)["mts4mm_ready"] == 0


def test_a_start_without_a_model_is_told_with_the_command_that_makes_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path / "my models"):
        assert f"answers 503 until 'mts4mm train DATASET --out '{tmp_path}/my models'' publishes one" in caplog.text


def test_a_catalogue_that_is_not_there_is_told_at_the_start_and_by_health_until_it_is(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "shop"
    with serving(store, catalogue=folder) as client:
        assert f"no pictures are served: {folder} is no folder" in caplog.text
        health = client.get("/health").json()
        assert (health["status"], len(health["problems"])) == ("degraded", 1)
        assert health["problems"][0].startswith(f"Pictures: {folder} is no folder")
        folder.mkdir()
        assert client.get("/health").json()["status"] == "ok"


def test_a_refused_model_degrades_health_and_says_why(tmp_path: Path) -> None:
    store = tmp_path / "models"
    publish(store)
    with serving(store) as client:
        assert client.get("/health").json()["last_refusal"] is None
        (store / "CURRENT").write_text("20200101T000000Z-00000000\n")
        client.app.state.live.refresh()  # type: ignore[attr-defined]
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["last_refusal"]["version"] == "20200101T000000Z-00000000"
        assert any("20200101T000000Z-00000000 is refused" in problem for problem in health.json()["problems"])
        told = samples(client)
        assert told["mts4mm_model_refused"] == 1
        assert told['mts4mm_model_swaps_total{outcome="refused"}'] == 1
        assert told['mts4mm_model_swaps_total{outcome="swapped"}'] == 1


# Metrics


def test_requests_are_counted_by_template_and_status_and_nothing_of_users_is_a_label(store: Path) -> None:
    with serving(store) as client:
        for _ in range(3):
            client.post("/recommend", json=ASK)
        client.post("/recommend", json={"user_id": "secret-user"})
        client.post("/recommend", json={})
        client.get("/items/mug")
        client.get("/items/secret-item")
        client.get("/secret-path")
        client.request("SECRET", "/recommend")
        told = samples(client)
        count = "mts4mm_http_requests_total"
        assert told[f'{count}{{method="POST",route="/recommend",status="200"}}'] == 4
        assert told[f'{count}{{method="POST",route="/recommend",status="422"}}'] == 1
        assert told[f'{count}{{method="GET",route="/items/{{item_id}}",status="200"}}'] == 1
        assert told[f'{count}{{method="GET",route="/items/{{item_id}}",status="404"}}'] == 1
        assert told[f'{count}{{method="GET",route="unmatched",status="404"}}'] == 1
        assert told[f'{count}{{method="other",route="/recommend",status="405"}}'] == 1
        duration = "mts4mm_http_request_duration_seconds_count"
        assert told[f'{duration}{{outcome="success",route="/recommend"}}'] == 4
        assert told[f'{duration}{{outcome="refused",route="/recommend"}}'] == 2
        assert told['mts4mm_recommendations_total{reason="trained",strategy="personal"}'] == 3
        assert told['mts4mm_recommendations_total{reason="unknown_user",strategy="popular"}'] == 1
        assert "ecret" not in client.get("/metrics").text
        assert (told["mts4mm_model_users"], told["mts4mm_model_items"]) == (4, 6)
        assert 0 <= told["mts4mm_model_age_seconds"] < 3_600


def test_metric_names_keep_to_the_conventions(store: Path) -> None:
    with serving(store) as client:
        client.post("/recommend", json=ASK)
        families = list(text_string_to_metric_families(client.get("/metrics").text))
        assert len(families) > 15
        for family in families:
            assert family.name.startswith("mts4mm_")
            assert family.documentation
            assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|count|total)$", family.name)
            totals = [sample.name.endswith("_total") for sample in family.samples]
            assert all(totals) if family.type == "counter" else not any(totals)


def test_the_counters_say_whose_they_are(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def whose(client: TestClient) -> str:
        (found,) = (name for name in samples(client) if name.startswith("mts4mm_counters_info"))
        return found

    with serving(store) as client:
        assert re.fullmatch(r'mts4mm_counters_info\{of="[0-9a-f]{32}"\}', whose(client))
        assert whose(client) == whose(client)
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))  # as every worker of a parent has it
        assert whose(client) == f'mts4mm_counters_info{{of="{tmp_path.name}"}}'


def test_events_are_counted_by_type_and_outcome(tmp_path: Path) -> None:
    publish(tmp_path / "models")
    with serving(tmp_path / "models") as client:
        for _ in range(2):
            client.post("/events", json=EVENT).raise_for_status()
        client.post("/events", json={"events": [EVENT | {"type": "secret"}]})
        told = samples(client)
        assert told['mts4mm_events_total{outcome="accepted",type="view"}'] == 1
        assert told['mts4mm_events_total{outcome="duplicate",type="view"}'] == 1
        assert told['mts4mm_events_total{outcome="rejected",type="any"}'] == 1


def test_the_last_night_is_told(tmp_path: Path) -> None:
    publish(tmp_path / "models")
    (tmp_path / "models" / ".nightly").mkdir()
    status = {"started": "2026-11-24T02:00:00+00:00", "last_success": "2026-11-23T02:30:00+00:00"}
    status |= {"seconds": 600, "outcome": "refused"}  # type: ignore[dict-item]
    (tmp_path / "models" / ".nightly" / "status.json").write_text(json.dumps(status))
    with serving(tmp_path / "models") as client:
        told = samples(client)
        assert told["mts4mm_nightly_last_start_timestamp_seconds"] == 1_795_485_600
        assert told["mts4mm_nightly_last_success_timestamp_seconds"] == 1_795_401_000
        assert told["mts4mm_nightly_last_duration_seconds"] == 600
        assert told['mts4mm_nightly_last_verdict_info{verdict="refused"}'] == 1


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": "long", "outcome": 3, "started": "soon"}'])
def test_a_nightly_status_that_makes_no_sense_breaks_nothing(tmp_path: Path, content: str) -> None:
    publish(tmp_path / "models")
    (tmp_path / "models" / ".nightly").mkdir()
    (tmp_path / "models" / ".nightly" / "status.json").write_text(content)
    with serving(tmp_path / "models") as client:
        assert not any("nightly" in name for name in samples(client))


# The log


def test_every_request_is_a_line_that_names_the_key_and_the_recommendation_but_no_secret(
    store: Path, keys: tuple[Path, dict[Scope, str]]
) -> None:
    path, secrets = keys
    log = io.StringIO()
    with serving(store, log, keys=path) as client:
        headers = {"X-API-Key": secrets[Scope.READ], "X-Request-ID": "r-1"}
        answer = client.post("/recommend?token=hunter2", json=ASK, headers=headers).json()
        client.get("/items/private-item", headers={"X-API-Key": "mts_guess"})
        client.get("/nothing/private")
    first, second, third = (json.loads(line) for line in log.getvalue().splitlines())
    assert (first["request_id"], first["method"], first["route"], first["status"]) == ("r-1", "POST", "/recommend", 200)
    assert (first["key"], first["recommendation_id"]) == ("read", answer["recommendation_id"])
    assert (second["route"], second["status"], "key" in second) == ("/items/{item_id}", 401, False)
    assert (third["route"], third["status"]) == ("unmatched", 404)
    for hidden in (*secrets.values(), "mts_guess", "hunter2", "private", "ann"):
        assert hidden not in log.getvalue()


# Headers and limits


def test_answers_are_hardened_and_pages_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/health", "/nothing", "/console/", "/docs"):
        headers = client.get(path).headers
        assert headers.get_list("x-content-type-options") == ["nosniff"]
        assert headers.get_list("referrer-policy") == ["no-referrer"]
        assert len(headers.get_list("x-request-id")) == 1
    for path in ("/console/", "/docs"):
        policy = client.get(path).headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy


def test_the_page_of_the_api_has_all_of_it_and_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in page.text
    assert "<script" not in page.text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.text)


def test_other_origins_are_closed_unless_they_are_named(store: Path) -> None:
    origin = {"Origin": "https://shop.example"}
    preflight = origin | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-Key"}
    with serving(store) as client:
        assert "access-control-allow-origin" not in client.post("/recommend", json=ASK, headers=origin).headers
        assert client.options("/recommend", headers=preflight).status_code == 405
    with serving(store, cors_origins="https://shop.example") as client:
        assert client.options("/recommend", headers=preflight).status_code == 200
        answered = client.post("/recommend", json=ASK, headers=origin).headers
        assert answered["access-control-allow-origin"] == "https://shop.example"
        assert "access-control-allow-credentials" not in answered
        other = client.post("/recommend", json=ASK, headers={"Origin": "https://else.example"}).headers
        assert "access-control-allow-origin" not in other


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"user_id": "ann", "filter": ' + '{"a":' * 40 + "1" + "}" * 40 + "}", 400),
        ("[" * 33 + "]" * 33, 400),
        ("[" * 500_000, 400),
        ('{"user_id": "' + "[{" * 400 + '"}', 200),
        ('{"user_id": "' + '\\"' * 400_000, 400),
        ('{"user_id": "a\\n", "filter": ' + '{"a":' * 40 + "1" + "}" * 40 + ', "reason": "b"}', 400),
        ('{"user_id": "a\\n' + ":[" * 40 + '"}', 200),
        ('{"user_id": "a\\\\", "exclude_items": ["' + "[" * 40 + '"]}', 200),
        ('{"user_id": "ann", "exclude_items": [' + ",".join(f'"{i}"' for i in range(900)) + "]}", 200),
    ],
)
def test_deep_nesting_is_refused_and_brackets_in_strings_are_none(client: TestClient, body: str, status: int) -> None:
    response = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-16"])
def test_json_in_another_encoding_is_refused_in_which_nesting_would_not_be_seen(
    client: TestClient, encoding: str, media_type: str
) -> None:
    response = client.post(
        "/recommend", content='{"user_id": "ann"}'.encode(encoding), headers={"content-type": media_type}
    )
    assert (response.status_code, response.json()["detail"]) == (400, "The body is not JSON in UTF-8.")


def test_a_worker_falls_back_to_what_the_others_serve(tmp_path: Path) -> None:
    store, last_good = tmp_path / "models", tmp_path / "last-good"
    good = publish(store)
    create_app(Settings(models=store), None, last_good)
    assert last_good.read_text() == good
    bad = publish(store)
    shutil.rmtree(store / bad)
    (store / bad).mkdir()
    client = TestClient(create_app(Settings(models=store), None, last_good))
    assert client.post("/recommend", json=ASK).json()["model_version"] == good
    assert client.get("/health").json()["status"] == "degraded"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last-good", "models"]
