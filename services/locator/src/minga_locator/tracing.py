"""Requests as spans, and what they ask of Redis as spans below them. In the app only where traces are on."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minga_directory.ports import DirectoryReader
from minga_locator.watch import route_of
from minga_runtime import tracing
from minga_runtime.tracing import TRACEPARENT

_TRACED = "/v1/"


class TracedRequests:
    """ASGI middleware, the outermost. Probes and scrapes are no traces."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http" or not scope["path"].startswith(_TRACED):
            await self._app(scope, receive, send)
            return
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"]
        about = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope.get("scheme", "http")}
        with tracing.served(method, _traceparent_of(scope), about) as span:
            await self._app(scope, receive, sending)
            route = route_of(scope)
            span.rename(f"{method} {route}")
            span.set({"http.route": route, "http.response.status_code": status or None})
            if status >= 500:
                span.fail(str(status))


def _traceparent_of(scope: Scope) -> str:
    """As it came; two of them are as good as none."""
    found = [value for name, value in scope["headers"] if name == TRACEPARENT.encode()]
    return found[0].decode("ascii", "replace") if len(found) == 1 else ""


def traced_reader(reader: DirectoryReader) -> DirectoryReader:
    """The reader, each of its questions a span."""
    return cast(DirectoryReader, _TracedReader(reader))


class _TracedReader:
    """Passes everything on. What takes time are the port's coroutines."""

    def __init__(self, reader: DirectoryReader) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._reader, name)
        return _asking(name, found) if callable(found) else found


def _asking(name: str, ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def asked(*arguments: Any, **options: Any) -> Any:
        with tracing.call(f"redis {name}", {"db.system.name": "redis", "db.operation.name": name}):
            return await ask(*arguments, **options)

    return asked
