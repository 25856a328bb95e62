"""gRPC calls as spans, and their traceparents in metadata.

Without interceptors: those of grpc.aio cost something for every message of a stream and change how streams are written
to; here a call is touched at its start and at its end.
"""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from opentelemetry.trace import INVALID_SPAN, Span

from minga_runtime import tracing
from minga_runtime.tasks import TaskOwner
from minga_runtime.tracing import TRACEPARENT

UNTRACED = frozenset({"Check", "Watch", "ServerReflectionInfo", "Register", "Leave", "KeepLease"})
"""Calls that check health, keep a lease, or last as long as both sides run: no part of a command's work."""

# The codes that count as a server's errors (https://opentelemetry.io/docs/specs/semconv/rpc/grpc).
_SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


def traced_channel(channel: grpc.aio.Channel, target: str) -> grpc.aio.Channel:
    """The same channel; where traces are on, its calls become client spans. target: as for `make_channel`."""
    if tracing.enabled():
        calls = _TracedCalls(target)
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            setattr(channel, kind, calls.traced(getattr(channel, kind)))
    return channel


class _TracedCalls:
    """Wraps the methods of one channel, and ends the spans of its calls."""

    def __init__(self, target: str) -> None:
        self._server = _server_attributes(target)
        self._watchers = TaskOwner()

    def traced(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a method such as `Channel.unary_unary`, which makes a callable for one RPC."""

        def made(path: str, *arguments: Any, **options: Any) -> Any:
            call = make(path, *arguments, **options)
            if path.rpartition("/")[2] in UNTRACED:
                return call
            return self._spanned(call, path.lstrip("/"))

        return made

    def _spanned(self, make_call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            span = tracing.start_client_span(name, {"rpc.system.name": "grpc", "rpc.method": name, **self._server})
            made = make_call(*arguments, **_with(options, tracing.traceparent_of(span)))
            if span is not INVALID_SPAN:
                self._watchers.start(_end_with(made, span), "trace-rpc")
            return made

        return call


def _with(options: dict[str, Any], traceparent: str) -> dict[str, Any]:
    """The options of a call with a traceparent added to its metadata, unless that is empty."""
    if not traceparent:
        return options
    return options | {"metadata": (*(options.get("metadata") or ()), (TRACEPARENT, traceparent))}


async def _end_with(call: Any, span: Span) -> None:
    """End the span when the call ends, whose messages another task reads."""
    code = grpc.StatusCode.CANCELLED
    try:
        code = await call.code()
    finally:
        span.set_attribute("rpc.response.status_code", code.name)
        # A call that is cancelled here has given its caller all it wanted.
        if code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
            tracing.record_error(span, code.name)
        span.end()


def _server_attributes(target: str) -> dict[str, str | int]:
    if target.startswith("unix:"):
        return {"server.address": target.removeprefix("unix:"), "network.transport": "unix"}
    host, _, port = target.rpartition(":")
    return {"server.address": host.strip("[]"), "server.port": int(port)}


def start_rpc_span(path: str, context: Any) -> Span:
    """Start the span of a served call. path: `/service/Method`."""
    if not tracing.enabled() or path.rpartition("/")[2] in UNTRACED:
        return INVALID_SPAN
    caller = next((str(value) for key, value in context.invocation_metadata() or () if key == TRACEPARENT), "")
    name = path.lstrip("/")
    return tracing.start_server_span(name, caller, {"rpc.system.name": "grpc", "rpc.method": name})


def record_rpc_end(span: Span, code: str) -> None:
    """Record how a served call ended. code: name of a `grpc.StatusCode`."""
    if span.is_recording():
        span.set_attribute("rpc.response.status_code", code)
        if code in _SERVER_ERRORS:
            tracing.record_error(span, code)
