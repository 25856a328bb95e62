"""Time as an argument: code that decides by time gets a Clock, which tests can advance."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of the current time."""

    def monotonic(self) -> float:
        """Seconds that never go back; for deadlines and rates."""
        ...

    def wall(self) -> float:
        """Unix time in seconds, for files and display, never for decisions about expiry."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    def wall(self) -> float:
        """See Clock."""
        return time.time()


class ManualClock:
    """A clock that stands still until it is advanced; for tests and simulations."""

    def __init__(self, monotonic_seconds: float = 0.0, wall_seconds: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic_seconds
        self._wall = wall_seconds

    def advance(self, seconds: float) -> None:
        """Move both readings forward."""
        self._monotonic += seconds
        self._wall += seconds

    def monotonic(self) -> float:
        """See Clock."""
        return self._monotonic

    def wall(self) -> float:
        """See Clock."""
        return self._wall
