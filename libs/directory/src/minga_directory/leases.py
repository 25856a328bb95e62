"""The index of leases by the time they end, and what heartbeats tell of a store that has lost everything."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import chain

from minga_core.ids import PeerId
from minga_core.records import Lease
from minga_directory import keys
from minga_directory.scripts import evalsha
from minga_directory.store import Command, Store

MAX_RECOVERY_SECONDS = 1_800
"""After a loss, for so long peers that have yet to push keep the directory recovering."""


def millis(duration: timedelta) -> int:
    """Whole milliseconds."""
    return int(duration / timedelta(milliseconds=1))


def check_lease(lease: Lease) -> Command:
    """The command that asks whether that lease lives; script `check_lease` says what it answers."""
    return evalsha("check_lease", [keys.peer(lease.peer_id)], [lease.generation, lease.token])


class LeaseIndex:
    """Written after the leases themselves, which alone decide whether a peer lives.

    warm_up: how long it takes all peers to push their tables to a store that has lost everything; 0: not tracked.
    """

    def __init__(self, store: Store, warm_up: timedelta) -> None:
        self._store = store
        self._warm_up_millis = millis(warm_up)

    async def update(self, leases: Sequence[tuple[PeerId, int]], *, all_pushed: bool = True) -> int:
        """Writes the ends of leases that live (at least one), each with the milliseconds that it has left.

        all_pushed: none of these peers has yet to push its table. Returns the number of the last data loss.
        """
        recovery_seconds = 0 if all_pushed or not self._warm_up_millis else MAX_RECOVERY_SECONDS
        arguments = [self._warm_up_millis, recovery_seconds, *chain.from_iterable(leases)]
        index = [keys.LEASES, keys.PEERS, keys.DATA_LOSS, keys.EPOCH, keys.WARM_UP, keys.RECOVERING]
        return int(await self._store.script("index_leases", index, arguments))

    async def lease_missing(self) -> None:
        """Records that a peer that had a lease has none, which during warm-up means that the store lost everything."""
        if self._warm_up_millis:
            epoch = [keys.EPOCH, keys.WARM_UP, keys.RECOVERING]
            await self._store.script("lease_missing", epoch, [self._warm_up_millis])

    async def drop(self, peer_id: PeerId, end: str) -> None:
        """Removes a peer whose lease is over, unless its entry has changed since `end` was read."""
        await self._store.script("drop_lease", [keys.LEASES, keys.PEERS], [peer_id, end])

    async def counts(self) -> tuple[int, int]:
        """Leases that live, and leases that have ended and are not collected yet."""
        alive, ended = await self._store.script("lease_counts", [keys.LEASES], [])
        return int(alive), int(ended)
