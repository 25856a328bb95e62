"""Traces: what is recorded where they are on, that the SDK stays out where they are off, and the export."""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.trace import INVALID_SPAN

from minga_core.errors import InvalidNameError, SettingsError
from minga_runtime import tracing
from minga_runtime.channels import make_balanced_channel, make_channel
from minga_runtime.tracing import FLUSH_SECONDS, export_traces
from tests.support.collector import Collector, Trace, collecting
from tests.support.spans import KeepingTracer, keeping_spans

from .support import SERVICE, answer, server_of, serving, streamed

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


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


@pytest.mark.parametrize("text", ["", "00", CALLER.upper(), CALLER + "-00", CALLER[:-1], "x" * 100_000])
def test_a_malformed_traceparent_counts_as_none(text: str, spans: KeepingTracer) -> None:
    """A trace is never a reason for an error."""
    with tracing.use(tracing.start_server_span("work", text)):
        pass
    assert spans.one("work").parent == ""


async def test_while_traces_are_off_spans_are_noops_and_channels_are_grpcs_own() -> None:
    """Nothing is passed on either, although a caller sent a traceparent."""
    for nothing in (
        tracing.span("a"),
        tracing.start_client_span("b"),
        tracing.use(tracing.start_server_span("c", CALLER)),
    ):
        with nothing as span:
            assert (span, tracing.traceparent()) == (INVALID_SPAN, "")
    for make in (make_channel, make_balanced_channel):
        channel = make("127.0.0.1:1")
        assert "unary_unary" not in vars(channel)
        await channel.close()


