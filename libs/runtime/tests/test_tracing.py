"""Traces: what is told where they are on, that nothing happens where they are off, and how they get to a collector."""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest

from minga_core.errors import InvalidNameError, SettingsError
from minga_runtime import tracing
from minga_runtime.channels import make_balanced_channel, make_channel
from minga_runtime.server import GrpcServer
from minga_runtime.tracing import FLUSH_SECONDS, NO_SPAN, export_traces, is_sampled, parse_traceparent
from tests.support.collector import Collector, SeenSpan, Trace, collecting
from tests.support.spans import KeepingTracer, keeping_spans

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SERVICE = "example.v1.ExampleService"
MALFORMED = [
    "",
    "00",
    CALLER + "-00",
    CALLER.upper(),
    CALLER.replace("00-0af", "01-0af"),
    CALLER.replace("00-0af", "ff-0af"),
    "00-" + "0" * 32 + CALLER[35:],
    CALLER[:36] + "0" * 16 + "-01",
    CALLER[:-1],
    CALLER + "\n",
    CALLER.replace("af", "äf"),
    "x" * 100_000,
]


@pytest.fixture
def spans() -> Iterator[KeepingTracer]:
    """Traces are on, and kept here."""
    with keeping_spans() as tracer:
        yield tracer


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector; spans do not wait long to be sent."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with collecting() as found:
        yield found


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_traceparent_counts_as_none(text: str, spans: KeepingTracer) -> None:
    """Only the version that there is, only as it is written, nothing beyond it: a trace is never worth an error."""
    assert parse_traceparent(text) == ""
    with tracing.served("work", text):
        pass
    assert spans.one("work").parent == ""


def test_a_traceparent_is_taken_as_it_is() -> None:
    """And says whether its trace is kept."""
    assert parse_traceparent(CALLER) == CALLER
    assert is_sampled(CALLER)
    assert not is_sampled(CALLER[:-2] + "00")
    assert not is_sampled("")


def test_where_traces_are_off_there_is_nothing() -> None:
    """One object that does nothing, for whoever asks; and plain channels."""
    assert not tracing.enabled()
    for nothing in (tracing.span("a"), tracing.call("b"), tracing.served("c", CALLER), tracing.current()):
        assert nothing is NO_SPAN
    with tracing.span("a") as span:
        span.set({"a": 1})
        assert (tracing.traceparent(), span.recording) == ("", False)
    with export_traces(None, "minga-test", "1"):
        assert not tracing.enabled()


async def test_where_traces_are_off_channels_are_grpcs_own() -> None:
    """No layer of ours, and no interceptor."""
    for make in (make_channel, make_balanced_channel):
        channel = make("127.0.0.1:1")
        assert type(channel).__module__.startswith("grpc.")
        await channel.close()


