"""The locator's own OpenAPI document, turned against it."""

from contextlib import suppress

import hypothesis
import schemathesis
from hypothesis import HealthCheck
from schemathesis import APIOperation, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.target import ANSWER_SECONDS

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
MIN_OPERATIONS = 10
NOT_HTTP = b"Invalid HTTP request received."
"""What the HTTP server itself says to a URL of more than 64 KiB, before the locator sees it."""


def attack(address: str, seed: int, count: int) -> None:
    """Every operation with data that the document allows, and with data that it does not; `count` requests of each."""
    schema = schemathesis.openapi.from_url(f"http://{address}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= MIN_OPERATIONS
    for operation in operations:
        for mode in GenerationMode:
            with suppress(hypothesis.errors.Unsatisfiable):  # every request is valid
                _attacked(address, operation, mode, seed, count)


def _attacked(address: str, operation: APIOperation, mode: GenerationMode, seed: int, count: int) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @hypothesis.given(operation.as_strategy(generation_mode=mode))
    def tried(case: schemathesis.Case) -> None:
        response = case.call(base_url=f"http://{address}", timeout=ANSWER_SECONDS)
        if response.status_code == 400 and response.content == NOT_HTTP:
            return
        case.validate_response(response, checks=CHECKS)

    tried()
