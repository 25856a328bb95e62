"""The tracer that sends spans to an OpenTelemetry collector (OTLP over gRPC). Imported only where traces are on.

Bounded everywhere: spans wait in a queue that drops what is too many, a thread of its own sends them, and a collector
that is away, or slow, costs the spans and one line in the log. OpenTelemetry's own variables (OTEL_TRACES_SAMPLER,
OTEL_BSP_…, OTEL_EXPORTER_OTLP_… for headers and certificates, OTEL_RESOURCE_ATTRIBUTES) hold.
"""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Sequence
from contextvars import Token
from typing import Any
from urllib.parse import urlsplit

import grpc
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from minga_core.errors import MingaError, SettingsError
from minga_runtime.logs import log_event
from minga_runtime.tracing import Attributes, Kind, Span, enter, leave

log = logging.getLogger(__name__)

MAX_SENTENCE = 300
MAX_VALUE = 2048
"""Characters of an attribute: names and paths come from others. Above the longest name."""
_KINDS = {"internal": api.SpanKind.INTERNAL, "client": api.SpanKind.CLIENT, "server": api.SpanKind.SERVER}
# What a command sends again is only what a collector that is there asks for: its end does not wait for one that is not.
_ONCE = (grpc.StatusCode.RESOURCE_EXHAUSTED,)
# Ends of our own making, which are no errors.
_STOPPED = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)


def make_tracer(collector: str, service: str, version: str, instance: str, *, retry: bool = True) -> "OtelTracer":
    """A tracer whose spans go to `collector`. See `tracing.export_traces`."""
    attributes = {
        "service.name": service,
        "service.namespace": "minga",
        "service.version": version,
        # In a cluster the host is the pod.
        "service.instance.id": instance or f"{socket.gethostname()}:{os.getpid()}",
    }
    words = _LastWords()
    try:
        sending = _Exporter(_otlp(collector, retry=retry), collector, words)
        # Not at the interpreter's exit: `close` has its limit.
        limits = SpanLimits(max_span_attribute_length=MAX_VALUE)
        provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False, span_limits=limits)
        provider.add_span_processor(processor := BatchSpanProcessor(sending))
    except Exception as error:  # there are many variables, and as many kinds of errors
        raise SettingsError(f"traces cannot be sent as the OTEL_ variables say: {error}") from error
    return OtelTracer(provider.get_tracer("minga", version), processor, sending)


def _otlp(collector: str, *, retry: bool) -> OTLPSpanExporter:
    plain = urlsplit(collector).scheme == "http"
    # As for all that is on our own network: reached directly, whatever proxy variables say.
    direct: Any = (("grpc.enable_http_proxy", 0),) if plain else None
    codes = None if retry else _ONCE
    return OTLPSpanExporter(collector, insecure=plain, channel_options=direct, retryable_error_codes=codes)


class OtelTracer:
    """Implements Tracer."""

    def __init__(self, tracer: api.Tracer, processor: BatchSpanProcessor, sending: "_Exporter") -> None:
        self._tracer = tracer
        self._processor = processor
        self._sending = sending

    def start(self, name: str, kind: Kind, attributes: Attributes, parent: Span) -> Span:
        """See Tracer."""
        return OtelSpan(
            self._tracer.start_span(
                name, _context_of(parent), _KINDS[kind], _present(attributes), record_exception=False
            )
        )

    def close(self, limit_seconds: float) -> str:
        """See Tracer."""
        ending = threading.Thread(target=self._processor.shutdown, name="minga-traces-end", daemon=True)
        ending.start()
        ending.join(limit_seconds)
        if ending.is_alive():
            # Breaks off what is being sent.
            self._sending.shutdown()
            return "no answer in time"
        return self._sending.problem


class OtelSpan:
    """Implements Span over OpenTelemetry's."""

    __slots__ = ("_span", "_token", "recording", "traceparent")

    def __init__(self, span: api.Span) -> None:
        context = span.get_span_context()
        self._span = span
        self._token: Token[Span] | None = None
        self.recording = span.is_recording()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    @property
    def otel(self) -> api.Span:
        """OpenTelemetry's own."""
        return self._span

    def set(self, attributes: Attributes) -> None:
        """See Span."""
        if self.recording:
            self._span.set_attributes(_present(attributes))

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """See Span."""
        if self.recording:
            self._span.add_event(name, _present(attributes or {}))

    def fail(self, error_type: str, sentence: str = "") -> None:
        """See Span."""
        if self.recording:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(api.StatusCode.ERROR, sentence[:MAX_SENTENCE] or None)

    def rename(self, name: str) -> None:
        """See Span."""
        self._span.update_name(name)

    def end(self, at_ns: int | None = None) -> None:
        """See Span."""
        self._span.end(at_ns)

    def __enter__(self) -> Span:
        self._token = enter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, _STOPPED):
            self.set({"minga.cancelled": True})
        elif isinstance(error, MingaError):
            self.fail(error.code.value, str(error))
        elif error is not None:
            self.fail(type(error).__qualname__, str(error))
        if self._token is not None:
            leave(self._token)
        self.end()


class _Exporter(SpanExporter):
    """Sends batches; says in the log when that begins to fail, and when it is well again."""

    def __init__(self, otlp: OTLPSpanExporter, collector: str, words: "_LastWords") -> None:
        self._otlp = otlp
        self._collector = collector
        self._words = words
        self._shut = threading.Lock()
        self.problem = ""
        """Why the last batch was lost; empty when it was not."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter."""
        result = self._otlp.export(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self.problem:
                reason = self._words.last
                log_event(log, logging.WARNING, "traces_lost", collector=self._collector, error=reason)
            self.problem = self._words.last or "the collector does not take them"
        elif self.problem:
            self.problem = ""
            log_event(log, logging.INFO, "traces_sent_again", collector=self._collector)
        return result

    def shutdown(self) -> None:
        """See SpanExporter. Idempotent."""
        if self._shut.acquire(blocking=False):
            self._otlp.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See SpanExporter."""
        return self._otlp.force_flush(timeout_millis)


class _LastWords(logging.Handler):
    """Takes what OpenTelemetry logs, a line for every attempt of every batch, and keeps the last one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        logger = logging.getLogger("opentelemetry")
        logger.propagate = False
        logger.handlers[:] = [self]

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.last = record.getMessage()[:MAX_SENTENCE]


def _present(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _context_of(parent: Span) -> Context:
    """OpenTelemetry's context for a parent: a span of ours, a caller's traceparent, or nothing."""
    if isinstance(parent, OtelSpan):
        return api.set_span_in_context(parent.otel, Context())
    if not parent.traceparent:
        return Context()
    _, trace_id, span_id, flags = parent.traceparent.split("-")
    caller = api.SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=api.TraceFlags(int(flags, 16))
    )
    return api.set_span_in_context(api.NonRecordingSpan(caller), Context())
