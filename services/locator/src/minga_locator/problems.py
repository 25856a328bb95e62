"""Errors as `application/problem+json`: one shape for all of them, whoever raises them."""

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from minga_core.errors import WIRE_STATUS, BusyError, Code, MingaError
from minga_locator.models import Problem

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
"""What a client is told to wait when the store is away: clients back off by themselves."""

_TITLES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Request too large",
    422: "Malformed body",
    429: "Too many",
    500: "Internal error",
    503: "Not available now",
    504: "Too slow",
    507: "No room",
}


def problem_response(
    request: Request, status: int, code: str, detail: str, retry_after: int | None = None
) -> JSONResponse:
    """A problem document."""
    problem = Problem(
        title=_TITLES.get(status, "Error"),
        status=status,
        detail=detail,
        instance=request.url.path,
        code=code,
        retry_after_seconds=retry_after,
    )
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else None
    return JSONResponse(problem.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


def responses(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """Declares the problems that a route answers with, for the OpenAPI document; 503 goes without saying."""
    declared: dict[int | str, dict[str, Any]] = {}
    for code in (*codes, Code.STORE_UNAVAILABLE):
        status = WIRE_STATUS[code].http
        entry = declared.setdefault(
            status,
            {
                "description": _TITLES[status],
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        )
        entry["description"] += f"{':' if entry['description'] == _TITLES[status] else ','} `{code}`"
    return declared


def add_handlers(app: FastAPI) -> None:
    """Makes every error of the app a problem document."""
    app.add_exception_handler(MingaError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MingaError)  # noqa: S101 - registered for it
    status = WIRE_STATUS[error.code].http
    retry_after = RETRY_AFTER_SECONDS if status in (503, 504) else None
    if isinstance(error, BusyError):
        retry_after = math.ceil(error.retry_after.total_seconds())
    return problem_response(request, status, error.code.value, str(error), retry_after)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """422 for a body that is no JSON object; 400 for values that are out of their range."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    errors = error.errors()
    malformed = any(item["type"] in ("json_invalid", "model_attributes_type") for item in errors)
    detail = "; ".join(_shown(item) for item in errors[:5])
    return problem_response(request, 422 if malformed else 400, Code.INVALID_ARGUMENT.value, detail)


def _shown(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"] if part not in ("body", "query", "path"))
    return f"{where}: {item['msg']}" if where else str(item["msg"])


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    code = "no_such_route" if error.status_code == 404 else "method_not_allowed" if error.status_code == 405 else "http"
    response = problem_response(request, error.status_code, code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


async def _bug(request: Request, error: Exception) -> JSONResponse:
    # Starlette logs the traceback when it raises the error again after this answer.
    return problem_response(request, 500, Code.INTERNAL.value, "internal error; the locator's log has the details")
