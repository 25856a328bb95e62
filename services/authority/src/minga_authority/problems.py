"""Answers over HTTP: JSON, and errors as `application/problem+json` (RFC 9457), as the locator has them."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from minga_core.errors import WIRE_STATUS, BusyError, MingaError


class HttpError(Exception):
    """What HTTP itself refuses. code: stable, for programs."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


def answer(body: Mapping[str, Any]) -> bytes:
    """A good answer, as bytes of a connection."""
    return _response(200, "application/json", json.dumps(body).encode())


def text_answer(text: str, media_type: str = "text/plain") -> bytes:
    """A good answer that is text."""
    return _response(200, media_type, text.encode())


def problem(path: str, error: MingaError | HttpError) -> tuple[int, bytes]:
    """The status, and the answer, that an error becomes."""
    status, code = (error.status, error.code) if isinstance(error, HttpError) else _wire(error)
    # The hint is part of the sentence: the one who reads it has no other place for it.
    hint = f" ({error.hint})" if isinstance(error, MingaError) and error.hint else ""
    found: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": f"{error}{hint}",
        "instance": path,
        "code": code,
    }
    headers = ""
    if isinstance(error, BusyError):
        seconds = found["retry_after_seconds"] = math.ceil(error.retry_after.total_seconds())
        headers = f"Retry-After: {seconds}\r\n"
    return status, _response(status, "application/problem+json", json.dumps(found).encode(), headers)


def _wire(error: MingaError) -> tuple[int, str]:
    return WIRE_STATUS[error.code].http, error.code.value


def _response(status: int, media_type: str, body: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {media_type}\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
