"""Mapping between our errors and gRPC's statuses: the server's interceptor, and the reverse for clients.

An error is sent as its status, its sentence as the details, and its code and attributes in trailing metadata
(`minga-code`, `minga-hint`, `minga-retry-after-ms`, `minga-owner-address`, `minga-row-bin`, `minga-limit`).
"""

import asyncio
import contextlib
import inspect
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
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
    LimitExceededError,
    MingaError,
    RowRefusedError,
    UnavailableError,
    error_from_code,
)
from minga_runtime import tracing
from minga_runtime.grpc_tracing import record_rpc_end, start_rpc_span
from minga_runtime.trust.authorization import Access
from minga_runtime.trust.origin import Origin

log = logging.getLogger(__name__)

CODE_KEY = "minga-code"
HINT_KEY = "minga-hint"
RETRY_AFTER_KEY = "minga-retry-after-ms"
OWNER_KEY = "minga-owner-address"
ROW_KEY = "minga-row-bin"
LIMIT_KEY = "minga-limit"

MAX_DETAILS = 1_000
"""Characters of a sentence that are sent; gRPC refuses more than 8 KiB of metadata in all."""
_MAX_SHOWN = 400
_BUSY_RETRY = timedelta(seconds=1)

# Statuses that gRPC itself reports when the server is unreachable or does not answer.
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_BY_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: Code.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE: Code.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Code.LIMIT_EXCEEDED,
}
# What gRPC says of a certificate that it does not accept.
_TLS_PROBLEMS = {
    "Hostname Verification Check failed": "the server's certificate is not of who was named",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not valid, or not of the CA in MINGA_TLS_CA",
}
# A context has its code as a number, or None when none was set.
_STATUS_NAMES: dict[Any, str] = {status.value[0]: status.name for status in grpc.StatusCode}
_STATUS_NAMES |= {status: status.name for status in grpc.StatusCode}


class RpcObserver(Protocol):
    """Receives the end of each RPC."""

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """method: the RPC's bare name; code: name of a `grpc.StatusCode`."""
        ...


