"""Errors as `application/problem+json` (RFC 9457): one shape for all of them, whoever raises them."""

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from minga_core.errors import WIRE_STATUS, BusyError, Code, MingaError
from minga_locator.models import Problem

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
"""What a client is told to wait when something is away: clients back off by themselves."""
MAX_SHOWN_ERRORS = 5

TITLES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    408: "Request too slow",
    409: "Conflict",
    413: "Request too large",
    422: "Malformed body",
    429: "Too many",
    500: "Internal error",
    503: "Not available now",
    504: "Too slow",
    507: "No room",
}

# What the HTTP layer itself refuses. The codes that `minga_core.errors` does not have are about HTTP alone.
HTTP_CODES = {
    404: "no_such_route",
    405: "method_not_allowed",
    408: "request_timeout",
    413: Code.LIMIT_EXCEEDED.value,
    422: Code.INVALID_ARGUMENT.value,
}

# Better words than Starlette's and FastAPI's own.
_HTTP_DETAILS = {
    404: "there is nothing at this path; /docs shows what there is",
    405: "{method} is not for this path; /docs shows what is",
    422: "the body is no JSON that can be read",
}

# How pydantic calls a body that is no JSON object at all.
_MALFORMED = frozenset({"json_invalid", "model_attributes_type"})


def problem_response(
    scope: Scope, status: int, code: str, detail: str, *, retry_after_seconds: int | None = None
) -> JSONResponse:
    """A problem document about the request of that scope."""
    problem = Problem(
        title=TITLES.get(status, "Error"),
        status=status,
        detail=detail,
        instance=quote(scope["path"], safe="/:@!$&'()*+,;=~"),
        code=code,
        retry_after_seconds=retry_after_seconds,
    )
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    return JSONResponse(problem.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Makes every refusal of the app a problem document. Bugs are `watch.Watch`'s."""
    app.add_exception_handler(MingaError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MingaError)  # noqa: S101 - registered for it
    return problem_of(request.scope, error)


def problem_of(scope: Scope, error: MingaError) -> JSONResponse:
    """What a request of that scope is answered when it fails so."""
    wire = WIRE_STATUS[error.code]
    retry_after_seconds = RETRY_AFTER_SECONDS if wire.retryable else None
    if isinstance(error, BusyError):
        retry_after_seconds = math.ceil(error.retry_after.total_seconds())
    return problem_response(scope, wire.http, error.code.value, str(error), retry_after_seconds=retry_after_seconds)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """422 for a body that is no JSON object; 400 for values that are missing, unknown or out of their range."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    status = 422 if any(_is_malformed(item) for item in error.errors()) else 400
    return problem_response(request.scope, status, Code.INVALID_ARGUMENT.value, _detail(error.errors()))


def _is_malformed(item: Any) -> bool:
    return item["type"] in _MALFORMED or (item["type"] == "missing" and tuple(item["loc"]) == ("body",))


def _detail(errors: Sequence[Any]) -> str:
    shown = "; ".join(_shown(item) for item in errors[:MAX_SHOWN_ERRORS])
    return shown if len(errors) <= MAX_SHOWN_ERRORS else f"{shown}; and {len(errors) - MAX_SHOWN_ERRORS} more"


def _shown(item: Any) -> str:
    if item["type"] == "json_invalid":
        return f"the body is not JSON: {item['ctx']['error']}"
    where = ".".join(str(part)[:60] for part in item["loc"] if part not in ("body", "query", "path"))
    return f"{where}: {item['msg']}" if where else f"the body: {item['msg']}"


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    # FastAPI says 400 of a body that its JSON parser chokes on in any way but a syntax error.
    status = 422 if error.status_code == 400 else error.status_code
    detail = _HTTP_DETAILS.get(status, str(error.detail)).replace("{method}", request.method)
    response = problem_response(request.scope, status, HTTP_CODES.get(status, "http_error"), detail)
    response.headers.update(error.headers or {})
    return response
