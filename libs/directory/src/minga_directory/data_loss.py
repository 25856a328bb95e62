"""Detect that a Cluster has lost index entries, so that peers push their tables again.

A table and its index entries are in different slots. A primary that is replaced by a replica, or that restarts from an
older file, loses its last writes (replication and the append-only file are both a little behind); if those were index
entries, the peers' own slots know nothing of it, and revisions match. So each shard has an incarnation marker in its
slot: the run id of the process that has it. A marker that is missing, or names no primary of now, means that the
shard's process died. One that names another living primary means that the slot was moved, which loses nothing.

One server needs none of this: what is lost there is the end of one history, in which a commit comes after all of its
index entries, so a revision that matches says that they are there.
"""

import asyncio
import logging
import time

from redis.exceptions import RedisError

from minga_directory import keys
from minga_directory.cluster import ClusterStore
from minga_directory.scripts import evalsha

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
"""Between two checks, however often the registry collects garbage."""


class DataLossDetector:
    """Compares incarnation markers. Any number of registries may do so at once: a loss recorded twice costs a push.

    store: None where a loss needs no detection.
    """

    def __init__(self, store: ClusterStore | None) -> None:
        self._store = store
        self._checked_at = float("-inf")
        self._checks = 0
        self._lock = asyncio.Lock()

    async def before_first_push(self, data_loss: int) -> None:
        """Checks when no loss was ever recorded: a Cluster that is new, or was emptied. What is pushed afterwards is
        not asked for again on account of shards that have no markers yet."""
        if data_loss or self._store is None:
            return
        checks = self._checks
        async with self._lock:
            if self._checks == checks:
                await self._check(self._store)

    async def check(self) -> None:
        """Records a loss, if there was one. Does nothing while a primary is away: the next check will."""
        if self._store is not None and time.monotonic() - self._checked_at > CHECK_SECONDS:
            async with self._lock:
                await self._check(self._store)

    async def _check(self, store: ClusterStore) -> None:
        self._checked_at = time.monotonic()
        self._checks += 1
        markers = keys.incarnations()
        try:
            owners, primaries = await store.incarnations(markers)
            seen = [bytes(found or b"").decode() for found in await store.run([("GET", each) for each in markers])]
            stale = [(each, was) for each, was in zip(markers, seen, strict=True) if owners.get(each, was) != was]
            lost = [each for each, was in stale if was not in primaries]
            if lost:
                # Before the markers: a registry that dies in between leaves it to the next one to record it again.
                await store.script("draw", [keys.DATA_LOSS], [])
            await store.run([evalsha("set_incarnation", [each], [was, owners[each]]) for each, was in stale])
        except (RedisError, OSError, TimeoutError):
            return
        if any(was for each, was in stale if each in lost):
            log.warning("redis_data_loss", extra={"fields": {"shards": len(lost)}})
