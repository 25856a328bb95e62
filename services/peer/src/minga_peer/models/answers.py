"""Answers of the mirror, as clients of the hub read them."""

import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from minga_core.errors import InvalidArgumentError, MingaError, NotFoundError
from minga_peer.gateway.files import CONTENT_CSP
from minga_peer.gateway.selecting import Selected, Version
from minga_peer.models.hub import ApiAnswer, Described

_LINK = re.compile(r"<([^<>]{1,8192})>((?:\s*;[^,<>]*)*)")
_NO_BODY = ("content-disposition", "content-type", "last-modified")


def refusal(error: MingaError) -> Response:
    """The answer when something failed: never 401 or 403, which would say something of the client's token, and 503
    for what may be there: a client goes on with what it has cached."""
    status = 404 if isinstance(error, (NotFoundError, InvalidArgumentError)) else 503
    headers = {"X-Error-Message": re.sub(r"[^ -~]+", " ", str(error))[:500], "Cache-Control": "no-store"}
    return Response(json.dumps({"error": str(error)}), status, headers, "application/json")


def refused_headers(described: Described) -> dict[str, str]:
    """The headers of the hub's own refusal: `X-Error-Code` says which, `X-Repo-Commit` of what commit."""
    return {name: value for name, value in described.headers.items() if name not in (*_NO_BODY, "etag")}


def file_headers(described: Described, version: Version, selected: Selected, source: str) -> dict[str, str]:
    """The headers of a file, which say all that the hub does, in one answer."""
    found = dict(described.headers) | {"Accept-Ranges": "bytes", "X-Minga-Source": source}
    found["Content-Security-Policy"] = CONTENT_CSP
    if version.etag:
        found["etag"] = version.etag
    found |= selected.range_headers(version)
    if selected.status in (304, 412):
        return {name: value for name, value in found.items() if name not in _NO_BODY}
    if selected.has_content:
        found.setdefault("content-type", "application/octet-stream")
    return found


def api_answer(answer: ApiAnswer, hub: str, own: str, *, body: bool) -> Response:
    """An answer of the API without what leads a client past the mirror. own: the URL that stands for the hub's."""
    headers = {name: value for name, value in answer.headers.items() if name != "etag"}
    headers["Content-Security-Policy"] = CONTENT_CSP
    data = _without_xet(answer.body) if "json" in headers.get("content-type", "") else answer.body
    if link := _links(answer.link, hub, own):
        headers["Link"] = link
    return Response(data if body else None, answer.status, headers)


def _without_xet(body: bytes) -> bytes:
    """JSON without the hashes with which clients go to another service for the bytes."""
    if b"xetHash" not in body:
        return body
    try:
        return json.dumps(_stripped(json.loads(body)), separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return body


def _stripped(value: Any) -> Any:
    if isinstance(value, list):
        return [_stripped(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _stripped(each) for key, each in value.items() if key != "xetHash"}
    return value


def _links(header: str, hub: str, own: str) -> str:
    """The pages of a list, at this mirror."""
    found = [
        f"<{own}{target.removeprefix(hub)}>{parameters}"
        for target, parameters in _LINK.findall(header)
        if target.startswith(f"{hub}/") and "xet" not in parameters
    ]
    return ", ".join(found)
