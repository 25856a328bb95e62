"""Traces: one command's way through processes, as spans. Off unless `export_traces` is given a collector.

Like the log, the tracer is the process's own: `span("download")` goes to it from anywhere. While it is off, every
function here gives NO_SPAN after one comparison, and nothing of OpenTelemetry is imported; `minga_runtime.telemetry` is
the one module that does. What crosses processes is W3C's traceparent and nothing else (docs/adr/0012).
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Any, Literal, Protocol

TRACEPARENT = "traceparent"
"""Name of the header, in HTTP and in gRPC's metadata (https://www.w3.org/TR/trace-context/)."""
FLUSH_SECONDS = 1.0
"""What the end of a process may take longer for its last spans."""

Kind = Literal["internal", "client", "server"]
Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value | None]
"""By name; what is None is left out."""

_PATTERN = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Span(Protocol):
    """A piece of work with a beginning and an end. As a context manager it is the current one of its task, and of tasks
    started in the block; it ends with the block, with the error that leaves it. Otherwise: `end` it."""

    @property
    def traceparent(self) -> str:
        """What to send to whoever works for this span; empty without a trace."""
        ...

    @property
    def recording(self) -> bool:
        """Whether what is told to it goes anywhere; false without a trace, and in one that is not sampled."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Adds attributes."""
        ...

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Something happened now."""
        ...

    def fail(self, error_type: str, sentence: str = "") -> None:
        """It did not succeed. error_type: one of few words."""
        ...

    def rename(self, name: str) -> None:
        """For what is known only at the end."""
        ...

    def end(self, at_ns: int | None = None) -> None:
        """at_ns: wall time in nanoseconds; None: now. Once."""
        ...

    def __enter__(self) -> "Span": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None: ...


class Tracer(Protocol):
    """Makes spans and gets them to the collector."""

    def start(self, name: str, kind: Kind, attributes: Attributes, parent: Span) -> Span:
        """A span that begins now; a new trace when the parent has none."""
        ...

    def close(self, limit_seconds: float) -> str:
        """Sends what is left within the limit, and ends. Why that failed, empty when it did not. Blocking."""
        ...


class NoSpan:
    """No trace here. Stands for a caller's span, too: then it has nothing but a traceparent."""

    __slots__ = ("_token", "traceparent")

    recording = False

    def __init__(self, traceparent: str = "") -> None:
        self.traceparent = traceparent
        self._token: Token[Span] | None = None

    def set(self, attributes: Attributes) -> None:
        """See Span."""

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """See Span."""

    def fail(self, error_type: str, sentence: str = "") -> None:
        """See Span."""

    def rename(self, name: str) -> None:
        """See Span."""

    def end(self, at_ns: int | None = None) -> None:
        """See Span."""

    def __enter__(self) -> Span:
        if self.traceparent:
            self._token = enter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._token is not None:
            leave(self._token)


NO_SPAN: Span = NoSpan()

_current: ContextVar[Span] = ContextVar("minga_span", default=NO_SPAN)
_tracer: Tracer | None = None


def enabled() -> bool:
    """Whether this process makes traces. Decided once, at its start."""
    return _tracer is not None


def span(name: str, attributes: Attributes | None = None, *, parent: Span | None = None) -> Span:
    """Work of this process, part of the current span or of `parent`; a trace of its own where there is none."""
    if _tracer is None:
        return NO_SPAN
    return _tracer.start(name, "internal", attributes or {}, parent or _current.get())


def call(name: str, attributes: Attributes | None = None) -> Span:
    """Work that is asked of another process, for the current span. Without one there is none: calls that a process
    makes for its own upkeep are no traces."""
    if _tracer is None or not (parent := _current.get()).traceparent:
        return NO_SPAN
    return _tracer.start(name, "client", attributes or {}, parent)


def served(name: str, traceparent: str, attributes: Attributes | None = None) -> Span:
    """Work for a caller, whose traceparent is as it came: one that is malformed counts as none."""
    if _tracer is None:
        return NO_SPAN
    return _tracer.start(name, "server", attributes or {}, NoSpan(parse_traceparent(traceparent)))


def current() -> Span:
    """The span that this task works for."""
    return NO_SPAN if _tracer is None else _current.get()


def traceparent() -> str:
    """The current span's; empty without a trace."""
    return "" if _tracer is None else _current.get().traceparent


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What is done in the block is not told, here or by those who are asked for it."""
    traceparent = current().traceparent
    # As if the trace were not sampled; without any traceparent, others would begin traces of their own.
    token = _current.set(NoSpan(_not_sampled(traceparent)))
    try:
        yield
    finally:
        leave(token)


def parse_traceparent(text: str) -> str:
    """`text` when it is a traceparent of the version that there is, else empty: a trace is never worth an error."""
    return text if _PATTERN.fullmatch(text) else ""


def _not_sampled(traceparent: str) -> str:
    return f"{traceparent[:-2]}{int(traceparent[-2:], 16) & ~1:02x}" if traceparent else ""


def is_sampled(traceparent: str) -> bool:
    """Whether the caller's spans are kept. traceparent: parsed."""
    return bool(traceparent) and bool(int(traceparent[-2:], 16) & 1)


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
    """Spans made in the block go to the collector, the last of them within FLUSH_SECONDS after its end.

    collector: `http://host:port` or `https://…`; None: nothing happens. retry: batches that a collector does not take
    are sent again for a while. on_loss: hears after the block why the last spans did not arrive, if they did not; the
    log hears of every loss anyway. Raises SettingsError when a variable of OpenTelemetry is wrong. Blocks at the end.
    """
    global _tracer
    if collector is None:
        yield
        return
    from minga_runtime.telemetry import make_tracer

    tracer = _tracer = make_tracer(collector, service, version, instance, retry=retry)
    try:
        yield
    finally:
        _tracer = None
        problem = tracer.close(FLUSH_SECONDS)
        if problem and on_loss is not None:
            on_loss(problem)


# For those who implement Span.


def enter(span: Span) -> "Token[Span]":
    """Makes a span the current one."""
    return _current.set(span)


def leave(token: "Token[Span]") -> None:
    """Makes the span before it the current one again."""
    # A generator may be closed by another task than the one that began it; that one has its own current span.
    with contextlib.suppress(ValueError):
        _current.reset(token)
