"""What every answer with `application/problem+json` (RFC 9457) has."""

import math

from minga_core.errors import WIRE_STATUS, BusyError, MingaError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
"""The `Retry-After` of retryable errors that name no time themselves. Clients add their own back-off."""


def retry_after_seconds(error: MingaError) -> int | None:
    """When the same request may succeed; None when not by waiting."""
    if isinstance(error, BusyError):
        return math.ceil(error.retry_after.total_seconds())
    return RETRY_AFTER_SECONDS if WIRE_STATUS[error.code].retryable else None
