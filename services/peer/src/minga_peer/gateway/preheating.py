"""`POST /preheat`: have peers fetch something ahead of time, and say how it goes as long as it goes."""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from starlette.types import Receive, Scope, Send

from minga_core.errors import InvalidArgumentError, PeerUnavailableError
from minga_core.names import parse_name
from minga_engine.transfer.preheat import Preheater, PreheatRequest
from minga_engine.transfer.preheat_items import parse_choice, parse_item
from minga_engine.transfer.preheated import Preheated
from minga_peer.gateway.rights import check_publish
from minga_peer.gateway.sending import disconnected, raw_headers
from minga_runtime.quotas import Quota
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.callers import Caller
from minga_runtime.web.members import caller_of, origin_of

MAX_REQUESTS = 32
"""At once, half of them of one host."""
MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0
LINE_SECONDS = 1.0
MAX_SECONDS = 7 * 24 * 3600
ORIGINS = parse_name("origins")
_HEADERS = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}


_DEFAULTS: dict[str, Any] = {
    "item": "",
    "on": "all",
    "platform": "",
    "pin": False,
    "overwrite": False,
    "timeout_seconds": 3600,
}


@dataclass(frozen=True, slots=True)
class Preheating:
    """Answers `POST /preheat`."""

    preheater: Preheater
    audit: Audit
    quota: Quota = field(default_factory=lambda: Quota("preheats", MAX_REQUESTS))

    async def post(self, rest: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Lines of JSON: how far it is, each second, and in the last line how it went on each peer. A client that goes
        away ends it. Raises MingaError before the first line."""
        with self.quota.held(caller_of(scope)):
            request = _parse(await _body(receive))
            check_publish(caller, ORIGINS if request.item.name is None else request.item.name)
            # The peers know this one alone. A query may be a signature.
            item = request.item.text.partition("?")[0]
            self.audit.record("gateway_preheat", origin_of(scope), item=item, grant=caller.grant)
            latest: list[Preheated] = []
            working = asyncio.create_task(
                self.preheater.preheat(request, lambda now: latest.__setitem__(slice(1), [now]))
            )
            gone = asyncio.create_task(disconnected(receive), name="gateway-disconnected")
            try:
                await _answer(working, gone, latest, send)
            finally:
                for task in (working, gone):
                    task.cancel()
                await asyncio.gather(working, gone, return_exceptions=True)


async def _answer(
    working: "asyncio.Task[Preheated]", gone: "asyncio.Task[None]", latest: list[Preheated], send: Send
) -> None:
    begun = False
    while not working.done():
        await asyncio.wait((working, gone), timeout=LINE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            return
        if latest and not working.done():
            if not begun:
                await send({"type": "http.response.start", "status": 200, "headers": raw_headers(_HEADERS)})
                begun = True
            await send({"type": "http.response.body", "body": _line(latest[0].progress()), "more_body": True})
    last = _line(working.result().document())
    if not begun:
        await send({"type": "http.response.start", "status": 200, "headers": raw_headers(_HEADERS)})
    await send({"type": "http.response.body", "body": last})


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


def _parse(body: bytes) -> PreheatRequest:
    """Raises InvalidArgumentError, InvalidNameError."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.keys() - _DEFAULTS:
        raise InvalidArgumentError(f"the body is a JSON object with {', '.join(_DEFAULTS)}")
    asked = _DEFAULTS | found
    for name, default in _DEFAULTS.items():
        if type(asked[name]) is not type(default):
            raise InvalidArgumentError(f"{name} is wanted as {default!r} is")
    if not 0 < asked["timeout_seconds"] <= MAX_SECONDS:
        raise InvalidArgumentError(f"timeout_seconds is 1 to {MAX_SECONDS:,}")
    return PreheatRequest(
        parse_item(asked["item"]),
        parse_choice(asked["on"]),
        asked["platform"],
        asked["pin"],
        asked["overwrite"],
        timedelta(seconds=asked["timeout_seconds"]),
    )


async def _body(receive: Receive) -> bytes:
    """The whole body. Raises InvalidArgumentError for one that is too large or late."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise PeerUnavailableError("the client has gone")
                data += message.get("body", b"")
                if len(data) > MAX_BODY_BYTES:
                    raise InvalidArgumentError(f"a body has at most {MAX_BODY_BYTES:,} bytes")
                if not message.get("more_body", False):
                    return bytes(data)
    except TimeoutError:
        raise InvalidArgumentError(f"the body did not come within {BODY_SECONDS:g} s") from None