def test_the_sdk_is_not_imported_while_traces_are_off() -> None:
    """Importing it would double the start-up time of a command."""
    code = (
        "import sys, minga_runtime.channels, minga_runtime.server, minga_runtime.tracing as t\n"
        "with t.export_traces(None, 'a', 'b'), t.span('c'): pass\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert found.stdout.strip() == "[]"


async def test_a_span_is_the_parent_of_the_spans_made_in_it(spans: KeepingTracer) -> None:
    """In its task and in those started in the block; not after it, and not for calls outside of any span."""

    async def inside() -> None:
        with tracing.span("in a task"):
            pass

    with tracing.span("whole") as span:
        await asyncio.create_task(inside())
        tracing.start_client_span("call").end()
    with tracing.span("after"):
        pass
    assert tracing.start_client_span("upkeep") is INVALID_SPAN
    assert (spans.one("whole").parent, spans.one("after").parent) == ("", "")
    assert spans.one("in a task").parent == spans.one("call").parent == tracing.traceparent_of(span)
    assert len(spans.spans) == 4
    assert all(each.ended for each in spans.spans)


def test_unsampled_work_is_recorded_nowhere(spans: KeepingTracer) -> None:
    """Processes that are called get a traceparent that says so, and therefore begin no trace."""
    with tracing.span("whole") as whole, tracing.unsampled():
        assert tracing.traceparent()[:-2] == tracing.traceparent_of(whole)[:-2]
        assert not tracing.remote_span(tracing.traceparent()).get_span_context().trace_flags.sampled
        assert not tracing.start_client_span("poll").is_recording()
    with tracing.unsampled():
        assert tracing.traceparent() == ""


# The export.


def exported(collector: Collector) -> Any:
    """Traces on, to that collector."""
    return export_traces(f"http://{collector.address}", "minga-test", "1.2.3", "me")


def test_spans_get_to_the_collector(collector: Collector) -> None:
    """With the part they are of, their attributes, and how they ended."""
    with (
        exported(collector),
        tracing.use(tracing.start_server_span("whole", CALLER, {"a": 1, "left.out": None})) as whole,
    ):
        whole.add_event("something", {"why": "x"})
        with pytest.raises(InvalidNameError), tracing.span("bad"):
            raise InvalidNameError("no such name")
        with pytest.raises(ZeroDivisionError), tracing.span("worse"):
            raise ZeroDivisionError("boom")
        with pytest.raises(asyncio.CancelledError), tracing.span("stopped"):
            raise asyncio.CancelledError
    trace = Trace(collector.spans)
    root = trace.one("whole")
    assert (root.service, root.instance, root.kind, root.trace_id, root.parent_id) == (
        "minga-test",
        "me",
        "server",
        CALLER[3:35],
        CALLER[36:52],
    )
    assert (root.attributes, root.events, root.failed) == ({"a": 1}, ("something",), False)
    assert [trace.path(trace.one(name))[-2] for name in ("bad", "worse", "stopped")] == ["minga-test/whole"] * 3
    assert [(trace.one(name).failed, trace.one(name).attributes) for name in ("bad", "worse", "stopped")] == [
        (True, {"error.type": "invalid_name"}),
        (True, {"error.type": "ZeroDivisionError"}),
        (False, {"minga.cancelled": True}),
    ]
    assert not tracing.enabled()


def test_the_callers_decision_on_sampling_holds(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever OpenTelemetry's variables say for traces that begin here."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with exported(collector):
        tracing.start_server_span("kept", CALLER).end()
        with tracing.span("whole"):
            assert not tracing.current().get_span_context().trace_flags.sampled
    monkeypatch.delenv("OTEL_TRACES_SAMPLER")
    with exported(collector):
        tracing.start_server_span("not kept", CALLER[:-2] + "00").end()
    assert [span.name for span in collector.spans] == ["kept"]


def test_a_wrong_variable_of_opentelemetry_is_a_settings_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As is any other setting."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "nonsense")
    with pytest.raises(SettingsError, match="nonsense"), export_traces("http://127.0.0.1:1", "a", "b"):
        raise AssertionError("not reached")


def test_a_missing_sdk_is_a_settings_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "minga_runtime.trace_export", None)
    with pytest.raises(SettingsError, match=r"minga-runtime\[traces\]"), export_traces("http://127.0.0.1:1", "a", "b"):
        raise AssertionError("not reached")


@pytest.mark.parametrize("retry", [True, False])
def test_a_collector_that_is_away_costs_one_line(
    retry: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many batches are lost; the end waits no longer than its limit."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with collecting() as gone:
        collector = f"http://{gone.address}"
    caplog.set_level(logging.INFO)
    lost: list[str] = []
    deadline = time.monotonic() + 30
    with export_traces(collector, "a", "b", retry=retry, on_loss=lost.append):
        for _ in range(3):
            with tracing.span("work"):
                pass
            while "traces_lost" not in caplog.messages:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        ending = time.monotonic()
    assert time.monotonic() - ending < FLUSH_SECONDS + 2
    assert caplog.messages == ["traces_lost"]
    assert len(lost) == 1


def test_a_collector_that_stalls_delays_only_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Not the work, and the end by no more than its limit."""
    lost: list[str] = []
    with collecting(stalled=True) as collector:
        with export_traces(f"http://{collector.address}", "a", "b", on_loss=lost.append):
            for _ in range(10_000):
                with tracing.span("work"):
                    pass
            worked = time.monotonic()
        assert time.monotonic() - worked < FLUSH_SECONDS + 2
    assert lost == ["no answer in time"]
    assert not [message for message in caplog.messages if message != "traces_lost"]


# Over gRPC.


class Handlers:
    """Methods of a server, and what they saw as the current span."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        handlers = {"Answer": self.answer, "Stream": self.stream, "Leave": self.answer}
        self.server = server_of(handlers)

    async def answer(self, request: bytes, context: Any) -> bytes:
        """Fail as the request says."""
        self.seen.append(tracing.traceparent())
        if request == b"bad":
            raise InvalidNameError("bad")
        if request == b"bug":
            raise ZeroDivisionError("boom")
        return request

    async def stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Three messages."""
        self.seen.append(tracing.traceparent())
        for _ in range(3):
            yield request


@asynccontextmanager
async def connected(handlers: Handlers) -> AsyncIterator[Any]:
    """A channel to the running server."""
    async with serving(handlers.server) as port, make_channel(f"127.0.0.1:{port}") as channel:
        yield channel


async def all_ended(spans: KeepingTracer) -> None:
    """Calls end their spans a moment after they have answered."""
    async with asyncio.timeout(10):
        while not all(span.ended for span in spans.spans):  # noqa: ASYNC110 - tasks of the channel
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("method", ["Answer", "Stream"])
async def test_a_call_is_a_span_on_either_side(spans: KeepingTracer, method: str) -> None:
    """The server's is below the client's, and is the current one of the handler."""
    server = Handlers()
    async with connected(server) as channel:
        with tracing.span("whole"):
            await (answer(channel) if method == "Answer" else streamed(channel))
        await all_ended(spans)
    whole, client, served = spans.spans
    assert (client.kind, client.parent) == ("client", whole.traceparent)
    assert (served.kind, served.parent) == ("server", client.traceparent)
    assert server.seen == [served.traceparent]
    about = {"rpc.system.name": "grpc", "rpc.method": f"{SERVICE}/{method}", "rpc.response.status_code": "OK"}
    for span in (client, served):
        assert (span.name, span.error) == (f"{SERVICE}/{method}", "")
        assert about.items() <= span.attributes.items()
    assert client.attributes["server.address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("request_", "code", "server_error"), [(b"bad", "INVALID_ARGUMENT", ""), (b"bug", "INTERNAL", "INTERNAL")]
)
async def test_a_failed_call_has_its_code(spans: KeepingTracer, request_: bytes, code: str, server_error: str) -> None:
    """A caller's mistake is no error of the server's."""
    async with connected(Handlers()) as channel:
        with tracing.span("whole"), pytest.raises(grpc.aio.AioRpcError):
            await answer(channel, request_)
        await all_ended(spans)
    _, client, served = spans.spans
    assert client.error == client.attributes["rpc.response.status_code"] == code
    assert (served.attributes["rpc.response.status_code"], served.error) == (code, server_error)


async def test_heartbeats_are_no_spans(spans: KeepingTracer) -> None:
    """They carry no span either."""
    server = Handlers()
    async with connected(server) as channel:
        with tracing.span("whole"):
            await answer(channel, method="Leave")
    assert [span.name for span in spans.spans] == ["whole"]
    assert server.seen == [""]
