"""Limits on one request, and on how many are answered at once. Those of connections are in `connections`."""

from dataclasses import dataclass

MAX_REQUESTS = 1_000
"""About 0.2 s of work for one process: a client that queued behind more would wait longer than for a retry."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The limits of one app. The defaults are those of production; tests use smaller ones."""

    max_body_bytes: int = 64 * 1024
    """A request body of more bytes is refused with 413. Far above the longest name in its longest JSON spelling."""
    body_seconds: float = 3.0
    """A request body that is not complete after this many seconds is refused with 408."""
    request_seconds: float = 3.0
    """A handler may wait this many seconds for the store; then the answer is 503."""
    ready_seconds: float = 1.0
    """`/readyz` waits this many seconds for the store: one that is slower is not fit for clients."""
    max_requests: int = MAX_REQUESTS
    """Requests to /v1 answered at once, at most half of them for one host."""
    max_operator_requests: int = 32
    """Probes, scrapes and requests for the documentation answered at once, half of them for one host: more than any
    number of scrapers. Apart from /v1, so that its clients do not keep them out. `/livez` is always answered."""
