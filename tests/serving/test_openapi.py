"""A fuzzer sends what the OpenAPI document allows, and what it does not: no answer may be an error of the server."""

import hypothesis
import pytest

from nlp_rnn.serving.limits import Limits
from nlp_rnn.serving.openapi import document
from tests.serving.conftest import listening

schemathesis = pytest.importorskip("schemathesis", reason="the extra dev is not installed")
OPERATIONS = [f"{method.upper()} {path}" for path, methods in document([])["paths"].items() for method in methods]
SETTINGS = hypothesis.settings(
    max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)


@pytest.fixture(scope="module")
def schema(exports):
    with listening(exports, limits=Limits(max_generated=50, timeout_seconds=20)) as port:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


@pytest.mark.further
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_answers_are_as_documented(schema, operation, mode):
    method, path = operation.split()
    found = schema[path][method]
    checks = schemathesis.specs.openapi.checks
    wanted = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]

    @hypothesis.given(case=found.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
    @SETTINGS
    def run(case):
        answer = case.call()
        assert answer.status_code != 500
        case.validate_response(answer, checks=wanted)

    try:
        run()
    except hypothesis.errors.Unsatisfiable:
        assert mode == "NEGATIVE"  # nothing about this request can be wrong
