"""An OpenTelemetry collector in the test's process: takes what is exported over OTLP/gRPC, and keeps it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc

KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True)
class SeenSpan:
    """A span as it arrived."""

    name: str
    kind: str
    service: str
    instance: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    events: tuple[str, ...]
    failed: bool
    seconds: float


class Collector(pb_grpc.TraceServiceServicer):
    """Keeps spans. stalled: takes requests and never answers them, until `close`."""

    def __init__(self, *, stalled: bool = False) -> None:
        self._stalled = stalled
        self._closed = threading.Event()
        self._spans: list[SeenSpan] = []
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        pb_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def address(self) -> str:
        """For MINGA_TRACES."""
        return f"127.0.0.1:{self.port}"

    def Export(self, request: Any, context: Any) -> Any:
        """See OTLP."""
        if self._stalled:
            self._closed.wait(60)
        with self._lock:
            self._spans += _spans(request)
        return pb.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[SeenSpan]:
        """All that came."""
        with self._lock:
            return list(self._spans)

    def named(self, name: str) -> list[SeenSpan]:
        """Those of that name."""
        return [span for span in self.spans if span.name == name]

    def close(self) -> None:
        """Stops at once."""
        self._closed.set()
        self._server.stop(None).wait(5)


@contextmanager
def collecting(*, stalled: bool = False) -> Iterator[Collector]:
    """A collector that runs inside the block."""
    collector = Collector(stalled=stalled)
    try:
        yield collector
    finally:
        collector.close()


class Trace:
    """One trace, as a tree."""

    def __init__(self, spans: list[SeenSpan]) -> None:
        self.spans = spans
        self._by_id = {span.span_id: span for span in spans}

    def one(self, name: str, **attributes: Any) -> SeenSpan:
        """The span of that name and those attributes (`_` for `.`); there is exactly one."""
        found = [span for span in self.all(name) if attributes.items() <= span.attributes.items()]
        assert len(found) == 1, f"{len(found)} spans {name!r}: {self.outline()}"
        return found[0]

    def all(self, name: str) -> list[SeenSpan]:
        """Those of that name."""
        return [span for span in self.spans if span.name == name]

    def path(self, span: SeenSpan) -> list[str]:
        """`service/name` from the root down to the span; a parent that is not there is `?`."""
        steps = [f"{span.service}/{span.name}"]
        while span.parent_id:
            found = self._by_id.get(span.parent_id)
            if found is None:
                return ["?", *reversed(steps)]
            span = found
            steps.append(f"{span.service}/{span.name}")
        return list(reversed(steps))

    def outline(self) -> str:
        """All paths, one a line."""
        return "\n".join(sorted(" > ".join(self.path(span)) for span in self.spans))


def traces_of(collector: Collector) -> list[Trace]:
    """What came, by trace."""
    by_id: dict[str, list[SeenSpan]] = {}
    for span in collector.spans:
        by_id.setdefault(span.trace_id, []).append(span)
    return [Trace(spans) for spans in by_id.values()]


def trace_with(collector: Collector, names: set[str], limit_seconds: float = 30.0) -> Trace:
    """The one trace that has spans of all those names, once it has come. Blocking."""
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        found = [trace for trace in traces_of(collector) if names <= {span.name for span in trace.spans}]
        if found:
            assert len(found) == 1, "more than one such trace"
            return found[0]
        time.sleep(0.05)
    outlines = "\n\n".join(trace.outline() for trace in traces_of(collector))
    raise AssertionError(f"no trace with all of {sorted(names)} came; these did:\n{outlines}")


def _spans(request: Any) -> list[SeenSpan]:
    found = []
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for scope in of_resource.scope_spans:
            found += [_span(span, resource) for span in scope.spans]
    return found


def _span(span: Any, resource: dict[str, Any]) -> SeenSpan:
    return SeenSpan(
        span.name,
        KINDS[span.kind],
        resource["service.name"],
        resource.get("service.instance.id", ""),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _attributes(span.attributes),
        tuple(event.name for event in span.events),
        span.status.code == 2,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None
