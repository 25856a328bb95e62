"""How fast bytes come, and when they do not: the best second, and pauses by cause."""

from collections import deque

from minga_engine.explanation import BEST_RATE_SECONDS, WaitCause
from minga_runtime.rate_limit import RateLimit

SLOT_SECONDS = 0.1
SLOTS = round(BEST_RATE_SECONDS / SLOT_SECONDS)
"""The window of the best rate: one second, moved by tenths."""
PAUSE_SECONDS = 0.5
"""A shorter time without a byte is no pause."""


class BestRate:
    """The most bytes in any second."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, int]] = deque()
        self._sum = 0
        self.so_far = 0
        """Most bytes within a second until now."""

    def add(self, count: int, at_seconds: float) -> None:
        """Bytes came."""
        slot = int(at_seconds / SLOT_SECONDS)
        if self._slots and self._slots[-1][0] == slot:
            count_before = self._slots.pop()[1]
            self._slots.append((slot, count_before + count))
        else:
            self._slots.append((slot, count))
        self._sum += count
        while self._slots[0][0] <= slot - SLOTS:
            self._sum -= self._slots.popleft()[1]
        self.so_far = max(self.so_far, self._sum)

    def best(self, fetching_seconds: float, total_bytes: int) -> float:
        """Bytes a second; the average when there was no whole second."""
        whole = BEST_RATE_SECONDS
        if fetching_seconds >= whole:
            return self.so_far / whole
        return total_bytes / fetching_seconds if fetching_seconds > 0 else 0.0


class Pauses:
    """Times without a byte, and what was waited for meanwhile."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._held_before = 0.0
        self._since = 0.0
        self._causes: dict[WaitCause, float] = {}
        self.seconds: dict[WaitCause, float] = {}
        self.longest_seconds = 0.0
        self.longest_cause: WaitCause | None = None

    def note(self, cause: WaitCause, seconds: float) -> None:
        """Time passed, for that cause if it turns out to be a pause."""
        self._causes[cause] = self._causes.get(cause, 0.0) + seconds

    def end(self, now: float, usual_seconds: float) -> None:
        """A byte came. usual_seconds: no shorter time is a pause."""
        seconds = now - self._since
        if seconds >= max(PAUSE_SECONDS, usual_seconds) and self._causes:
            if self._limit.held_seconds(now) - self._held_before > seconds / 2:
                self._causes = {WaitCause.LIMIT: seconds}
            for cause, part in self._causes.items():
                self.seconds[cause] = self.seconds.get(cause, 0.0) + part
            if seconds > self.longest_seconds:
                self.longest_seconds = seconds
                self.longest_cause = max(self._causes, key=lambda cause: self._causes[cause])
        self.restart(now)

    def restart(self, now: float) -> None:
        """Forgets what has passed since the last byte."""
        self._since = now
        self._held_before = self._limit.held_seconds(now)
        self._causes = {}
