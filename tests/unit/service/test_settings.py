"""Settings come from the environment; a wrong one is named."""

from pathlib import Path

import pytest

from service.settings import Settings, settings_from_environment
from shared.errors import ExitCode, UserError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert settings_from_environment({}) == Settings(Path("models"), "127.0.0.1", 8000, 65_536)
    assert settings_from_environment({"MTS4MM_PORT": "", "MTS4MM_MODELS": ""}) == Settings()


def test_every_setting_can_be_given() -> None:
    environment = {
        "MTS4MM_MODELS": "/srv/models",
        "MTS4MM_HOST": "0.0.0.0",
        "MTS4MM_PORT": "80",
        "MTS4MM_MAX_BODY_BYTES": "10",
    }

    assert settings_from_environment(environment) == Settings(Path("/srv/models"), "0.0.0.0", 80, 10)


@pytest.mark.parametrize("value", ["eighty", "-1", "65536", "80.0"])
def test_a_port_that_is_none_is_refused_by_the_name_of_its_variable(value: str) -> None:
    with pytest.raises(UserError, match=f"MTS4MM_PORT='{value}': give a whole number from 0 to 65535") as refused:
        settings_from_environment({"MTS4MM_PORT": value})

    assert refused.value.exit_code == ExitCode.USAGE