def test_opentelemetry_is_not_imported_where_traces_are_off() -> None:
    """Neither by the port nor by what uses it."""
    code = (
        "import sys, minga_runtime.channels, minga_runtime.server, minga_runtime.tracing as t\n"
        "with t.export_traces(None, 'a', 'b'), t.span('c'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert found.stdout.strip() == "[]"


async def test_a_span_is_the_parent_of_what_is_done_in_it(spans: KeepingTracer) -> None:
    """In this task, and in those that are started in the block; not after it."""

    async def inside() -> None:
        with tracing.span("in a task"):
            pass

    with tracing.span("whole"):
        await asyncio.create_task(inside())
        with tracing.call("call"):
            pass
    with tracing.span("after"):
        pass
    whole = spans.one("whole")
    assert (whole.parent, spans.one("after").parent) == ("", "")
    assert spans.one("in a task").parent == spans.one("call").parent == whole.traceparent
    assert all(span.ended for span in spans.spans)


def test_a_call_of_nobodys_is_no_trace(spans: KeepingTracer) -> None:
    """A process that looks after itself leaves no traces; one that works for a caller does."""
    with tracing.call("upkeep") as upkeep:
        assert upkeep is NO_SPAN
    with tracing.served("work", CALLER), tracing.call("call"):
        pass
    assert [span.name for span in spans.spans] == ["work", "call"]
    assert spans.one("call").traceparent[3:35] == CALLER[3:35]


def test_what_is_apart_is_not_told_here_nor_elsewhere(spans: KeepingTracer) -> None:
    """Who is asked meanwhile is told that this trace is not kept, so that it begins none."""
    with tracing.span("whole") as whole, tracing.apart():
        assert tracing.traceparent()[:-2] == whole.traceparent[:-2]
        assert not is_sampled(tracing.traceparent())
        with tracing.call("poll") as poll:
            assert not poll.recording
    with tracing.apart():
        assert tracing.traceparent() == ""


# To a collector.


def exported(collector: Collector) -> Any:
    """Traces on, to that collector."""
    return export_traces(f"http://{collector.address}", "minga-test", "1.2.3", "me")


def tree(collector: Collector) -> Trace:
    """All that came, as one trace."""
    assert len({span.trace_id for span in collector.spans}) == 1
    return Trace(collector.spans)


def test_spans_get_to_the_collector(collector: Collector) -> None:
    """With whose they are, their attributes, and how they ended."""
    with exported(collector), tracing.served("whole", CALLER, {"a": 1, "left.out": None}) as whole:
        whole.event("something", {"why": "x"})
        with pytest.raises(InvalidNameError), tracing.span("bad"):
            raise InvalidNameError("no such name")
        with pytest.raises(ZeroDivisionError), tracing.span("worse"):
            raise ZeroDivisionError("boom")
        with pytest.raises(asyncio.CancelledError), tracing.span("stopped"):
            raise asyncio.CancelledError
        whole.rename("renamed")
    trace = tree(collector)
    found = trace.one("renamed")
    assert (found.trace_id, found.parent_id, found.kind) == (CALLER[3:35], CALLER[36:52], "server")
    assert (found.service, found.instance) == ("minga-test", "me")
    assert (found.attributes, found.events, found.failed) == ({"a": 1}, ("something",), False)
    assert failure(trace.one("bad")) == (True, "invalid_name")
    assert failure(trace.one("worse")) == (True, "ZeroDivisionError")
    assert failure(trace.one("stopped")) == (False, None)
    assert trace.one("stopped").attributes == {"minga.cancelled": True}
    assert not tracing.enabled()


def failure(span: SeenSpan) -> tuple[bool, Any]:
    """How a span failed."""
    return span.failed, span.attributes.get("error.type")


@pytest.mark.parametrize(("sampler", "argument"), [("parentbased_traceidratio", "0"), ("always_off", "")])
def test_opentelemetrys_own_variables_say_what_is_kept(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, sampler: str, argument: str
) -> None:
    """What is not kept is passed on as such, so that a trace is whole or not there."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    with exported(collector), tracing.span("whole") as whole:
        assert (whole.recording, is_sampled(whole.traceparent)) == (False, False)
    assert not collector.spans


def test_the_callers_decision_holds(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this process would keep by itself."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with exported(collector), tracing.served("kept", CALLER):
        pass
    monkeypatch.delenv("OTEL_TRACES_SAMPLER")
    with exported(collector), tracing.served("not kept", CALLER[:-2] + "00"):
        pass
    assert [span.name for span in collector.spans] == ["kept"]


def test_a_wrong_variable_of_opentelemetrys_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other setting."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "nonsense")
    with pytest.raises(SettingsError, match="nonsense"), export_traces("http://127.0.0.1:1", "a", "b"):
        raise AssertionError("not reached")


@pytest.mark.parametrize("retry", [True, False])
def test_a_collector_that_is_away_costs_one_line(
    retry: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many batches are lost; the end is not waited for longer than its limit."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with collecting() as gone:
        collector = f"http://{gone.address}"
    caplog.set_level(logging.INFO)
    lost: list[str] = []
    with export_traces(collector, "a", "b", retry=retry, on_loss=lost.append):
        for _ in range(3):
            with tracing.span("work"):
                pass
            until(lambda: "traces_lost" in caplog.messages, "the loss is told")
        began = time.monotonic()
    assert time.monotonic() - began < FLUSH_SECONDS + 0.5
    assert caplog.messages == ["traces_lost"]
    assert len(lost) == 1


def test_a_collector_that_stalls_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the work, nor the end by more than its limit."""
    lost: list[str] = []
    with collecting(stalled=True) as collector:
        began = time.monotonic()
        with export_traces(f"http://{collector.address}", "a", "b", on_loss=lost.append):
            for _ in range(10_000):
                tracing.span("work").end()
            worked = time.monotonic()
        assert time.monotonic() - worked < FLUSH_SECONDS + 0.5
    assert worked - began < 10
    assert lost == ["no answer in time"]
    assert not [message for message in caplog.messages if message != "traces_lost"]


def until(holds: Any, what: str) -> None:
    """Returns once it holds; fails the test after a while."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


# Over gRPC.


class Server:
    """A server with a few methods; what their handlers saw as the current span."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.server = GrpcServer(self)
        handlers = {
            "Answer": grpc.unary_unary_rpc_method_handler(self._answer),
            "Stream": grpc.unary_stream_rpc_method_handler(self._stream),
            "Heartbeat": grpc.unary_unary_rpc_method_handler(self._answer),
            "FetchChunks": grpc.unary_stream_rpc_method_handler(self._stream),
        }
        self.server.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """See RpcObserver."""

    async def _answer(self, request: bytes, context: Any) -> bytes:
        self.seen.append(tracing.traceparent())
        if request == b"bad":
            raise InvalidNameError("bad")
        if request == b"bug":
            raise ZeroDivisionError("boom")
        return request

    async def _stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self.seen.append(tracing.traceparent())
        for _ in range(3):
            yield request


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Any]:
    """A channel to the running server."""
    (port,) = await server.server.start(["127.0.0.1:0"], [SERVICE])
    channel = make_channel(f"127.0.0.1:{port}")
    try:
        yield channel
    finally:
        await channel.close()
        await server.server.stop(timedelta(0))


