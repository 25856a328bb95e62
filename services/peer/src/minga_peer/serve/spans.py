"""Serving chunks, as spans: one for each caller's span that asks, however many chunks it asks for.

A file of 1 GiB is 256 requests; a trace with a span for each would tell nothing that their sum does not. So requests
that bring the same traceparent are put together, until none came for a while; one that goes on for long is cut, so that
a trace shows how it goes, and a process that dies takes little with it.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field

from minga_core.clock import Clock
from minga_core.ids import ContentId
from minga_engine.wire.messages import SourceAddress
from minga_runtime import tracing
from minga_runtime.tracing import Span, is_sampled

NAME = "serve chunks"
IDLE_SECONDS = 2.0
"""A span that nobody asked for anything for so long has ended."""
LONGEST_SECONDS = 60.0
MAX_OPEN = 1024
"""Callers at once, as many as the bulk port's connections; with one more the one silent for longest has ended."""


@dataclass(slots=True)
class _Counts:
    """What one span tells."""

    requests: int = 0
    chunks: int = 0
    sent_bytes: int = 0
    busy_answers: int = 0
    queued_seconds: float = 0.0


@dataclass(slots=True)
class _Serving:
    """A caller's span that is served, and the span that is open for it here."""

    traceparent: str
    about: dict[str, str | None]
    span: Span
    began: float
    last: float
    last_ns: int
    under_way: int = 0
    counts: _Counts = field(default_factory=_Counts)


class ServedRequest:
    """One request, from being asked to its end."""

    __slots__ = ("_asked", "_clock", "_serving", "_spans")

    def __init__(self, spans: "ServeSpans", serving: _Serving, clock: Clock) -> None:
        self._spans = spans
        self._serving = serving
        self._clock = clock
        self._asked = clock.monotonic()
        serving.counts.requests += 1
        serving.under_way += 1

    def granted(self) -> None:
        """Its turn has come."""
        self._serving.counts.queued_seconds += self._clock.monotonic() - self._asked

    def busy(self) -> None:
        """It was turned away."""
        self._serving.counts.busy_answers += 1

    def ended(self, sent_bytes: int) -> None:
        """sent_bytes: of the chunk that went out whole; 0: none did."""
        serving = self._serving
        serving.under_way -= 1
        serving.counts.chunks += sent_bytes > 0
        serving.counts.sent_bytes += sent_bytes
        serving.last, serving.last_ns = self._clock.monotonic(), time.time_ns()
        self._spans.wait()


class ServeSpans:
    """The spans of one peer's serving. `close` it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: OrderedDict[tuple[str, ContentId], _Serving] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def request(self, traceparent: str, content_id: ContentId, caller: SourceAddress | None) -> ServedRequest | None:
        """A caller asks for a chunk. traceparent: parsed; None when nobody keeps its trace."""
        if not is_sampled(traceparent):
            return None
        key = traceparent, content_id
        serving = self._open.get(key)
        if serving is None:
            if len(self._open) >= MAX_OPEN:
                self._end(self._open.popitem(last=False)[1])
            serving = self._open[key] = self._begin(traceparent, content_id, caller)
        self._open.move_to_end(key)
        return ServedRequest(self, serving, self._clock)

    def _begin(self, traceparent: str, content_id: ContentId, caller: SourceAddress | None) -> _Serving:
        about = {"minga.content.id": str(content_id), "minga.peer.id": caller.peer_id if caller is not None else None}
        now = self._clock.monotonic()
        return _Serving(traceparent, about, tracing.served(NAME, traceparent, about), now, now, time.time_ns())

    def wait(self) -> None:
        """Looks, after a while, whether something has ended."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for key, serving in list(self._open.items()):
            if not serving.under_way and now - serving.last >= IDLE_SECONDS:
                self._end(self._open.pop(key))
            elif now - serving.began >= LONGEST_SECONDS:
                self._end(serving)
                serving.span = tracing.served(NAME, serving.traceparent, serving.about)
                serving.began, serving.counts = now, _Counts()
        if self._open:
            self.wait()

    @staticmethod
    def _end(serving: _Serving) -> None:
        counts = asdict(serving.counts) | {"queued_seconds": round(serving.counts.queued_seconds, 6)}
        serving.span.set({f"minga.serve.{name}": value for name, value in counts.items()})
        serving.span.end(None if serving.under_way else serving.last_ns)

    def close(self) -> None:
        """Ends what is open."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._open:
            self._end(self._open.popitem()[1])
