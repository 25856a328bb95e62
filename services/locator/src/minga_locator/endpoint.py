"""One operation of the REST API: its declaration, and the ASGI app that parses, calls the handler and encodes.

A handler is a coroutine function of the state, of the path's parameters, and of `caller`, `origin`, `query` and `body`
where it has them. Its annotations name the structs that these are parsed into, and the one that is answered; the
OpenAPI document is made of the same.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, get_type_hints
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minga_core.errors import Code, InvalidArgumentError, InvalidNameError, StoreUnavailableError
from minga_locator.request_limits import RequestLimits
from minga_locator.state import LocatorState
from minga_runtime.web.members import caller_in, origin_of

MAX_DETAIL_LENGTH = 300
"""Characters of a parser's message that are shown: it may quote the request."""

Handler = Callable[..., Awaitable[msgspec.Struct | Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path, and the handler that answers it."""

    method: str
    path: str
    handler: Handler
    tag: str
    refusals: tuple[Code, ...] = ()
    """Codes that the handler itself refuses with."""
    hints: dict[str, Any] = field(init=False)
    """The handler's annotations: has it `caller`, `origin`; the structs of `query`, `body` and `return`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hints", get_type_hints(self.handler))


class Endpoint:
    """ASGI app that answers one operation. Raises MingaError and HTTPException for refusals."""

    def __init__(self, operation: Operation, state: LocatorState) -> None:
        self._handler = operation.handler
        self._query: type[msgspec.Struct] | None = operation.hints.get("query")
        self._body: type[msgspec.Struct] | None = operation.hints.get("body")
        self._takes_caller = "caller" in operation.hints
        self._takes_origin = "origin" in operation.hints
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, in `request_seconds` once the body has been read."""
        arguments = scope["path_params"]
        if self._takes_caller:
            arguments["caller"] = caller_in(scope)
        if self._takes_origin:
            arguments["origin"] = origin_of(scope)
        if "name" in arguments:
            _check_utf8(scope)
        if self._query is not None:
            arguments["query"] = _parsed_query(scope["query_string"], self._query)
        if self._body is not None:
            body = await _read_body(receive, self._state.limits)
            _check_json(scope)
            arguments["body"] = _parsed_body(body, self._body)
        try:
            async with asyncio.timeout(self._state.limits.request_seconds):
                answer = await self._handler(self._state, **arguments)
        except TimeoutError:
            raise StoreUnavailableError("the store did not answer in time") from None
        if isinstance(answer, Response):
            await answer(scope, receive, send)
            return
        encoded = msgspec.json.encode(answer)
        headers = [(b"content-length", b"%d" % len(encoded)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": encoded})


def _check_utf8(scope: Scope) -> None:
    """Raises InvalidNameError when the path's bytes are not UTF-8: in `path` the server has replaced those."""
    raw_path = scope["raw_path"]
    if b"%" not in raw_path:
        return
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise InvalidNameError("the name in the path is not valid UTF-8") from None


def _parsed_query(query_string: bytes, shape: type[msgspec.Struct]) -> msgspec.Struct:
    """Raises InvalidArgumentError for values out of range. Unknown parameters are ignored."""
    if not query_string:
        return shape()
    try:
        return msgspec.convert(dict(QueryParams(query_string)), shape, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgumentError(_detail(error)) from None


def _parsed_body(body: bytes, shape: type[msgspec.Struct]) -> msgspec.Struct:
    """Raises HTTPException 422 for a body that is no JSON object, InvalidArgumentError for values out of range."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        detail = _detail(error)
        if not isinstance(error, msgspec.ValidationError) or detail.startswith("Expected `object`"):
            raise HTTPException(422, f"the body is no JSON object: {detail}") from None
        raise InvalidArgumentError(detail) from None


def _detail(error: Exception) -> str:
    """msgspec's message, with the field's name first: "size_bytes: Expected `int` >= 0"."""
    message, _, field_name = str(error).partition(" - at `$.")
    text = f"{field_name.removesuffix('`')}: {message}" if field_name else message
    return text[:MAX_DETAIL_LENGTH]


async def _read_body(receive: Receive, limits: RequestLimits) -> bytes:
    """The whole body. Raises HTTPException 408 for one that is late, 413 for one that is too large."""
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > limits.max_body_bytes:
                    raise _closing(413, f"a body has at most {limits.max_body_bytes:,} bytes")
                if message["type"] == "http.disconnect":
                    raise _closing(408, "the connection ended before the body")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise _closing(408, f"the body did not come within {limits.body_seconds:g} s") from None


def _check_json(scope: Scope) -> None:
    """Raises HTTPException 422 when the body is not declared as JSON."""
    media_type = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    if not (media_type.startswith("application/") and media_type.endswith(("/json", "+json"))):
        raise HTTPException(422, "the body must have the content type application/json")


def _closing(status: int, detail: str) -> HTTPException:
    """A refusal that closes the connection: reading the rest of the body would cost more than a new connection."""
    return HTTPException(status, detail, {"Connection": "close"})
