"""What the scheduler knows of each source.

::

    RESERVE ──connect──► CONNECTED ──lost, stalled, not held──► BACKING OFF ──► RESERVE
                              └──────────corrupt──────────────► BANNED
"""

import math
from dataclasses import dataclass, field

from minga_core.ids import PeerId


@dataclass(slots=True)
class Rate:
    """Bytes a second, averaged with an exponential memory; 0 until something came."""

    memory_seconds: float
    value: float = 0.0
    _since: float | None = None
    _bytes: int = 0

    def begin(self, now: float) -> None:
        """The source has work from now on."""
        if self._since is None:
            self._since = now

    def idle(self, now: float) -> None:
        """The source has no work any more: from now on time does not count."""
        self._settle(now)
        self._since = None

    def add(self, count: int, now: float) -> None:
        """Bytes came. Settles every tenth of the memory."""
        self._bytes += count
        if self._since is not None and now - self._since >= self.memory_seconds / 10:
            self._settle(now)
            self._since = now

    def _settle(self, now: float) -> None:
        if self._since is None:
            return
        seconds = max(now - self._since, 1e-3)
        if self._bytes:
            measured = self._bytes / seconds
            weight = 1.0 if self.value == 0 else 1 - math.exp(-seconds / self.memory_seconds)
            self.value += weight * (measured - self.value)
        self._bytes = 0


@dataclass(slots=True)
class Source:
    """One peer that has, or is getting, the content."""

    peer_id: PeerId
    complete: bool
    same_zone: bool
    rate: Rate
    bits: int = 0
    """Chunks it is known to have."""
    connected: bool = False
    outstanding: set[int] = field(default_factory=set)
    """Ids of its requests in flight."""
    last_progress: float = 0.0
    """When bytes or an answer last came from it, or it got its first request."""
    banned_until: float = 0.0
    """Not to be asked before; infinite for a source that sent a wrong chunk."""
    busy_until: float = 0.0
    """It has no slot before then, as it said."""
    losses: int = 0
    """Lost connections in a row."""
    wait_seconds: float = math.inf
    """How long the last request waited there before its chunk began; infinite before the first."""

    def usable(self, now: float) -> bool:
        """Whether it may get requests."""
        return self.connected and self.banned_until <= now and self.busy_until <= now

    def in_reserve(self, now: float) -> bool:
        """Whether it may be connected."""
        return not self.connected and self.banned_until <= now
