"""Every error as `application/problem+json` (RFC 9457), in one shape, whichever layer raises it."""

from http import HTTPStatus
from urllib.parse import quote

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from minga_core.errors import WIRE_STATUS, Code, MingaError
from minga_locator.schemas import Problem
from minga_runtime.web.problems import MEDIA_TYPE, retry_after_seconds

HTTP_CODES = {
    404: "no_such_route",
    405: "method_not_allowed",
    408: "request_timeout",
    413: Code.LIMIT_EXCEEDED.value,
    422: Code.INVALID_ARGUMENT.value,
}
"""Codes of what the HTTP layer itself refuses. Those that `minga_core.errors` does not have are about HTTP alone."""

# More helpful than Starlette's own.
_HTTP_DETAILS = {
    404: "there is nothing at this path; /docs shows what there is",
    405: "{method} is not for this path; /docs shows what is",
}


def problem_response(
    scope: Scope, status: int, code: str, detail: str, *, retry_after_seconds: int | None = None
) -> Response:
    """A problem document about the request of that scope."""
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=quote(scope["path"], safe="/:@!$&'()*+,;=~"),
        code=code,
        retry_after_seconds=msgspec.UNSET if retry_after_seconds is None else retry_after_seconds,
    )
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(problem), status, headers, MEDIA_TYPE)


def error_response(scope: Scope, error: MingaError) -> Response:
    """The problem document of one of our errors."""
    status, seconds = WIRE_STATUS[error.code].http, retry_after_seconds(error)
    hint = f" ({error.hint})" if error.hint else ""
    return problem_response(scope, status, error.code.value, f"{error}{hint}", retry_after_seconds=seconds)


def http_error_response(scope: Scope, error: HTTPException) -> Response:
    """The problem document of an unknown path or method, or of a refused body."""
    status = error.status_code
    detail = _HTTP_DETAILS.get(status, error.detail).replace("{method}", scope["method"])
    response = problem_response(scope, status, HTTP_CODES.get(status, "http_error"), detail)
    response.headers.update(error.headers or {})
    return response
