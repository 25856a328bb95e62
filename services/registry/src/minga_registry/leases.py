"""The length of leases, and this replica's memory of those it granted.

The memory is a convenience that may be lost or lie on another replica at any time. That is harmless because the
heartbeat interval never exceeds a third of the *default* lease: a replica that does not know what was granted renews
for the default, and the next heartbeat comes well within it.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta

from minga_core.ids import Generation, PeerId

MAX_REMEMBERED = 100_000
"""About 30 MB; peers above that get the default lease at each heartbeat."""


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
        """The interval of that peer's heartbeats."""
        third = min(granted, self.default_ttl) / 3
        return third if self.interval_limit is None else min(third, self.interval_limit)


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease granted here, with what its peer last reported."""

    generation: Generation
    ttl: timedelta
    free_bytes: int
    active_serves: int = 0


class Grants:
    """The last grants; of too many, the least recently renewed are dropped."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._grants: OrderedDict[PeerId, Grant] = OrderedDict()

    def remember(self, peer_id: PeerId, grant: Grant) -> None:
        """Keeps a grant, in place of the peer's last one."""
        self._grants[peer_id] = grant
        self._grants.move_to_end(peer_id)
        if len(self._grants) > self._limit:
            self._grants.popitem(last=False)

    def get(self, peer_id: PeerId, generation: Generation) -> Grant | None:
        """The grant of that generation; None when it is not remembered."""
        grant = self._grants.get(peer_id)
        return grant if grant is not None and grant.generation == generation else None

    def forget(self, peer_id: PeerId, generation: Generation) -> None:
        """Drops the grant of that generation."""
        if self.get(peer_id, generation) is not None:
            del self._grants[peer_id]
