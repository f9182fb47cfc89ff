"""A fuzzer sends what the OpenAPI document allows, and what it does not: no answer may be an error of the server."""

import hypothesis
import pytest

from nlp_rnn.serving.limits import Limits
from tests.serving.conftest import listening

schemathesis = pytest.importorskip("schemathesis", reason="the extra dev is not installed")
checks = pytest.importorskip("schemathesis.checks")


@pytest.fixture(scope="module")
def document(exports):
    with listening(exports, limits=Limits(max_generated=50, timeout_seconds=20)) as port:
        found = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        found.config.generation.update(
            modes=[schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
        )
        yield found


schema = schemathesis.pytest.from_fixture("document")


@pytest.mark.further
@schema.parametrize()
@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_answers_are_as_documented(case):
    case.call_and_validate(
        checks=[
            checks.not_a_server_error,
            schemathesis.specs.openapi.checks.status_code_conformance,
            schemathesis.specs.openapi.checks.content_type_conformance,
            schemathesis.specs.openapi.checks.response_schema_conformance,
        ]
    )
