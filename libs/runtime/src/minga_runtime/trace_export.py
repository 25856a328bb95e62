"""The export of spans to an OpenTelemetry collector (OTLP over gRPC). Imported only where traces are on.

Spans wait in a bounded queue that drops what does not fit, and a thread of the SDK sends them: a collector that is
away or slow costs the spans and one line in the log. OpenTelemetry's variables (OTEL_TRACES_SAMPLER, OTEL_BSP_…,
OTEL_EXPORTER_OTLP_… for headers and certificates, OTEL_RESOURCE_ATTRIBUTES) hold.
"""

import logging
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from minga_core.errors import SettingsError
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_VALUE = 2048
"""Characters of an attribute: above the longest file name. Names and paths come from other machines."""
_MAX_REASON = 300
# A command that ends waits only for a collector that answers and asks to be called again.
_ONCE = (grpc.StatusCode.RESOURCE_EXHAUSTED,)


class TraceExport:
    """A tracer, and the thread that sends its spans. See `tracing.export_traces` for the arguments."""

    def __init__(self, collector: str, service: str, version: str, instance: str, *, retry: bool) -> None:
        attributes = {
            "service.name": service,
            "service.namespace": "minga",
            "service.version": version,
            # In a cluster the host is the pod.
            "service.instance.id": instance or f"{socket.gethostname()}:{os.getpid()}",
        }
        limits = SpanLimits(max_span_attribute_length=MAX_VALUE)
        try:
            self._exporter = _Exporter(collector, retry=retry)
            self._processor = BatchSpanProcessor(self._exporter)
            # `close` has a time limit, which the SDK's own hook at the interpreter's exit does not have.
            provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False, span_limits=limits)
        except Exception as error:  # OpenTelemetry's variables are many, and so are the errors that they raise
            raise SettingsError(f"traces cannot be sent as the OTEL_ variables say: {error}") from error
        provider.add_span_processor(self._processor)
        self.tracer = provider.get_tracer("minga", version)

    def close(self, limit_seconds: float) -> str:
        """Send what is left within the limit, and stop. Returns why that failed, or an empty string. Blocking."""
        ending = threading.Thread(target=self._processor.shutdown, name="minga-traces-end", daemon=True)
        ending.start()
        ending.join(limit_seconds)
        if ending.is_alive():
            self._exporter.shutdown()  # interrupts the call under way
            return "no answer in time"
        return self._exporter.problem


class _Exporter(OTLPSpanExporter):
    """Sends batches. Logs once when that begins to fail, and once when it works again."""

    def __init__(self, collector: str, *, retry: bool) -> None:
        plain = urlsplit(collector).scheme == "http"
        # Machines of one network are reached directly, whatever proxy variables say.
        direct: Any = (("grpc.enable_http_proxy", 0),) if plain else None
        codes = None if retry else _ONCE
        super().__init__(collector, insecure=plain, channel_options=direct, retryable_error_codes=codes)
        self._collector = collector
        self._reasons = _LastReason()
        self.problem = ""
        """Why the last batch was lost; empty when it was not."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter."""
        result = super().export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost and not self.problem:
            log_event(log, logging.WARNING, "traces_lost", collector=self._collector, error=self._reasons.last)
        elif self.problem and not lost:
            log_event(log, logging.INFO, "traces_sent_again", collector=self._collector)
        self.problem = (self._reasons.last or "the collector does not accept them") if lost else ""
        return result


class _LastReason(logging.Handler):
    """Keeps the last line that OpenTelemetry logged, out of one for each attempt of each batch."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        logger = logging.getLogger("opentelemetry")
        logger.propagate = False
        logger.handlers[:] = [self]

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.last = record.getMessage()[:_MAX_REASON]
