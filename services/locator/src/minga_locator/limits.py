"""How much of anything the locator takes."""

from dataclasses import dataclass

MAX_REQUESTS = 1_000
"""A fifth of a second's work for one process: whoever came after them would wait for longer than for another try."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one app. The defaults are those of production; tests take smaller ones."""

    max_body_bytes: int = 64 * 1024
    """Far above the longest name in its longest spelling."""
    body_seconds: float = 3.0
    """A body that has not come whole by then is not waited for."""
    request_seconds: float = 3.0
    """No request waits longer for the store: one that is slower than this is away."""
    ready_seconds: float = 1.0
    """A store that takes longer to answer a ping is not one to send clients to."""
    max_requests: int = MAX_REQUESTS
    """To /v1 under way at once, half of them of one host. Health and metrics are answered however many there are."""


def host_of(client: tuple[str, int] | None) -> str:
    """Whose share a request or a connection is of, by its client as ASGI has it. A proxy is one host."""
    return client[0] if client else ""
