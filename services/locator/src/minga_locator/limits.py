"""How much of anything the locator takes."""

from dataclasses import dataclass


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
    max_requests: int = 1_000
    """Requests to /v1 under way at once. More of them would only wait for the same connections to the store."""
