"""Traces: the work of one command in every process, as spans of the OpenTelemetry API. Off unless `export_traces` turns
them on.

While they are off, every function here returns OpenTelemetry's INVALID_SPAN, whose methods do nothing, after one
comparison, and the SDK is not imported. Processes exchange W3C's traceparent and nothing else (docs/adr/0022).
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from minga_core.errors import MingaError, SettingsError

TRACEPARENT = "traceparent"
"""Name of the header, in HTTP and in gRPC's metadata (https://www.w3.org/TR/trace-context/)."""
FLUSH_SECONDS = 1.0
"""Upper limit on how much longer a process runs to send its last spans."""
MAX_DESCRIPTION = 300
"""Characters of an error's sentence that a span keeps."""

Attributes = Mapping[str, AttributeValue | None]
"""Attributes of a span by name; those that are None are left out."""

_W3C = TraceContextTextMapPropagator()
_CANCELLED = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)

_tracer: trace.Tracer | None = None


def enabled() -> bool:
    """Whether this process makes spans. Decided once, at its start."""
    return _tracer is not None


def span(
    name: str, attributes: Attributes | None = None, *, parent: Span | None = None
) -> AbstractContextManager[Span]:
    """Run the block as a span below `parent`, or below the current span; a new trace where there is none."""
    if _tracer is None:
        return INVALID_SPAN
    context = None if parent is None else trace.set_span_in_context(parent, Context())
    return use(_tracer.start_span(name, context, SpanKind.INTERNAL, present(attributes)))


def start_client_span(name: str, attributes: Attributes | None = None) -> Span:
    """Start the span of a call to another process. The caller ends it, or hands it to `use`.

    Without a current span it is INVALID_SPAN: calls that a process makes for its own upkeep leave no traces.
    """
    if _tracer is None or not trace.get_current_span().get_span_context().is_valid:
        return INVALID_SPAN
    return _tracer.start_span(name, None, SpanKind.CLIENT, present(attributes))


def start_server_span(name: str, traceparent: str, attributes: Attributes | None = None) -> Span:
    """Start the span of a request that is served. The caller ends it, or hands it to `use`.

    traceparent: the header as it came. A malformed one counts as none: the span begins a trace.
    """
    if _tracer is None:
        return INVALID_SPAN
    context = trace.set_span_in_context(remote_span(traceparent), Context())
    return _tracer.start_span(name, context, SpanKind.SERVER, present(attributes))


def use(span: Span) -> AbstractContextManager[Span]:
    """Make `span` the current one in the block and in the tasks started there, and end it with the block.

    An error that leaves the block is recorded; cancellation is not an error.
    """
    return span if span is INVALID_SPAN else _use(span)


@contextlib.contextmanager
def _use(span: Span) -> Iterator[Span]:
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        except _CANCELLED:
            span.set_attribute("minga.cancelled", True)
            raise
        except MingaError as error:
            record_error(span, error.code.value, str(error))
            raise
        except Exception as error:
            record_error(span, type(error).__qualname__, str(error))
            raise


def record_error(span: Span, error_type: str, description: str = "") -> None:
    """Mark a span as failed. error_type: one of a small closed set, such as an error code."""
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR, description[:MAX_DESCRIPTION] or None)


def present(attributes: Attributes | None) -> dict[str, AttributeValue]:
    """The attributes that have a value."""
    return {name: value for name, value in (attributes or {}).items() if value is not None}


def current() -> Span:
    """The span that this task works for."""
    return INVALID_SPAN if _tracer is None else trace.get_current_span()


def traceparent() -> str:
    """The current span as a header for another process; empty without a trace."""
    return "" if _tracer is None else traceparent_of(trace.get_current_span())


def traceparent_of(span: Span) -> str:
    """A span as a header for another process; empty for INVALID_SPAN."""
    headers: dict[str, str] = {}
    _W3C.inject(headers, trace.set_span_in_context(span, Context()))
    return headers.get(TRACEPARENT, "")


def remote_span(traceparent: str) -> Span:
    """The caller's span for its header; INVALID_SPAN for a malformed or empty header."""
    return trace.get_current_span(_W3C.extract({TRACEPARENT: traceparent}))


@contextlib.contextmanager
def unsampled() -> Iterator[None]:
    """Leave the block's work out of the trace, here and in the processes that are called in it."""
    now = current().get_span_context()
    # Without a traceparent the processes that are called would begin traces of their own.
    flags = TraceFlags(now.trace_flags & ~TraceFlags.SAMPLED)
    with trace.use_span(NonRecordingSpan(SpanContext(now.trace_id, now.span_id, is_remote=False, trace_flags=flags))):
        yield


@contextlib.contextmanager
def export_traces(
    collector: str | None,
    service: str,
    version: str,
    instance: str = "",
    *,
    retry: bool = True,
    on_loss: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Send the spans made in the block to a collector, the last of them within FLUSH_SECONDS after its end.

    collector: `http://host:port` or `https://…`; None: nothing happens. retry: send batches again that a collector did
    not accept. on_loss: called after the block with the reason when the last spans did not arrive; the log has every
    loss in any case. Raises SettingsError when the SDK is missing or an OTEL_ variable is wrong. Blocks at the end.
    """
    global _tracer
    if collector is None:
        yield
        return
    try:
        from minga_runtime.trace_export import TraceExport
    except ImportError as error:
        raise SettingsError("MINGA_TRACES needs the OpenTelemetry SDK: pip install 'minga-runtime[traces]'") from error
    export = TraceExport(collector, service, version, instance, retry=retry)
    _tracer = export.tracer
    try:
        yield
    finally:
        _tracer = None
        problem = export.close(FLUSH_SECONDS)
        if problem and on_loss is not None:
            on_loss(problem)
