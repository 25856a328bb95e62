"""Errors as `application/problem+json` (RFC 9457)."""

import json
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import Scope

from minga_core.errors import WIRE_STATUS, MingaError
from minga_runtime.web.problems import MEDIA_TYPE, retry_after_seconds


def problem(scope: Scope, status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An answer that says what is wrong."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, {"Cache-Control": "no-store"} | (headers or {}), MEDIA_TYPE)


def error_response(scope: Scope, error: MingaError) -> Response:
    """The answer to a request that one of our errors has ended."""
    wire = WIRE_STATUS[error.code]
    headers = {}
    if (seconds := retry_after_seconds(error)) is not None:
        headers["Retry-After"] = str(seconds)
    if wire.http == HTTPStatus.UNAUTHORIZED:
        # Browsers and `curl -u` ask for a password, which is the grant.
        headers["WWW-Authenticate"] = 'Basic realm="Minga: the grant is the password", charset="UTF-8"'
    hint = f" ({error.hint})" if error.hint else ""
    return problem(scope, wire.http, error.code.value, f"{error}{hint}", headers)
