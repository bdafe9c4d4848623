"""Settings come from the environment; a wrong one is named, with how to mend it."""

from pathlib import Path

import pytest

from service.settings import PREFIX, Settings, is_loopback, load_settings, reference, shown
from shared.errors import ExitCode, UsageError

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(autouse=True)
def _without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


def refusal(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> str:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError) as refused:
        load_settings()
    assert refused.value.exit_code == ExitCode.USAGE
    return str(refused.value)


def test_an_empty_environment_gives_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTS4MM_PORT", "")
    settings = load_settings()
    assert (settings.models, settings.host, settings.port) == (Path("models"), "127.0.0.1", 8000)
    assert settings == Settings()


def test_what_is_given_goes_before_the_environment_and_that_before_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MTS4MM_PORT", "80")
    monkeypatch.setenv("MTS4MM_MODELS", "/srv/models")
    monkeypatch.setenv("MTS4MM_CORS_ORIGINS", "https://a.example, https://b.example:8443")
    settings = load_settings(port="81")
    assert (settings.models, settings.port, settings.workers) == (Path("/srv/models"), 81, 1)
    assert settings.cors_origins == ["https://a.example", "https://b.example:8443"]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("MTS4MM_PORT", "eighty", "MTS4MM_PORT='eighty': input should be a valid integer"),
        ("MTS4MM_PORT", "65536", "MTS4MM_PORT='65536': input should be less than or equal to 65535"),
        ("MTS4MM_WORKERS", "0", "MTS4MM_WORKERS='0': input should be greater than or equal to 1"),
        ("MTS4MM_RATE_LIMIT", "fast", "MTS4MM_RATE_LIMIT='fast': write it as 100/second or 5000/hour"),
        ("MTS4MM_CORS_ORIGINS", "https://a.example/shop", "without a path"),
        ("MTS4MM_LOG_FORMAT", "xml", "MTS4MM_LOG_FORMAT='xml'"),
        ("MTS4MM_HOST", "0.0.0.0", "mts4mm keys new"),
        ("MTS4MM_EVENT_WEIGHTS", "{", "event_weights"),
        ("MTS4MM_REDIS_URL_FILE", "/nowhere/url", "MTS4MM_REDIS_URL_FILE=/nowhere/url: cannot be read"),
        ("MTS4MM_KYES", "keys.json", "MTS4MM_KYES: there is no such setting; the nearest is MTS4MM_KEYS"),
        ("MTS4MM_MAX_BODY", "1", "the nearest is MTS4MM_MAX_BODY_"),
    ],
)
def test_a_wrong_setting_is_named_with_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    assert told in refusal(monkeypatch, variable, value)


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REALDATA", "ENCODERS", "API_KEY", "API_KEY_FILE", "SHOP", "LOG", "NIGHT", "SERVICE"):
        monkeypatch.setenv(f"MTS4MM_{name}", "of others")
    monkeypatch.setenv("MTS5MM_KEYS", "x")
    load_settings()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.9", False),
        ("shop.example", False),
    ],
)
def test_without_keys_only_loopback_is_served_unless_it_is_said(host: str, loopback: bool, tmp_path: Path) -> None:
    assert is_loopback(host) == loopback
    if loopback:
        load_settings(host=host)
    else:
        with pytest.raises(UsageError, match="MTS4MM_OPEN=true"):
            load_settings(host=host)
    assert load_settings(host=host, open=True).host == host
    assert load_settings(host=host, keys=tmp_path / "keys.json").host == host


def test_shown_settings_read_back_as_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_settings(
        host="::", keys=tmp_path / "k.json", cors_origins=["https://a.example"], rate_limit="5/minute", tracing=True
    )
    for line in shown(settings).splitlines():
        if line and not line.startswith("#"):
            monkeypatch.setenv(*line.split("=", 1))
    assert load_settings() == settings


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTS4MM_REDIS_URL", "redis://:hunter2@redis:6379/0")
    settings = load_settings()
    assert settings.redis_server == "redis://:hunter2@redis:6379/0"
    assert "hunter2" not in shown(settings) + repr(settings)
    assert "MTS4MM_REDIS_URL=***" in shown(settings)
    assert "hunter2" not in refusal(monkeypatch, "MTS4MM_REDIS_URL_FILE", "/nowhere")


def test_every_setting_is_described_and_the_committed_page_is_that_of_the_code() -> None:
    assert all(field.description for field in Settings.model_fields.values())
    assert (DOCS / "settings.md").read_text() == reference(), "run `make settings`"
