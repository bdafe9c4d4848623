"""Cases generated from the API's description: no answer breaks it, and none is a server error."""

import json
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from service.app import create_app
from service.settings import Settings

CASES_AN_OPERATION = 250
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
COMMITTED = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text())
OPERATIONS = [(path, method) for path, methods in COMMITTED["paths"].items() for method in methods]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_generated_case_is_answered_as_described(store: Path, path: str, method: str) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(Settings(models=store)))
    answered = []

    @given(case=schema[path][method].as_strategy())
    @settings(max_examples=CASES_AN_OPERATION, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def check(case: schemathesis.Case) -> None:
        answered.append(case.call_and_validate(checks=CHECKS).status_code)

    check()
    assert answered if method == "get" else 200 in answered
    assert set(answered) <= {200, 400, 404, 413, 415, 422}
