"""gRPC calls as spans, and their traceparents in metadata. Without an interceptor: those of grpc.aio cost something for
every message of a stream, and change how streams are written to; here a call is touched at its begin and its end."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import grpc
import grpc.aio

from minga_runtime import tracing
from minga_runtime.tracing import NO_SPAN, TRACEPARENT, NoSpan, Span, parse_traceparent

UNTRACED = frozenset(
    {"Check", "Watch", "ServerReflectionInfo", "Register", "Leave", "Heartbeat", "KeepLease", "WatchChunks"}
)
"""Calls that ask how somebody is, keep a lease, or stand as long as both sides live: no part of anybody's work."""
PASSED_ON = frozenset({"FetchChunks"})
"""Calls that come by the hundred, one for each chunk: the span that they belong to is sent along, and whoever serves
them makes one span of many."""

_MADE = frozenset({"unary_unary", "unary_stream", "stream_unary", "stream_stream"})
# What the convention (opentelemetry.io/docs/specs/semconv/rpc/grpc) takes for an error of the server's.
_SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


def traced_channel(channel: grpc.aio.Channel, target: str) -> grpc.aio.Channel:
    """The channel, its calls traced; the channel itself where there are no traces. target: as for `make_channel`."""
    return cast(grpc.aio.Channel, _TracedChannel(channel, target)) if tracing.enabled() else channel


class _TracedChannel:
    """A channel whose calls are spans."""

    def __init__(self, channel: grpc.aio.Channel, target: str) -> None:
        self._channel = channel
        self._server = _server_of(target)
        self._watches: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._channel, name)
        return self._making(found) if name in _MADE else found

    def _making(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def made(method: str, *arguments: Any, **options: Any) -> Any:
            inner = make(method, *arguments, **options)
            bare = method.rpartition("/")[2]
            if bare in UNTRACED:
                return inner
            return self._passing(inner) if bare in PASSED_ON else self._tracing(inner, method.lstrip("/"))

        return made

    def _passing(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            return inner(*arguments, **_with(options, tracing.traceparent()))

        return call

    def _tracing(self, inner: Callable[..., Any], method: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            span = tracing.call(method, {"rpc.system.name": "grpc", "rpc.method": method, **self._server})
            made = inner(*arguments, **_with(options, span.traceparent))
            if span.traceparent:
                self._watch(made, span)
            return made

        return call

    def _watch(self, call: Any, span: Span) -> None:
        task = asyncio.create_task(_until_done(call, span), name="trace-rpc")
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)


def _with(options: dict[str, Any], traceparent: str) -> dict[str, Any]:
    """The call's options, with a traceparent in its metadata if there is one."""
    if not traceparent:
        return options
    return options | {"metadata": (*(options.get("metadata") or ()), (TRACEPARENT, traceparent))}


async def _until_done(call: Any, span: Span) -> None:
    """Ends the span with the call, which somebody else reads."""
    code = grpc.StatusCode.CANCELLED
    try:
        code = await call.code()
    finally:
        span.set({"rpc.response.status_code": code.name})
        # Cancelled: by us, who have all we wanted.
        if code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
            span.fail(code.name)
        span.end()


def _server_of(target: str) -> dict[str, str | int]:
    if target.startswith("unix:"):
        return {"server.address": target.removeprefix("unix:"), "network.transport": "unix"}
    host, _, port = target.rpartition(":")
    return {"server.address": host.strip("[]"), "server.port": int(port)}


def served_rpc(method: str, context: Any) -> Span:
    """The span of a call that is served; its caller's, where many calls are one span. method: `/service/Method`."""
    if not tracing.enabled() or (bare := method.rpartition("/")[2]) in UNTRACED:
        return NO_SPAN
    caller = next((str(value) for key, value in context.invocation_metadata() or () if key == TRACEPARENT), "")
    if bare in PASSED_ON:
        return NoSpan(parse_traceparent(caller))
    name = method.lstrip("/")
    return tracing.served(name, caller, {"rpc.system.name": "grpc", "rpc.method": name})


def rpc_ended(span: Span, code: str) -> None:
    """How a served call ended. code: name of a `grpc.StatusCode`."""
    if span is NO_SPAN:
        return
    span.set({"rpc.response.status_code": code})
    if code in _SERVER_ERRORS:
        span.fail(code)
