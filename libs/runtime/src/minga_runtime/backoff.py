"""How long to wait before trying again."""

import random
from collections.abc import Iterator


def backoff(first_seconds: float, max_seconds: float, rng: random.Random | None = None) -> Iterator[float]:
    """Endless waits in seconds that double up to `max_seconds`, each shortened by lot to between half and all of it.

    The lot keeps many clients of one server from coming back in step.
    """
    chosen = rng or random.Random()  # noqa: S311 - jitter, not secrets
    seconds = first_seconds
    while True:
        yield seconds * chosen.uniform(0.5, 1.0)
        seconds = min(seconds * 2, max_seconds)
