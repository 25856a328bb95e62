"""The length of leases."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """The rules by which leases are granted. `RegistrySettings` checks their relations."""

    default_ttl: timedelta
    min_ttl: timedelta
    max_ttl: timedelta
    interval_limit: timedelta | None = None

    def grant(self, asked: timedelta | None) -> timedelta:
        """The lease for a peer that asked for `asked`, or for nothing."""
        return self.default_ttl if asked is None else max(self.min_ttl, min(asked, self.max_ttl))

    def interval(self, granted: timedelta) -> timedelta:
        """The interval of that peer's heartbeats. A long lease makes them no rarer: after a loss of all data every peer
        is asked for its table within two intervals of the default lease."""
        third = min(granted, self.default_ttl) / 3
        return third if self.interval_limit is None else min(third, self.interval_limit)
