"""Files that wait to be hashed: each until it is quiet, then in batches over the threads.

Large files have lanes of their own, one fewer than there are threads, so that a folder of huge files never keeps small
ones waiting.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from minga_core.clock import Clock
from minga_core.errors import ContentChangedError, InvalidArgumentError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_engine.parts.disk import DiskPool, SharedDescriptor
from minga_engine.parts.files import Stamp
from minga_engine.parts.hashing import RANGE_BYTES, hash_descriptor, hash_large
from minga_peer.share.root import FoundFile, Root, shown

log = logging.getLogger(__name__)

BATCH_FILES = 500
BATCH_BYTES = 32 * 1024 * 1024
"""Small files are hashed so many, or so many bytes, to a thread's job, and told together."""
IDLE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file's outcome: digests, or a problem, or neither (it changed, or is gone: look again)."""

    found: FoundFile
    manifest: Manifest | None = None
    content_id: ContentId | None = None
    stamp: Stamp | None = None
    problem: str = ""

    @classmethod
    def of(cls, found: FoundFile, manifest: Manifest, stamp: Stamp) -> "Hashed":
        """A file that was hashed."""
        return cls(found, manifest, manifest.content_id, stamp)

    @classmethod
    def refused(cls, found: FoundFile, tried: str, error: OSError) -> "Hashed":
        """A file that the disk does not give us. tried: `opened` or `read`."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return cls(found)
        return cls(found, problem=f"{shown(found.path)} cannot be {tried}: {(error.strerror or '').lower()}")


class _Lane:
    """Files by when they will have been quiet, oldest first."""

    def __init__(self) -> None:
        self.due: dict[Name, tuple[float, FoundFile]] = {}

    def take(self, now: float, max_files: int, max_bytes: int) -> list[FoundFile]:
        """Quiet files, taken out: at least one when there is one, then up to both limits."""
        batch: list[FoundFile] = []
        size_bytes = 0
        for due, found in self.due.values():
            if due > now:
                continue
            if batch and (len(batch) == max_files or size_bytes + found.stamp.size_bytes > max_bytes):
                break
            batch.append(found)
            size_bytes += found.stamp.size_bytes
        for found in batch:
            del self.due[found.name]
        return batch

    def next_due(self) -> float | None:
        """When the next file will have been quiet."""
        return min((due for due, _ in self.due.values()), default=None)


class HashQueue:
    """The queue and its workers. Only for the event loop's thread; `run` does the work.

    taken: gets the outcomes of each batch. What it raises is logged; the files are found again by the next scan.
    """

    def __init__(
        self, root: Root, pool: DiskPool, clock: Clock, taken: Callable[[list[Hashed]], Awaitable[None]]
    ) -> None:
        self._root = root
        self._pool = pool
        self._clock = clock
        self._taken = taken
        self._small = _Lane()
        self._large = _Lane()
        self._changed = asyncio.Event()
        self._jobs: set[asyncio.Task[None]] = set()
        self._large_jobs = 0
        self._hashing: dict[Name, list[FoundFile]] = {}

    def __len__(self) -> int:
        return len(self._small.due) + len(self._large.due) + len(self._hashing)

    def __contains__(self, name: Name) -> bool:
        """Whether that name waits or is being hashed."""
        return name in self._small.due or name in self._large.due or name in self._hashing

    def is_hashing(self, found: FoundFile) -> bool:
        """Whether that very state of the file is being hashed now."""
        return found in self._hashing.get(found.name, ())

    def put(self, found: FoundFile, due: float) -> None:
        """Takes a file that is to be hashed at that monotonic time; a second time for one name replaces the first."""
        is_large = found.stamp.size_bytes > RANGE_BYTES
        lane, other = (self._large, self._small) if is_large else (self._small, self._large)
        other.due.pop(found.name, None)
        lane.due[found.name] = (due, found)
        self._changed.set()

    def drop(self, name: Name) -> None:
        """Forgets a file that waits; no error when it does not."""
        self._small.due.pop(name, None)
        self._large.due.pop(name, None)

    async def run(self) -> None:
        """Hashes until cancelled."""
        try:
            while True:
                self._changed.clear()
                has_room = self._start_jobs()
                await self._wait_for_work(has_room=has_room)
        finally:
            for job in self._jobs:
                job.cancel()
            await asyncio.gather(*self._jobs, return_exceptions=True)

    def _large_lane_is_free(self) -> bool:
        return self._large_jobs < max(1, self._pool.threads - 1)

    def _start_jobs(self) -> bool:
        """Fills the threads; false when there is no room for small files."""
        now = self._clock.monotonic()
        while self._large_lane_is_free() and (batch := self._large.take(now, 1, 0)):
            self._large_jobs += 1
            self._start(self._hash_large, batch)
        while len(self._jobs) - self._large_jobs < self._pool.threads:
            batch = self._small.take(now, BATCH_FILES, BATCH_BYTES)
            if not batch:
                return True
            self._start(self._hash_small, batch)
        return False

    def _start(self, work: Callable[[list[FoundFile]], Awaitable[None]], batch: list[FoundFile]) -> None:
        for found in batch:
            self._hashing.setdefault(found.name, []).append(found)

        async def counted() -> None:
            try:
                await work(batch)
            finally:
                self._hashing_ended(batch)

        job = asyncio.create_task(counted(), name="hash-batch")
        self._jobs.add(job)
        job.add_done_callback(self._job_ended)

    def _hashing_ended(self, batch: list[FoundFile]) -> None:
        for found in batch:
            states = self._hashing[found.name]
            states.remove(found)
            if not states:
                del self._hashing[found.name]

    def _job_ended(self, job: "asyncio.Task[None]") -> None:
        self._jobs.discard(job)
        self._changed.set()
        if not job.cancelled() and (error := job.exception()) is not None:
            log.error("hashing_failed", exc_info=error)

    async def _wait_for_work(self, *, has_room: bool) -> None:
        """Returns when something was put in, a job ended, or the next file has become quiet."""
        wait = IDLE_SECONDS
        lanes = [self._small] if has_room else []
        if self._large_lane_is_free():
            lanes.append(self._large)
        dues = [due for lane in lanes if (due := lane.next_due()) is not None]
        if dues:
            wait = max(0.0, min(dues) - self._clock.monotonic())
        try:
            async with asyncio.timeout(wait):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _hash_small(self, batch: list[FoundFile]) -> None:
        await self._taken(await self._pool.run(self._hash_files, batch))

    def _hash_files(self, batch: list[FoundFile]) -> list[Hashed]:
        return [self._hash_one(found) for found in batch]

    def _hash_one(self, found: FoundFile) -> Hashed:
        try:
            descriptor = self._root.open(found.path)
        except OSError as error:
            return Hashed.refused(found, "opened", error)
        try:
            return Hashed.of(found, *hash_descriptor(descriptor, found.path))
        except ContentChangedError:
            return Hashed(found)
        except InvalidArgumentError as error:
            return Hashed(found, problem=f"{shown(found.path)} cannot be shared: {error}")
        except OSError as error:
            return Hashed.refused(found, "read", error)
        finally:
            os.close(descriptor)

    async def _hash_large(self, batch: list[FoundFile]) -> None:
        try:
            outcome = await self._hash_in_ranges(batch[0])
        finally:
            self._large_jobs -= 1
        await self._taken([outcome])

    async def _hash_in_ranges(self, found: FoundFile) -> Hashed:
        try:
            number = await self._pool.acquire(self._root.open, found.path, undo=os.close)
        except OSError as error:
            return Hashed.refused(found, "opened", error)
        descriptor = SharedDescriptor(number)
        try:
            return Hashed.of(found, *await hash_large(descriptor, self._pool, found.path))
        except ContentChangedError:
            return Hashed(found)
        except InvalidArgumentError as error:
            return Hashed(found, problem=f"{shown(found.path)} cannot be shared: {error}")
        except OSError as error:
            return Hashed.refused(found, "read", error)
        finally:
            descriptor.close()