class RefusalObserver(Protocol):
    """Receives refusals; see `trust.refusals`, whose metrics clients do not load."""

    def record(self, error: MingaError, origin: Origin, action: str) -> None:
        """action: what was refused."""
        ...


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns errors of handlers into statuses, and reports the end of each RPC to an observer.

    An error that is not a MingaError is a bug: it is logged here, once, with its traceback, and the caller gets no
    details. Cancellation passes through. access: with it callers and their requests are checked before handlers see
    them. refusals: records those that are refused.
    """

    def __init__(
        self, observer: RpcObserver, access: Access | None = None, refusals: RefusalObserver | None = None
    ) -> None:
        self._observer = observer
        self._access = access
        self._refusals = refusals

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
            with _Outcome(self._observer, self._refusals, method, context) as outcome:
                try:
                    async with _Checked(request, self._check_of(method, context)) as checked:
                        return await behaviour(checked, context)
                except Exception as error:  # noqa: BLE001 - `abort` reports it
                    await outcome.abort(error)

        return call

    def _streaming(self, behaviour: Callable[..., Any], method: str) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            with _Outcome(self._observer, self._refusals, method, context) as outcome:
                try:
                    async with (
                        _Checked(request, self._check_of(method, context)) as checked,
                        contextlib.aclosing(_responses(behaviour(checked, context))) as responses,
                    ):
                        async for response in responses:
                            yield response
                except Exception as error:  # noqa: BLE001 - `abort` reports it
                    await outcome.abort(error)

        return call

    def _check_of(self, method: str, context: Any) -> Callable[[Any], Any]:
        """What each request of a call passes. Raises MingaError for a caller that may not make it."""
        if self._access is None or context.peer().startswith("unix:"):
            return _well_formed
        check = self._access.admit(method, context)

        def checked(request: Any) -> Any:
            check(_well_formed(request))
            return request

        return checked


_MALFORMED = object()
"""In place of a request whose bytes are not a message of its type."""


def _lenient(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """A deserializer that returns _MALFORMED where `deserialize` raises: an exception there would end the call with
    UNKNOWN and a traceback in the log, as if it were a bug."""
    if deserialize is None:
        return None

    def lenient(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception:  # noqa: BLE001 - any error means malformed bytes
            return _MALFORMED

    return lenient


class _Checked:
    """A request, or a stream of requests that is checked as it is read. Raises what `check` raises.

    The stream is closed at the end of the block; otherwise the garbage collector would close an unread one, maybe after
    the end of the loop.
    """

    def __init__(self, request: Any, check: Callable[[Any], Any]) -> None:
        self._request = request
        self._check = check

    async def __aenter__(self) -> Any:
        if not hasattr(self._request, "__aiter__"):
            return self._check(self._request)
        self._request = aiter(self._request)
        return _Requests(self._request.__anext__, self._check)

    async def __aexit__(self, *exc: object) -> None:
        if hasattr(self._request, "aclose"):
            # RuntimeError: a task still reads it, and is about to be cancelled.
            with contextlib.suppress(RuntimeError):
                await self._request.aclose()


class _Requests:
    """A stream of requests, each checked."""

    def __init__(self, read: Callable[[], Awaitable[Any]], check: Callable[[Any], Any]) -> None:
        self._read = read
        self._check = check

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Any:
        return self._check(await self._read())


def _well_formed(request: Any) -> Any:
    """The request. Raises InvalidArgumentError for _MALFORMED."""
    if request is _MALFORMED:
        raise InvalidArgumentError("the bytes of the request are not a message of its type")
    return request


async def _responses(made: Any) -> AsyncGenerator[Any, None]:
    """The responses of a streaming handler, which is a generator, or writes to its context and yields nothing here."""
    if not inspect.isasyncgen(made):
        await made
        return
    # Otherwise a cancelled call would leave the generator to the garbage collector.
    async with contextlib.aclosing(made):
        async for response in made:
            yield response


class _Outcome:
    """Reports how one RPC ended to the observer and to the RPC's span. path: `/service/Method`."""

    def __init__(self, observer: RpcObserver, refusals: RefusalObserver | None, path: str, context: Any) -> None:
        self._observer = observer
        self._refusals = refusals
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
        """End the call with the error's status."""
        # The handler aborted by itself, or the server was stopped meanwhile.
        if isinstance(error, grpc.aio.BaseError):
            raise error
        known = error if isinstance(error, MingaError) else _bug(error, self._method)
        if self._refusals is not None and known.refusal is not None:
            self._refusals.record(known, Origin.of_rpc(self._context), self._method)
        status = grpc.StatusCode[WIRE_STATUS[known.code].grpc]
        await self._context.abort(status, str(known)[:MAX_DETAILS], _metadata_of(known))
        raise AssertionError("abort raises")


def _bug(error: Exception, method: str) -> InternalError:
    log.error("rpc_failed", exc_info=error, extra={"fields": {"method": method}})
    return InternalError("internal error; the server's log has the details")


def _metadata_of(error: MingaError) -> tuple[tuple[str, str | bytes], ...]:
    pairs: list[tuple[str, str | bytes]] = [(CODE_KEY, error.code.value)]
    if error.hint:
        pairs.append((HINT_KEY, error.hint[:MAX_DETAILS].encode("ascii", "replace").decode()))
    if isinstance(error, BusyError):
        pairs.append((RETRY_AFTER_KEY, str(int(error.retry_after / timedelta(milliseconds=1)))))
    if isinstance(error, LeaseSupersededError):
        pairs.append((OWNER_KEY, error.owner_address))
    if isinstance(error, RowRefusedError):
        pairs.append((ROW_KEY, error.row_name.encode()))
    if isinstance(error, LimitExceededError) and error.limit is not None:
        pairs.append((LIMIT_KEY, str(error.limit)))
    return tuple(pairs)


