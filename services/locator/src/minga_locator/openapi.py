"""The OpenAPI document, made to tell the truth: every status that is sent, and the shape of every problem."""

from typing import Any

from fastapi import FastAPI

from minga_core.errors import WIRE_STATUS, Code
from minga_locator.models import Problem
from minga_locator.problems import HTTP_CODES, MEDIA_TYPE, TITLES

_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}}
_BODY_STATUSES = (408, 413, 422)
"""What may become of any request with a body."""

Responses = dict[int | str, dict[str, Any]]


def problems(*codes: Code) -> Responses:
    """Declares that a route answers with these codes."""
    declared: Responses = {}
    for code in codes:
        wire = WIRE_STATUS[code]
        entry = declared.setdefault(wire.http, _declaration(wire.http, code.value))
        if f"`{code}`" not in entry["description"]:
            entry["description"] += f", `{code}`"
        if wire.retryable:
            entry["headers"] = _RETRY_AFTER
    return declared


def store_problems(*codes: Code) -> Responses:
    """As `problems`, for a route that asks the store: it may be away, too many may ask, or this caller too much."""
    return problems(*codes, Code.STORE_UNAVAILABLE, Code.UNAVAILABLE, Code.BUSY)


def tell_the_truth(app: FastAPI) -> None:
    """Corrects the document that FastAPI makes of the app, when it is first asked for."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        return app.openapi_schema or _corrected(made())

    app.openapi = openapi  # type: ignore[method-assign]


def _corrected(document: dict[str, Any]) -> dict[str, Any]:
    """The same document: with the problem's schema, without the validation errors' shape that is never sent."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema()
    for path in document["paths"].values():
        for operation in path.values():
            _correct(operation)
    return document


def _correct(operation: dict[str, Any]) -> None:
    """Declares what any operation may answer."""
    responses = operation["responses"]
    responses.pop("422", None)
    for status in (*(_BODY_STATUSES if "requestBody" in operation else ()), 500):
        responses[str(status)] = _declaration(status, HTTP_CODES.get(status, Code.INTERNAL.value))
    operation["responses"] = dict(sorted(responses.items()))


def _declaration(status: int, code: str) -> dict[str, Any]:
    return {"description": f"{TITLES[status]}: `{code}`", "content": _PROBLEM}
