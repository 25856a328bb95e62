"""Which peers answers must name, and which they must not. Times are seconds of one monotonic clock."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf

STORE, REGISTRIES = "store", "registries"
SILENT = frozenset({"killed", "restarted", "power_lost", "index_lost", "paused", "cut"})
"""Faults under which a peer does not renew its lease."""


@dataclass(slots=True)
class Liveness:
    """Faults as they begin and end, and what follows from them."""

    lease_seconds: float
    slack_seconds: float
    """Between the end of a lease and its last appearance: the locator's cache and the watcher's own delay."""
    recovery_seconds: float
    """Within this after a fault a peer that lives is in the answers again, with all that it has."""
    registry_count: int
    longest_absence: float = 0.0
    """Seconds for which a peer was not listed although nothing kept it from announcing itself."""
    _silent_since: dict[str, float] = field(default_factory=dict)
    _disturbed_at: dict[str, float] = field(default_factory=dict)
    """Peer, STORE or REGISTRIES → when a fault was last on it; infinity while one is."""
    _registries_away: set[str] = field(default_factory=set)
    _absent_since: dict[tuple[str, str], float] = field(default_factory=dict)

    def begin(self, part: str, kind: str, now: float) -> None:
        """A fault begins. kind: of the part."""
        if kind == "registry":
            self._registries_away.add(part)
            # When others work, peers still need a moment to go there.
            self._disturbed_at[REGISTRIES] = inf if len(self._registries_away) == self.registry_count else now
        else:
            self._disturbed_at[part] = inf

    def silence(self, part: str, now: float) -> None:
        """A fault has begun under which a peer does not renew its lease."""
        self._silent_since[part] = now

    def revert(self, part: str) -> None:
        """A fault is about to be reverted: from here on a peer may renew its lease."""
        self._silent_since.pop(part, None)

    def end(self, part: str, kind: str, now: float) -> None:
        """A fault is reverted."""
        if kind == "registry":
            self._registries_away.discard(part)
            if self._disturbed_at[REGISTRIES] == inf:
                self._disturbed_at[REGISTRIES] = now
        else:
            self._disturbed_at[part] = now

    def calm_since(self, peer: str) -> float:
        """Since when there is no fault that keeps a peer, or all it has, out of answers; infinity while there is."""
        return max(self._disturbed_at.get(one, 0.0) for one in (peer, STORE, REGISTRIES))

    def silent(self, peers: Iterable[str], asked_at: float) -> Iterator[tuple[str, float]]:
        """Those that had been silent for longer than a lease when it was asked, and for how long."""
        for peer in peers:
            seconds = asked_at - self._silent_since.get(peer, asked_at)
            if seconds > self.lease_seconds + self.slack_seconds:
                yield peer, seconds

    def absent(
        self, locator: str, peers: Iterable[str], listed: set[str], asked_at: float
    ) -> Iterator[tuple[str, float]]:
        """Those that a locator has not listed for too long while store and a registry worked, and for how long."""
        for peer in peers:
            if peer in listed:
                self._absent_since.pop((locator, peer), None)
                continue
            # Nobody may have asked, or been answered, while a fault began and ended.
            since = max(self._absent_since.setdefault((locator, peer), asked_at), self.calm_since(peer))
            seconds = max(0.0, asked_at - since)
            self.longest_absence = max(self.longest_absence, seconds)
            if seconds > self.recovery_seconds:
                yield peer, seconds
