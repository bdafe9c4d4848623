"""Where the user state is comes from the environment or a secret's file; a wrong setting is named, a secret is not."""

from pathlib import Path

import pytest

from shared.errors import ExitCode, UsageError
from shared.events import DEFAULT_WEIGHTS
from shared.settings import StateSettings, state_settings

SECRET = "redis://:hunter2@redis:6379/0"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "REDIS_URL_FILE", "STATE", "EVENT_WEIGHTS"):
        monkeypatch.delenv(f"MTS4MM_{name}", raising=False)


def test_without_settings_the_server_is_embedded_beside_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTS4MM_REDIS_URL", "")

    settings = state_settings()

    assert settings.redis_server is None
    assert settings.state_folder(Path("/srv/models")) == Path("/srv/models/.state")
    assert settings.event_weights == DEFAULT_WEIGHTS


def test_a_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTS4MM_STATE", "/var/lib/state")

    assert state_settings().state_folder(Path("models")) == Path("/var/lib/state")


def test_the_url_of_a_server_comes_from_the_environment_or_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MTS4MM_REDIS_URL", SECRET)
    assert state_settings().redis_server == SECRET
    monkeypatch.delenv("MTS4MM_REDIS_URL")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv("MTS4MM_REDIS_URL_FILE", str(tmp_path / "secret"))
    assert state_settings().redis_server == SECRET


def test_the_password_is_in_no_picture_of_the_settings() -> None:
    settings = StateSettings(redis_url=SECRET)  # type: ignore[arg-type]

    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"REDIS_URL": SECRET, "REDIS_URL_FILE": "x"}, "are both set: set one"),
        ({"REDIS_URL_FILE": "/nowhere/at/all"}, "MTS4MM_REDIS_URL_FILE=/nowhere/at/all: cannot be read"),
        ({"REDIS_URL_FILE": "/dev/null"}, "is empty"),
        ({"EVENT_WEIGHTS": '{"Buy it": 1}'}, "MTS4MM_EVENT_WEIGHTS: 'Buy it' is no event type"),
        ({"EVENT_WEIGHTS": '{"buy": 1e9}'}, "MTS4MM_EVENT_WEIGHTS: buy=1000000000.0: give 0, or a weight"),
        ({"EVENT_WEIGHTS": '{"buy": NaN}'}, "MTS4MM_EVENT_WEIGHTS"),
        ({"EVENT_WEIGHTS": "{}"}, "name at least one event type"),
        ({"EVENT_WEIGHTS": "view"}, "event_weights"),
    ],
)
def test_what_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"MTS4MM_{name}", value)

    with pytest.raises(UsageError) as refused:
        state_settings()

    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert refused.value.exit_code == ExitCode.USAGE


def test_event_types_and_their_weights_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTS4MM_EVENT_WEIGHTS", '{"play": 1, "skip": -0.5, "impression": 0}')

    assert state_settings().event_weights == {"play": 1.0, "skip": -0.5, "impression": 0.0}
