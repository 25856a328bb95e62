"""Serving chunks as spans: one for each span of a caller, however many chunks it asks for.

A file of 1 GiB is 256 requests, and a span for each would show nothing that their sum does not. Requests with the same
traceparent are counted in one span until none came for IDLE_SECONDS; a span is cut after LONGEST_SECONDS, so that a
trace shows progress and a process that dies loses little of it.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field

from opentelemetry.trace import Span

from minga_core.clock import Clock
from minga_core.ids import ContentId
from minga_engine.wire.messages import SourceAddress
from minga_runtime import tracing

NAME = "serve chunks"
IDLE_SECONDS = 2.0
LONGEST_SECONDS = 60.0
MAX_OPEN = 1024
"""Open spans, as many as the HTTP server's connections. One more ends the span that was idle for longest."""


@dataclass(slots=True)
class _Counts:
    """The sums of one span, which become its attributes."""

    requests: int = 0
    chunks: int = 0
    sent_bytes: int = 0
    busy_answers: int = 0
    queued_seconds: float = 0.0


@dataclass(slots=True)
class _Serving:
    """A span of a caller, and the span that is open for it here."""

    traceparent: str
    attributes: dict[str, str | None]
    span: Span
    began: float
    last: float
    last_ns: int
    under_way: int = 0
    counts: _Counts = field(default_factory=_Counts)


class ServedRequest:
    """One request, from its arrival to its end."""

    __slots__ = ("_arrived", "_clock", "_serving", "_spans")

    def __init__(self, spans: "ServeSpans", serving: _Serving, clock: Clock) -> None:
        self._spans = spans
        self._serving = serving
        self._clock = clock
        self._arrived = clock.monotonic()
        serving.counts.requests += 1
        serving.under_way += 1

    def granted(self) -> None:
        """Count how long the request waited for its slot."""
        self._serving.counts.queued_seconds += self._clock.monotonic() - self._arrived

    def busy(self) -> None:
        """Count a request that got no slot."""
        self._serving.counts.busy_answers += 1

    def ended(self, sent_bytes: int) -> None:
        """Count the end of the request. sent_bytes: size of the chunk that was sent whole, or 0."""
        serving = self._serving
        serving.under_way -= 1
        serving.counts.chunks += sent_bytes > 0
        serving.counts.sent_bytes += sent_bytes
        serving.last, serving.last_ns = self._clock.monotonic(), time.time_ns()
        self._spans.schedule_check()


class ServeSpans:
    """The open spans of one peer's serving. The owner calls `close`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: OrderedDict[tuple[str, ContentId], _Serving] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def request(self, traceparent: str, content_id: ContentId, caller: SourceAddress | None) -> ServedRequest | None:
        """Count a request for a chunk; None when its trace is not sampled. traceparent: the header as it came."""
        key = traceparent, content_id
        serving = self._open.get(key)
        if serving is None:
            if not tracing.remote_span(traceparent).get_span_context().trace_flags.sampled:
                return None
            if len(self._open) >= MAX_OPEN:
                self._end(self._open.popitem(last=False)[1])
            serving = self._open[key] = self._begin(traceparent, content_id, caller)
        self._open.move_to_end(key)
        return ServedRequest(self, serving, self._clock)

    def _begin(self, traceparent: str, content_id: ContentId, caller: SourceAddress | None) -> _Serving:
        about = {"minga.content.id": str(content_id), "minga.peer.id": caller.peer_id if caller is not None else None}
        now = self._clock.monotonic()
        span = tracing.start_server_span(NAME, traceparent, about)
        return _Serving(traceparent, about, span, now, now, time.time_ns())

    def schedule_check(self) -> None:
        """Check after IDLE_SECONDS which spans have ended."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._check)

    def _check(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for key, serving in list(self._open.items()):
            if not serving.under_way and now - serving.last >= IDLE_SECONDS:
                self._end(self._open.pop(key))
            elif now - serving.began >= LONGEST_SECONDS:
                self._end(serving)
                serving.span = tracing.start_server_span(NAME, serving.traceparent, serving.attributes)
                serving.began, serving.counts = now, _Counts()
        if self._open:
            self.schedule_check()

    @staticmethod
    def _end(serving: _Serving) -> None:
        counts = asdict(serving.counts) | {"queued_seconds": round(serving.counts.queued_seconds, 6)}
        serving.span.set_attributes({f"minga.serve.{name}": value for name, value in counts.items()})
        serving.span.end(None if serving.under_way else serving.last_ns)

    def close(self) -> None:
        """End every open span."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._open:
            self._end(self._open.popitem()[1])
