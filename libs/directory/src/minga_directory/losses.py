"""Finding out that a Cluster has lost hints, so that peers push their tables again.

A table and its hints are in different slots. A primary that dies and is replaced by a replica, or that restarts from an
older file, loses its last writes (replication and the append-only file are both a little behind); if those were hints,
the peers' own slots know nothing of it, and revisions match. So each shard has a mark in its slot: the run id of the
process that has it. A mark that names no primary of now, or is missing, says that the shard has changed hands by death.
One that names another living primary says that it was moved slot by slot, which loses nothing.

Where all keys are on one server nothing of this is needed: what is lost there is the end of one history, in which a
commit comes after all of its hints, so a revision that matches says that the hints are there.
"""

import asyncio
import logging
import time
from typing import Any

from redis.exceptions import RedisError

from minga_directory import keys
from minga_directory.cluster import ClusterClient
from minga_directory.connection import Client

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks, however often the reaper passes."""


class LossWatch:
    """Looks at the marks. Any number of registries may do it at once: a loss noted twice costs a push more."""

    def __init__(self, client: Client, scripts: dict[str, Any]) -> None:
        self._client = client
        self._scripts = scripts
        self._looked = float("-inf")
        self._looks = 0
        self._lock = asyncio.Lock()

    async def before_first_push(self, losses: int) -> None:
        """Looks when no loss was ever noted: a Cluster that is new, or was emptied. What is pushed afterwards is not
        asked for again on account of shards that have no marks yet."""
        if losses or not isinstance(self._client, ClusterClient):
            return
        looks = self._looks
        async with self._lock:
            if self._looks == looks:
                await self._look(self._client)

    async def look(self) -> None:
        """Notes a loss, if there was one. Does nothing while some primary is away: there will be a next time."""
        if isinstance(self._client, ClusterClient) and time.monotonic() - self._looked > LOOK_SECONDS:
            async with self._lock:
                await self._look(self._client)

    async def _look(self, client: ClusterClient) -> None:
        self._looked = time.monotonic()
        self._looks += 1
        marks = keys.marks()
        try:
            owners, primaries = await client.incarnations(marks)
            async with client.pipeline() as pipe:
                for mark in marks:
                    pipe.get(mark)
                seen = [bytes(found or b"").decode() for found in await pipe.execute()]
            stale = [(mark, was) for mark, was in zip(marks, seen, strict=True) if owners.get(mark, was) != was]
            lost = [mark for mark, was in stale if was not in primaries]
            if lost:
                # Before the marks: whoever dies in between leaves it to the next one to note it again.
                await self._scripts["lost"]([keys.LOSSES], [])
            for mark, was in stale:
                await self._scripts["mark"]([mark], [was, owners[mark]])
        except (RedisError, OSError, TimeoutError):
            return
        if any(was for mark, was in stale if mark in lost):
            log.warning("redis_lost_hints", extra={"fields": {"shards": len(lost)}})
