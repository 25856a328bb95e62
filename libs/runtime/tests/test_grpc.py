"""Servers, channels and errors over real connections. Handlers are registered by hand: no contract is needed."""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from minga_core.errors import (
    WIRE_STATUS,
    AlreadyRunningError,
    BusyError,
    Code,
    InternalError,
    InvalidNameError,
    LeaseSupersededError,
    LimitExceededError,
    MingaError,
    RegistryUnavailableError,
    RowRefusedError,
    SettingsError,
    StoreUnavailableError,
    TableIncompleteError,
    UnavailableError,
    error_from_code,
)
from minga_runtime.channels import MAX_MESSAGE_BYTES, bind, make_channel, wait_connected
from minga_runtime.grpc_errors import error_from_rpc
from minga_runtime.server import LIVENESS, GrpcServer

from .support import LIMIT_SECONDS, SERVICE, Observed, answer, server_of, serving, streamed


class Example:
    """A server whose two methods do what the test says."""

    def __init__(self) -> None:
        self.port = 0
        self.observed = Observed()
        self.answer: Callable[[bytes, Any], Any] = self._echo
        self.stream: Callable[[bytes, Any], AsyncIterator[bytes]] = self._count
        self.closed = asyncio.Event()
        self.server = server_of({"Answer": self._answer, "Stream": self._stream}, self.observed)

    async def _answer(self, request: bytes, context: Any) -> bytes:
        answer: bytes = await self.answer(request, context)
        return answer

    async def _stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            async for item in self.stream(request, context):
                yield item
        finally:
            self.closed.set()

    async def _echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def _count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"


@pytest.fixture
async def example() -> AsyncIterator[Example]:
    """A running server, on its `port`."""
    made = Example()
    async with serving(made.server) as made.port:
        yield made


@pytest.fixture
async def channel(example: Example) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to it."""
    async with make_channel(f"127.0.0.1:{example.port}") as made:
        yield made


def failing(error: Exception) -> tuple[Callable[..., Any], Callable[..., AsyncIterator[bytes]]]:
    """A unary and a streaming handler that fail."""

    async def one(request: bytes, context: Any) -> bytes:
        raise error

    async def many(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        raise error

    return one, many


@pytest.mark.parametrize("code", list(Code))
async def test_every_error_arrives_as_the_class_it_was(example: Example, channel: grpc.aio.Channel, code: Code) -> None:
    """Server and client hold the one table from both ends, for unary and streaming calls alike."""
    attributes = {"owner_address": "h:1", "retry_after": timedelta(seconds=3), "row_name": "größe", "limit": 1_000_000}
    sent = error_from_code(code.value, "ein Satz für Menschen", **attributes)  # type: ignore[arg-type]
    sent.hint = "do this"
    example.answer, example.stream = failing(sent)
    for call in (answer, streamed):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel)
        assert caught.value.code().name == WIRE_STATUS[code].grpc
        got = error_from_rpc(caught.value)
        if isinstance(sent, StoreUnavailableError):
            assert type(got) is UnavailableError
        else:
            assert type(got) is type(sent)
        assert got.hint == "do this"
        assert str(got) == "ein Satz für Menschen"
        if isinstance(got, BusyError):
            assert got.retry_after == timedelta(seconds=3)
        if isinstance(got, LeaseSupersededError):
            assert got.owner_address == "h:1"
        if isinstance(got, RowRefusedError):
            assert got.row_name == "größe"
        if isinstance(got, LimitExceededError):
            assert got.limit == 1_000_000
    assert await example.observed.ended(2) == [("Answer", WIRE_STATUS[code].grpc), ("Stream", WIRE_STATUS[code].grpc)]


async def test_a_bug_is_logged_once_and_its_details_are_not_sent(
    example: Example, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback is for the log, never for the caller."""
    for handler in failing(KeyError("secret")):
        example.answer = example.stream = handler
        caplog.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (answer(channel) if asyncio.iscoroutinefunction(handler) else streamed(channel))
        got = error_from_rpc(caught.value)
        assert isinstance(got, InternalError)
        assert "secret" not in str(got)
        records = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert [record.getMessage() for record in records] == ["rpc_failed"]
        assert records[0].exc_info is not None