def error_from_rpc(error: grpc.aio.AioRpcError, unavailable: type[UnavailableError] = UnavailableError) -> MingaError:
    """Our error for a failed call; an `unavailable` for a server that is unreachable, slow, or without its store."""
    metadata = {str(key): value for key, value in (error.trailing_metadata() or ())}
    details = _one_line(error.details() or error.code().name)
    code = metadata.get(CODE_KEY)
    if isinstance(code, str):
        return _from_metadata(code, details, metadata, unavailable)
    if error.code() in _UNREACHABLE or (error.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in details):
        return unavailable(_connection_problem(error.code(), details))
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "oncurrent" in details:
        return BusyError("too many calls at once", retry_after=_BUSY_RETRY)
    known = _BY_STATUS.get(error.code(), Code.INTERNAL)
    return error_from_code(known.value, details)


@contextlib.contextmanager
def rpc_errors(server: str, unavailable: type[UnavailableError]) -> Iterator[None]:
    """Turns gRPC's errors of the calls inside the block into ours; `unavailable` for a server that has gone.

    gRPC ends a call that it cannot go on with by CancelledError, or as misused, when the server or the channel goes
    away under it. Nobody has cancelled the caller then: taken for that, its task would end without a word.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        found = error_from_rpc(error, unavailable)
        if isinstance(found, InternalError) and error.code() is grpc.StatusCode.INTERNAL and _made_here(error):
            # grpc.aio loses the status when a server ends a call that is being written to.
            found = unavailable(f"{server} ended the call while it was sent to")
        raise found from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise unavailable(f"the connection to {server} was closed") from None
    except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
        raise unavailable(f"the connection to {server} was closed") from error


def _made_here(error: grpc.aio.AioRpcError) -> bool:
    """Whether the error was made on this side, by gRPC itself: our servers always send a code of ours."""
    return not any(str(key).startswith("minga-") for key, _ in error.trailing_metadata() or ())


def _from_metadata(
    code: str, details: str, metadata: dict[str, Any], unavailable: type[UnavailableError]
) -> MingaError:
    hint = _one_line(str(metadata.get(HINT_KEY, "")))
    if code in (Code.STORE_UNAVAILABLE, Code.UNAVAILABLE):
        return unavailable(details, hint=hint)
    millis = _number(metadata.get(RETRY_AFTER_KEY, ""), digits=9)
    retry_after = None if millis is None else timedelta(milliseconds=millis)
    row = metadata.get(ROW_KEY, b"")
    found = error_from_code(
        code,
        details,
        retry_after=retry_after,
        owner_address=str(metadata.get(OWNER_KEY, "")),
        row_name=row.decode(errors="replace") if isinstance(row, bytes) else "",
        limit=_number(metadata.get(LIMIT_KEY, ""), digits=18),
    )
    found.hint = hint
    return found


def _number(text: object, *, digits: int) -> int | None:
    """At most so many digits, since a hostile server must not cause an overflow; None when it is something else."""
    return int(str(text)) if re.fullmatch(f"[0-9]{{1,{digits}}}", str(text)) else None


def _connection_problem(code: grpc.StatusCode, details: str) -> str:
    """The reason in gRPC's long account of a failed connection."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    reason = details.rpartition("last error: ")[2]
    for known in ("Connection refused", "No such file or directory", "No route to host", "Connection reset by peer"):
        if known in reason:
            return f"cannot connect: {known}"
    for known, meaning in _TLS_PROBLEMS.items():
        if known in reason:
            return f"cannot connect: {meaning}"
    return reason


def _one_line(text: str) -> str:
    """Text of a remote on one readable line: without line breaks and terminal escapes, and cut."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _MAX_SHOWN else line[:_MAX_SHOWN] + "…"