async def all_ended(spans: KeepingTracer) -> None:
    """Calls end their spans a moment after they have answered."""
    async with asyncio.timeout(10):
        while not all(span.ended for span in spans.spans):  # noqa: ASYNC110 - tasks of the channel
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("method", ["Answer", "Stream"])
async def test_a_call_is_a_span_on_either_side(spans: KeepingTracer, method: str) -> None:
    """The server's is below the client's, and the handler works for it."""
    server = Server()
    async with serving(server) as channel:
        with tracing.span("whole") as whole:
            if method == "Answer":
                await channel.unary_unary(f"/{SERVICE}/Answer")(b"x", timeout=5)
            else:
                assert [item async for item in channel.unary_stream(f"/{SERVICE}/Stream")(b"x")] == [b"x"] * 3
        await all_ended(spans)
    _, client, served = spans.spans
    assert (client.name, client.kind, client.parent) == (f"{SERVICE}/{method}", "client", whole.traceparent)
    assert (served.name, served.kind, served.parent) == (f"{SERVICE}/{method}", "server", client.traceparent)
    assert server.seen == [served.traceparent]
    for span in (client, served):
        assert span.attributes["rpc.system.name"] == "grpc"
        assert span.attributes["rpc.response.status_code"] == "OK"
        assert not span.error
    assert client.attributes["server.address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("request_", "code", "server_error"), [(b"bad", "INVALID_ARGUMENT", ""), (b"bug", "INTERNAL", "INTERNAL")]
)
async def test_a_call_that_fails_says_so(spans: KeepingTracer, request_: bytes, code: str, server_error: str) -> None:
    """What a caller did wrong is no error of the server's."""
    async with serving(Server()) as channel:
        with tracing.span("whole"), pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(f"/{SERVICE}/Answer")(request_, timeout=5)
        await all_ended(spans)
    _, client, served = spans.spans
    assert client.error == client.attributes["rpc.response.status_code"] == code
    assert (served.attributes["rpc.response.status_code"], served.error) == (code, server_error)


async def test_calls_that_beat_or_come_by_the_hundred_are_no_spans(spans: KeepingTracer) -> None:
    """Of a chunk's request the handler knows whom it is for; a heartbeat is for nobody."""
    server = Server()
    async with serving(server) as channel:
        with tracing.span("whole") as whole:
            await channel.unary_unary(f"/{SERVICE}/Heartbeat")(b"x", timeout=5)
            assert len([item async for item in channel.unary_stream(f"/{SERVICE}/FetchChunks")(b"x")]) == 3
    assert [span.name for span in spans.spans] == ["whole"]
    assert server.seen == ["", whole.traceparent]


@pytest.mark.parametrize("text", ["nonsense", "x" * 6000, CALLER + "-00"])
async def test_a_malformed_traceparent_does_a_call_no_harm(spans: KeepingTracer, text: str) -> None:
    """It is answered, as a trace of its own."""
    async with serving(Server()) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Answer")
        assert await call(b"x", timeout=5, metadata=(("traceparent", text), ("baggage", "a=b"))) == b"x"
    assert spans.one(f"{SERVICE}/Answer").parent == ""
