"""The registry's log of what peers do, which no peer can fill."""

import logging
from collections import Counter
from typing import Any

from minga_core.clock import Clock
from minga_runtime.logs import log_event

WINDOW_SECONDS = 60.0
LINES_EACH = 60
"""Of one host in a window: a peer that goes in and out of reach stays below."""
LINES = 6_000
"""Of all hosts in a window: a fleet of ten thousand that starts at once loses some."""


class LimitedLog:
    """Logs events of callers up to a limit. How many were left out is said once the window is over."""

    def __init__(self, log: logging.Logger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._until = 0.0
        self._lines: Counter[str] = Counter()
        self._total = 0
        self._left_out = 0

    def event(self, level: int, name: str, caller: str, /, **fields: Any) -> None:
        """As `log_event`, for something that `caller`, a host, did."""
        if not self._log.isEnabledFor(level):
            return
        self._begin_window()
        if self._lines[caller] >= LINES_EACH or self._total >= LINES:
            self._left_out += 1
            return
        self._lines[caller] += 1
        self._total += 1
        log_event(self._log, level, name, **fields)

    def _begin_window(self) -> None:
        now = self._clock.monotonic()
        if now < self._until:
            return
        if self._left_out:
            log_event(self._log, logging.WARNING, "log_lines_left_out", count=self._left_out)
        self._until, self._left_out, self._total = now + WINDOW_SECONDS, 0, 0
        self._lines.clear()
