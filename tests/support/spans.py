"""Traces that are on and kept in memory, for tests of what is traced. `collector` is for tests of the export."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.trace import NonRecordingSpan

from minga_runtime import tracing


class KeptSpan:
    """A span, in the words of the tests; it may still be open."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.traceparent = tracing.traceparent_of(span)
        self.parent = tracing.traceparent_of(NonRecordingSpan(span.parent)) if span.parent else ""
        self.kind = span.kind.name.lower()

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.span.attributes or {})

    @property
    def events(self) -> list[str]:
        return [event.name for event in self.span.events]

    @property
    def error(self) -> str:
        return str(self.attributes.get("error.type", ""))

    @property
    def ended(self) -> bool:
        return self.span.end_time is not None


class KeepingTracer(SpanProcessor):
    """Keeps the sampled spans, in the order of their start."""

    def __init__(self) -> None:
        self.spans: list[KeptSpan] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.spans.append(KeptSpan(span))

    def one(self, name: str) -> KeptSpan:
        """The span of that name; there is exactly one."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


@contextmanager
def keeping_spans() -> Iterator[KeepingTracer]:
    """Traces are on inside the block, and kept by what it gets."""
    kept, provider = KeepingTracer(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(kept)
    with patch.object(tracing, "_tracer", provider.get_tracer("test")):
        yield kept
