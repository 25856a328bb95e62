"""Waits between retries."""

import random
from collections.abc import Iterator


def backoff(first_seconds: float, max_seconds: float, rng: random.Random | None = None) -> Iterator[float]:
    """Yield waits in seconds, without end: they double up to `max_seconds`, each times a random 0.5 to 1.

    The jitter keeps the clients of one server from retrying at the same time.
    """
    chosen = rng or random.Random()  # noqa: S311 - jitter, not secrets
    seconds = first_seconds
    while True:
        yield seconds * chosen.uniform(0.5, 1.0)
        seconds = min(seconds * 2, max_seconds)
