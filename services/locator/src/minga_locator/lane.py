"""The lane for what is asked all the time: look-ups of a name, and placements.

FastAPI spends three times as long on such a request as the answer needs. So a request that is plainly valid is answered
here, with bytes that are put together by hand; anything unusual goes on to its route as it came, which is the one home
of refusals, documentation and the OpenAPI document. Limits, measurements and traces stand around both.
"""

import re
from urllib.parse import unquote_to_bytes

from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minga_core.errors import InvalidNameError, MingaError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name
from minga_locator.answering import found_file, placed
from minga_locator.encoding import placements_body
from minga_locator.models import PlacementRequest
from minga_locator.problems import problem_of
from minga_locator.state import LocatorState

_FILES = "/v1/files/"
_PLACEMENTS = "/v1/placements"
_PINNED = re.compile(rb"content_id=b3(?::|%3[Aa])([0-9a-f]{64})")
_JSON = [b"application/json"]


class Lane:
    """ASGI middleware, the innermost.

    look_up, place: the routes of these requests, under which they are measured.
    """

    def __init__(self, app: ASGIApp, state: LocatorState, look_up: APIRoute, place: APIRoute) -> None:
        self._app = app
        self._state = state
        self._look_up_route = look_up
        self._place_route = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "http" and not scope.get("root_path"):
            path, method = scope["path"], scope["method"]
            if method == "GET" and path.startswith(_FILES):
                if (wanted := _plain_look_up(scope)) is not None:
                    scope["route"] = self._look_up_route
                    await self._look_up(scope, receive, send, *wanted)
                    return
            elif method == "POST" and path == _PLACEMENTS and _is_json(scope):
                await self._place(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _look_up(self, scope: Scope, receive: Receive, send: Send, name: Name, pinned: ContentId | None) -> None:
        try:
            file = await found_file(self._state, name, pinned)
        except MingaError as error:
            await problem_of(scope, error)(scope, receive, send)
            return
        await _send_json(send, file.body())

    async def _place(self, scope: Scope, receive: Receive, send: Send) -> None:
        first: Message | HTTPException
        try:
            first = await receive()
        except HTTPException as error:
            first = error
        wanted = _plain_placement(first)
        if wanted is None:
            await self._app(scope, _Again(first, receive).receive, send)
            return
        scope["route"] = self._place_route
        try:
            peers = await placed(self._state, wanted)
        except MingaError as error:
            await problem_of(scope, error)(scope, receive, send)
            return
        await _send_json(send, placements_body(peers))


class _Again:
    """Gives what has been received already once more, then the rest."""

    def __init__(self, first: Message | HTTPException, receive: Receive) -> None:
        self._first: Message | HTTPException | None = first
        self._receive = receive

    async def receive(self) -> Message:
        first, self._first = self._first, None
        if isinstance(first, HTTPException):
            raise first
        return await self._receive() if first is None else first


def _plain_look_up(scope: Scope) -> tuple[Name, ContentId | None] | None:
    """What is asked for, or None when that is not plain."""
    query, raw_path = scope["query_string"], scope.get("raw_path")
    pinned = None
    if query:
        found = _PINNED.fullmatch(query)
        if found is None:
            return None
        pinned = ContentId(bytes.fromhex(found[1].decode()))
    try:
        if raw_path is None or b"%" in raw_path:
            # What is no UTF-8 was replaced in `path`.
            unquote_to_bytes(raw_path or b"\xff").decode()
        return parse_name(scope["path"][len(_FILES) :]), pinned
    except (UnicodeDecodeError, InvalidNameError):
        return None


def _is_json(scope: Scope) -> bool:
    return [value for name, value in scope["headers"] if name == b"content-type"] == _JSON and not scope["query_string"]


def _plain_placement(first: Message | HTTPException) -> PlacementRequest | None:
    """What is asked for, or None when the body is not valid, or has not come whole."""
    if isinstance(first, HTTPException) or first["type"] != "http.request" or first.get("more_body", False):
        return None
    try:
        return PlacementRequest.model_validate_json(first.get("body", b""))
    except ValidationError:
        return None


async def _send_json(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