async def test_a_cancelled_stream_closes_its_generator_at_once(example: Example, channel: grpc.aio.Channel) -> None:
    """Slots are freed when the caller goes, not when the garbage collector comes."""

    async def endless(request: bytes, context: Any) -> AsyncIterator[bytes]:
        while True:
            yield b"more"
            await asyncio.Event().wait()

    example.stream = endless
    call = channel.unary_stream(f"/{SERVICE}/Stream")(b"", timeout=LIMIT_SECONDS)
    assert await call.read() == b"more"
    call.cancel()
    async with asyncio.timeout(LIMIT_SECONDS):
        await example.closed.wait()
    assert await example.observed.ended(1) == [("Stream", "CANCELLED")]


async def test_a_long_sentence_does_not_break_the_answer(example: Example, channel: grpc.aio.Channel) -> None:
    """Metadata is limited; the code always arrives."""
    example.answer, _ = failing(InvalidNameError("x" * 100_000, hint="y" * 100_000))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer(channel)
    assert isinstance(error_from_rpc(caught.value), InvalidNameError)


async def test_messages_over_the_limit_are_refused_as_such(example: Example, channel: grpc.aio.Channel) -> None:
    """Neither side accepts more than MAX_MESSAGE_BYTES."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer(channel, bytes(MAX_MESSAGE_BYTES + 1))
    assert isinstance(error_from_rpc(caught.value), LimitExceededError)


@pytest.mark.parametrize("streaming", [False, True])
async def test_malformed_requests_are_bad_input_and_no_bug(
    caplog: pytest.LogCaptureFixture, *, streaming: bool
) -> None:
    """Whether they come alone or in a stream: INVALID_ARGUMENT, and no traceback in the log."""

    async def check(request: Any, context: Any) -> health_pb2.HealthCheckResponse:
        if streaming:
            async for _ in request:
                pass
        return health_pb2.HealthCheckResponse()

    made = grpc.stream_unary_rpc_method_handler if streaming else grpc.unary_unary_rpc_method_handler
    handler = made(check, health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString)
    async with serving(server_of({"Check": handler})) as port, make_channel(f"127.0.0.1:{port}") as channel:
        path = f"/{SERVICE}/Check"
        call = channel.stream_unary(path)(iter([b"", b"\xff"])) if streaming else channel.unary_unary(path)(b"\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not [record for record in caplog.records if record.name.startswith(("grpc", "minga"))]


async def test_a_server_that_is_away_is_the_error_asked_for() -> None:
    """With a reason that fits on a line."""
    async with make_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer(channel)
        assert not await wait_connected(channel, 0.05)
    got = error_from_rpc(caught.value, RegistryUnavailableError)
    assert type(got) is RegistryUnavailableError
    assert str(got) == "cannot connect: Connection refused"


async def test_proxy_variables_do_not_lead_peers_astray(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines of one network are reached directly."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with make_channel(f"localhost:{example.port}") as channel:
        assert await answer(channel, b"x") == b"x"


def rpc_error(status: grpc.StatusCode, details: str, *metadata: tuple[str, str]) -> grpc.aio.AioRpcError:
    """What a client sees."""
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), RegistryUnavailableError),
        (rpc_error(grpc.StatusCode.CANCELLED, "CANCELLED"), RegistryUnavailableError),
        (rpc_error(grpc.StatusCode.INTERNAL, "RST_STREAM with error code 2"), RegistryUnavailableError),
        (rpc_error(grpc.StatusCode.UNAVAILABLE, "x", ("minga-code", "store_unavailable")), RegistryUnavailableError),
        (rpc_error(grpc.StatusCode.ABORTED, "x", ("minga-code", "table_incomplete")), TableIncompleteError),
        (rpc_error(grpc.StatusCode.UNKNOWN, "x", ("minga-code", "of_next_year")), InternalError),
        (rpc_error(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"), InternalError),
        (rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"), BusyError),
    ],
)
def test_statuses_without_our_code_have_a_class_too(error: grpc.aio.AioRpcError, expected: type[MingaError]) -> None:
    """The statuses of gRPC itself, of newer versions, and of proxies."""
    assert type(error_from_rpc(error, RegistryUnavailableError)) is expected


def test_a_hostile_answer_is_bounded_and_escaped() -> None:
    """Numbers are bounded, and text loses its terminal escapes."""
    error = rpc_error(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "wait\n\x1b[2J" + "x" * 10_000,
        ("minga-code", "busy"),
        ("minga-retry-after-ms", "9" * 50),
    )
    got = error_from_rpc(error)
    assert isinstance(got, BusyError)
    assert got.retry_after == timedelta(seconds=1)
    assert str(got).isprintable()
    assert len(str(got)) < 500


async def test_health_is_as_set_and_liveness_never_changes(example: Example, channel: grpc.aio.Channel) -> None:
    """NOT_SERVING at first, then as set; liveness is about the process alone."""
    health = health_pb2_grpc.HealthStub(channel)

    async def statuses() -> list[int]:
        found = []
        for name in ("", SERVICE, LIVENESS):
            response = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=LIMIT_SECONDS)
            found.append(response.status)
        return found

    serving, away = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert await statuses() == [away, away, serving]
    await example.server.set_serving(True)
    assert await statuses() == [serving, serving, serving]
    await example.server.set_serving(False)
    assert await statuses() == [away, away, serving]


async def test_what_no_limit_counts_is_not_offered(
    example: Example, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """Streams of health and reflection last as long as their callers like."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=LIMIT_SECONDS)
    reflection = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    for call in (watch, reflection(iter([b""]), timeout=LIMIT_SECONDS)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not caplog.records


async def test_stopping_lets_calls_end_and_takes_no_new_ones(example: Example, channel: grpc.aio.Channel) -> None:
    """Graceful: what runs may finish within the grace."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        entered.set()
        await go_on.wait()
        return b"done"

    example.answer = slow
    await example.server.set_serving(True)
    running = asyncio.create_task(answer(channel))
    async with asyncio.timeout(LIMIT_SECONDS):
        await entered.wait()
        stopping = asyncio.create_task(example.server.stop(timedelta(seconds=LIMIT_SECONDS)))
        await asyncio.sleep(0)
        await example.server.set_serving(True)
        assert not example.server.serving
        go_on.set()
        assert await running == b"done"
        await stopping


async def test_a_port_in_use_and_one_that_cannot_be_bound_are_different_errors(example: Example) -> None:
    """No two processes share a port, and the error says why."""
    other = GrpcServer(Observed())
    with pytest.raises(AlreadyRunningError, match="another process does"):
        bind(other.server, f"127.0.0.1:{example.port}")
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1:0"):
        bind(other.server, "192.0.2.1:0")
    await other.server.stop(None)


async def test_a_socket_is_its_owners_alone_and_the_umask_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault B19: the umask is of the whole process, whose other threads make files meanwhile."""
    before = os.umask(0)
    try:
        monkeypatch.setattr(os, "umask", None)
        server = GrpcServer(Observed())
        await server.start([f"unix:{tmp_path}/s"], [SERVICE])
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["s"]
    await server.stop(timedelta(0))
    assert os.listdir(tmp_path) == []


async def test_a_stale_socket_is_replaced_and_a_served_one_is_not(tmp_path: Path) -> None:
    """gRPC itself would unlink a living daemon's socket. A new one is its owner's alone."""
    path = tmp_path / "s"
    first, second = GrpcServer(Observed()), GrpcServer(Observed())
    await first.start([f"unix:{path}"], [SERVICE])
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(AlreadyRunningError, match="serves"):
        bind(second.server, f"unix:{path}")
    await first.stop(timedelta(0))
    with socket.socket(socket.AF_UNIX) as stale:
        path.unlink(missing_ok=True)
        stale.bind(str(path))
    await second.start([f"unix:{path}"], [SERVICE])
    async with make_channel(f"unix:{path}") as channel:
        assert await wait_connected(channel, LIMIT_SECONDS)
    await second.stop(timedelta(0))
    third = GrpcServer(Observed())
    with pytest.raises(SettingsError, match="cannot listen on"):
        bind(third.server, f"unix:{tmp_path}/missing/s")
    await third.server.stop(None)
