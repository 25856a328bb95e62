"""A tracer that keeps its spans in memory, for tests of what is traced; `collector` is for how it gets there."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from typing import Any
from unittest.mock import patch

from minga_runtime import tracing
from minga_runtime.tracing import Attributes, Kind, Span, is_sampled


class KeptSpan:
    """Implements Span."""

    def __init__(self, number: int, name: str, kind: Kind, attributes: Attributes, parent: str) -> None:
        trace_id = parent[3:35] or f"{number:032x}"
        self.name, self.kind, self.parent = name, kind, parent
        self.recording = not parent or is_sampled(parent)
        self.traceparent = f"00-{trace_id}-{number:016x}-{parent[-2:] or '01'}"
        self.attributes: dict[str, Any] = {}
        self.events: list[tuple[str, Attributes]] = []
        self.error = ""
        self.ended = False
        self._token: Token[Span] | None = None
        self.set(attributes)

    def set(self, attributes: Attributes) -> None:
        self.attributes |= {name: value for name, value in attributes.items() if value is not None}

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        self.events.append((name, attributes or {}))

    def fail(self, error_type: str, sentence: str = "") -> None:
        self.error = error_type

    def rename(self, name: str) -> None:
        self.name = name

    def end(self, at_ns: int | None = None) -> None:
        assert not self.ended, f"{self.name} ended twice"
        self.ended = True

    def __enter__(self) -> Span:
        self._token = tracing.enter(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self.error = type(error).__name__
        assert self._token is not None
        tracing.leave(self._token)
        self.end()


class KeepingTracer:
    """Implements Tracer."""

    def __init__(self) -> None:
        self.spans: list[KeptSpan] = []
        self._numbers = itertools.count(1)

    def start(self, name: str, kind: Kind, attributes: Attributes, parent: Span) -> Span:
        span = KeptSpan(next(self._numbers), name, kind, attributes, parent.traceparent)
        self.spans.append(span)
        return span

    def close(self, limit_seconds: float) -> str:
        return ""

    def one(self, name: str) -> KeptSpan:
        """The span of that name; there is exactly one."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


@contextmanager
def keeping_spans() -> Iterator[KeepingTracer]:
    """Traces are on inside the block, and go to the tracer."""
    tracer = KeepingTracer()
    with patch.object(tracing, "_tracer", tracer):
        yield tracer
