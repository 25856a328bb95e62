"""Between our errors and gRPC's: the server's interceptor, and the client's way back.

An error travels as its status, its sentence as the details, and its code with whatever else it carries in trailing
metadata (`minga-code`, `minga-hint`, `minga-retry-after-ms`, `minga-owner-address`).
"""

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio

from minga_core.errors import (
    WIRE_STATUS,
    BusyError,
    Code,
    InternalError,
    LeaseSupersededError,
    MingaError,
    UnavailableError,
    error_from_code,
)

log = logging.getLogger(__name__)

CODE_KEY = "minga-code"
HINT_KEY = "minga-hint"
RETRY_AFTER_KEY = "minga-retry-after-ms"
OWNER_KEY = "minga-owner-address"

# What gRPC itself reports when the other side is not there or does not answer.
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_BY_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: Code.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE: Code.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Code.LIMIT_EXCEEDED,
}


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
        method = details.method.rpartition("/")[2]
        if handler.response_streaming:
            wrapped: Any = self._streaming(handler.unary_stream or handler.stream_stream, method)
        else:
            wrapped = self._unary(handler.unary_unary or handler.stream_unary, method)
        kind = ("stream" if handler.request_streaming else "unary", "stream" if handler.response_streaming else "unary")
        make = getattr(grpc, f"{kind[0]}_{kind[1]}_rpc_method_handler")
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _unary(self, behaviour: Callable[..., Any], method: str) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            with _Outcome(self._observer, method) as outcome:
                try:
                    return await behaviour(request, context)
                except Exception as error:  # noqa: BLE001 - told to the caller and the log by `abort`
                    await outcome.abort(error, context)

        return call

    def _streaming(self, behaviour: Callable[..., Any], method: str) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            with _Outcome(self._observer, method) as outcome:
                responses = behaviour(request, context)
                if not inspect.isasyncgen(responses):
                    # The reader-writer style of health and reflection: nothing is yielded, errors are their own.
                    await responses
                    return
                try:
                    async for response in responses:
                        yield response
                except Exception as error:  # noqa: BLE001 - told to the caller and the log by `abort`
                    await outcome.abort(error, context)
                finally:
                    # Without this a cancelled call would leave the generator to the garbage collector.
                    await responses.aclose()

        return call


class _Outcome:
    """How one RPC ended, told to the observer at the end of the block."""

    def __init__(self, observer: RpcObserver, method: str) -> None:
        self._observer = observer
        self._method = method
        self._code = grpc.StatusCode.OK.name

    def __enter__(self) -> "_Outcome":
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self._code = grpc.StatusCode.CANCELLED.name
        self._observer.rpc_ended(self._method, self._code, time.perf_counter() - self._started)

    async def abort(self, error: Exception, context: Any) -> NoReturn:
        """Ends the call with the error's status."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        known = error if isinstance(error, MingaError) else _bug(error, self._method)
        status = grpc.StatusCode[WIRE_STATUS[known.code].grpc]
        self._code = status.name
        await context.abort(status, str(known), _metadata_of(known))
        raise AssertionError("abort raises")


def _bug(error: Exception, method: str) -> InternalError:
    log.error("rpc_failed", exc_info=error, extra={"fields": {"method": method}})
    return InternalError("internal error; the server's log has the details")


def _metadata_of(error: MingaError) -> tuple[tuple[str, str], ...]:
    pairs = [(CODE_KEY, error.code.value)]
    if error.hint:
        pairs.append((HINT_KEY, error.hint.encode("ascii", "replace").decode()))
    if isinstance(error, BusyError):
        pairs.append((RETRY_AFTER_KEY, str(int(error.retry_after / timedelta(milliseconds=1)))))
    if isinstance(error, LeaseSupersededError):
        pairs.append((OWNER_KEY, error.owner_address))
    return tuple(pairs)


def error_from_rpc(error: grpc.aio.AioRpcError, unavailable: type[UnavailableError] = UnavailableError) -> MingaError:
    """Our error for a failed call. `unavailable` is raised for a server that is away, or too slow."""
    metadata = {str(key): value for key, value in (error.trailing_metadata() or ())}
    code = metadata.get(CODE_KEY)
    details = error.details() or error.code().name
    if isinstance(code, str):
        return _from_metadata(code, details, metadata, unavailable)
    if error.code() in _AWAY:
        return unavailable(_one_line(details))
    known = _BY_STATUS.get(error.code(), Code.INTERNAL)
    return error_from_code(known.value, _one_line(details))


def _from_metadata(
    code: str, details: str, metadata: dict[str, Any], unavailable: type[UnavailableError]
) -> MingaError:
    if code == Code.STORE_UNAVAILABLE:
        return unavailable(details)
    millis = metadata.get(RETRY_AFTER_KEY, "")
    retry_after = timedelta(milliseconds=int(millis)) if isinstance(millis, str) and millis.isdigit() else None
    found = error_from_code(code, details, retry_after=retry_after, owner_address=str(metadata.get(OWNER_KEY, "")))
    found.hint = str(metadata.get(HINT_KEY, ""))
    return found


def _one_line(text: str) -> str:
    """gRPC's own details without line breaks, cut to a length that people read."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:200] + "…"
