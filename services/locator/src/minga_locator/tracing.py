"""Requests as spans, and their calls to Redis as spans below them. The only module here that knows of traces.

With traces off (the default) nothing here is on a request's way.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minga_directory.directory import DirectoryReader
from minga_locator.middleware import route_of
from minga_runtime import tracing
from minga_runtime.tracing import TRACEPARENT


def middleware() -> list[Middleware]:
    """The outermost middleware: a span for each request when traces are on, else none."""
    return [Middleware(_TracedRequests)] if tracing.enabled() else []


def traced_reader(reader: DirectoryReader) -> DirectoryReader:
    """The reader, with a span for each of its calls when traces are on."""
    return cast(DirectoryReader, _TracedReader(reader)) if tracing.enabled() else reader


class _TracedRequests:
    """ASGI middleware. Probes and scrapes get no span: they would be most of all spans."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"]
        attributes = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        with tracing.use(tracing.start_server_span(method, _traceparent_of(scope), attributes)) as span:
            await self._app(scope, receive, sending)
            route = route_of(scope)
            span.update_name(f"{method} {route}")
            span.set_attributes(tracing.present({"http.route": route, "http.response.status_code": status or None}))
            if status >= 500:
                tracing.record_error(span, str(status))


def _traceparent_of(scope: Scope) -> str:
    """The request's traceparent; empty when there are none or several."""
    found = [value for name, value in scope["headers"] if name == TRACEPARENT.encode()]
    return found[0].decode("ascii", "replace") if len(found) == 1 else ""


class _TracedReader:
    """Implements DirectoryReader over another one. Every attribute of the port is a coroutine function."""

    def __init__(self, reader: DirectoryReader) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._reader, name)

        async def traced(*arguments: Any, **options: Any) -> Any:
            attributes = {"db.system.name": "redis", "db.operation.name": name}
            with tracing.use(tracing.start_client_span(f"redis {name}", attributes)):
                return await method(*arguments, **options)

        return traced
