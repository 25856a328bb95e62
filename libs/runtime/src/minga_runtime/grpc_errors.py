"""Between our errors and gRPC's: the server's interceptor, and the client's way back.

An error travels as its status, its sentence as the details, and its code with whatever else it carries in trailing
metadata (`minga-code`, `minga-hint`, `minga-retry-after-ms`, `minga-owner-address`).
"""

import asyncio
import contextlib
import inspect
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio

from minga_core.errors import (
    WIRE_STATUS,
    BusyError,
    Code,
    InternalError,
    InvalidArgumentError,
    LeaseSupersededError,
    MingaError,
    UnavailableError,
    error_from_code,
)
from minga_runtime import tracing
from minga_runtime.grpc_tracing import record_rpc_end, start_rpc_span

log = logging.getLogger(__name__)

CODE_KEY = "minga-code"
HINT_KEY = "minga-hint"
RETRY_AFTER_KEY = "minga-retry-after-ms"
OWNER_KEY = "minga-owner-address"

MAX_DETAILS = 1_000
"""Characters of a sentence that travel; gRPC refuses more than 8 KiB of metadata in all."""
_MAX_SHOWN = 400
_BUSY_RETRY = timedelta(seconds=1)

# What gRPC itself reports when the other side is not there or does not answer.
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_BY_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: Code.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE: Code.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Code.LIMIT_EXCEEDED,
}
# A context tells its code as a number, or as None when nobody set one.
_STATUS_NAMES: dict[Any, str] = {status.value[0]: status.name for status in grpc.StatusCode}
_STATUS_NAMES |= {status: status.name for status in grpc.StatusCode}


class RpcObserver(Protocol):
    """Hears of each RPC that ended."""

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """method: the RPC's bare name; code: name of a `grpc.StatusCode`."""
        ...


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns errors of handlers into statuses, and tells an observer how each RPC ended.

    An error that is none of ours is a bug: it is logged here, once, with its traceback, and the caller is told no more
    than that. Cancellation passes through.
    """

    def __init__(self, observer: RpcObserver) -> None:
        self._observer = observer

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(details)
        if handler is None:
            return None
        if handler.response_streaming:
            wrapped: Any = self._streaming(handler.unary_stream or handler.stream_stream, details.method)
        else:
            wrapped = self._unary(handler.unary_unary or handler.stream_unary, details.method)
        kind = ("stream" if handler.request_streaming else "unary", "stream" if handler.response_streaming else "unary")
        make = getattr(grpc, f"{kind[0]}_{kind[1]}_rpc_method_handler")
        return make(wrapped, _lenient(handler.request_deserializer), handler.response_serializer)

    def _unary(self, behaviour: Callable[..., Any], method: str) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            with _Outcome(self._observer, method, context) as outcome:
                try:
                    async with _well_formed(request) as checked:
                        return await behaviour(checked, context)
                except Exception as error:  # noqa: BLE001 - told to the caller and the log by `abort`
                    await outcome.abort(error)

        return call

    def _streaming(self, behaviour: Callable[..., Any], method: str) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            with _Outcome(self._observer, method, context) as outcome:
                try:
                    async with (
                        _well_formed(request) as checked,
                        contextlib.aclosing(_responses(behaviour(checked, context))) as responses,
                    ):
                        async for response in responses:
                            yield response
                except Exception as error:  # noqa: BLE001 - told to the caller and the log by `abort`
                    await outcome.abort(error)

        return call


class _Malformed:
    """In place of a request whose bytes are no message of its type."""


_MALFORMED = _Malformed()


def _lenient(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """The same, but for bytes that are no such message, which are told apart later: what raises here ends the call
    with UNKNOWN, and is logged with a traceback, as if it were a bug."""
    if deserialize is None:
        return None

    def lenient(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception:  # noqa: BLE001 - whatever it is that the bytes are not
            return _MALFORMED

    return lenient


class _well_formed:  # noqa: N801 - used as a function
    """A request, or a stream of them that is checked as it is read: InvalidArgumentError where it is malformed.

    The stream is closed at the end of the block; what a handler leaves unread would else go with the garbage, which may
    be after the loop's end.
    """

    def __init__(self, request: Any) -> None:
        self._request = request

    async def __aenter__(self) -> Any:
        if not hasattr(self._request, "__aiter__"):
            return _checked(self._request)
        self._request = aiter(self._request)
        return _Requests(self._request.__anext__)

    async def __aexit__(self, *exc: object) -> None:
        if hasattr(self._request, "aclose"):
            # Running: somebody else reads it, and is about to be cancelled.
            with contextlib.suppress(RuntimeError):
                await self._request.aclose()


class _Requests:
    """A stream of requests, each checked."""

    def __init__(self, read: Callable[[], Awaitable[Any]]) -> None:
        self._read = read

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Any:
        return _checked(await self._read())


def _checked(request: Any) -> Any:
    if request is _MALFORMED:
        raise InvalidArgumentError("the bytes of the request are no message of its type")
    return request


async def _responses(made: Any) -> AsyncGenerator[Any, None]:
    """What a streaming handler sends: it is a generator, or writes to its context itself and sends nothing here."""
    if not inspect.isasyncgen(made):
        await made
        return
    # Without closing, a cancelled call would leave the generator to the garbage collector.
    async with contextlib.aclosing(made):
        async for response in made:
            yield response


class _Outcome:
    """How one RPC ended, told to the observer and the RPC's span at the end of the block. path: `/service/Method`."""

    def __init__(self, observer: RpcObserver, path: str, context: Any) -> None:
        self._observer = observer
        self._method = path.rpartition("/")[2]
        self._context = context
        self._span = start_rpc_span(path, context)
        self._current = tracing.use(self._span)

    def __enter__(self) -> "_Outcome":
        self._started = time.perf_counter()
        self._current.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        code = _STATUS_NAMES.get(self._context.code(), "OK")
        if kind is not None and (code == "OK" or issubclass(kind, asyncio.CancelledError | GeneratorExit)):
            code = grpc.StatusCode.CANCELLED.name
        self._observer.rpc_ended(self._method, code, time.perf_counter() - self._started)
        record_rpc_end(self._span, code)
        self._current.__exit__(None, None, None)

    async def abort(self, error: Exception) -> NoReturn:
        """Ends the call with the error's status."""
        # gRPC's own: the handler aborted by itself, or the server was stopped under it.
        if isinstance(error, grpc.aio.BaseError):
            raise error
        known = error if isinstance(error, MingaError) else _bug(error, self._method)
        status = grpc.StatusCode[WIRE_STATUS[known.code].grpc]
        await self._context.abort(status, str(known)[:MAX_DETAILS], _metadata_of(known))
        raise AssertionError("abort raises")


def _bug(error: Exception, method: str) -> InternalError:
    log.error("rpc_failed", exc_info=error, extra={"fields": {"method": method}})
    return InternalError("internal error; the server's log has the details")


def _metadata_of(error: MingaError) -> tuple[tuple[str, str], ...]:
    pairs = [(CODE_KEY, error.code.value)]
    if error.hint:
        pairs.append((HINT_KEY, error.hint[:MAX_DETAILS].encode("ascii", "replace").decode()))
    if isinstance(error, BusyError):
        pairs.append((RETRY_AFTER_KEY, str(int(error.retry_after / timedelta(milliseconds=1)))))
    if isinstance(error, LeaseSupersededError):
        pairs.append((OWNER_KEY, error.owner_address))
    return tuple(pairs)


def error_from_rpc(error: grpc.aio.AioRpcError, unavailable: type[UnavailableError] = UnavailableError) -> MingaError:
    """Our error for a failed call. `unavailable` is raised for a server that is away, slow, or without its store."""
    metadata = {str(key): value for key, value in (error.trailing_metadata() or ())}
    details = _one_line(error.details() or error.code().name)
    code = metadata.get(CODE_KEY)
    if isinstance(code, str):
        return _from_metadata(code, details, metadata, unavailable)
    if error.code() in _AWAY or (error.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in details):
        return unavailable(_away(error.code(), details))
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "oncurrent" in details:
        return BusyError("too many calls at once", retry_after=_BUSY_RETRY)
    known = _BY_STATUS.get(error.code(), Code.INTERNAL)
    return error_from_code(known.value, details)


def _from_metadata(
    code: str, details: str, metadata: dict[str, Any], unavailable: type[UnavailableError]
) -> MingaError:
    hint = _one_line(str(metadata.get(HINT_KEY, "")))
    if code in (Code.STORE_UNAVAILABLE, Code.UNAVAILABLE):
        return unavailable(details, hint=hint)
    millis = str(metadata.get(RETRY_AFTER_KEY, ""))
    # At most nine digits: what a hostile server says must not overflow.
    retry_after = timedelta(milliseconds=int(millis)) if re.fullmatch("[0-9]{1,9}", millis) else None
    found = error_from_code(code, details, retry_after=retry_after, owner_address=str(metadata.get(OWNER_KEY, "")))
    found.hint = hint
    return found


def _away(code: grpc.StatusCode, details: str) -> str:
    """What people want to know of gRPC's account of a connection that failed."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    reason = details.rpartition("last error: ")[2]
    for known in ("Connection refused", "No such file or directory", "No route to host", "Connection reset by peer"):
        if known in reason:
            return f"cannot connect: {known}"
    return reason


def _one_line(text: str) -> str:
    """A remote's words without line breaks and terminal escapes, cut to a length that people read."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _MAX_SHOWN else line[:_MAX_SHOWN] + "…"
