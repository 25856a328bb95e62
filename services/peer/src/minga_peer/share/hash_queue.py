"""Files that wait to be hashed: each until its settle time is over, then in batches over the threads.

Large files have a queue of their own, which leaves one thread free, so that a folder of huge files never keeps small
ones waiting.
"""

import asyncio
import heapq
import logging
import math
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from minga_core.clock import Clock
from minga_core.errors import ContentChangedError, InvalidArgumentError
from minga_core.names import Name
from minga_engine.parts.disk import DiskPool, SharedDescriptor
from minga_engine.parts.hashing import RANGE_BYTES, hash_descriptor, hash_large
from minga_peer.share.hashed import Hashed
from minga_peer.share.root import FoundFile, Root

log = logging.getLogger(__name__)

BATCH_FILES = 500
BATCH_BYTES = 32 * 1024 * 1024
"""Bounds of the small files that one job of a thread hashes, and that are then shared together."""
MAX_SETTLE_SECONDS = 60.0
"""A file that changes again and again is hashed after so much more than its settle time."""
IDLE_SECONDS = 3600.0
"""Longest wait for work; it only bounds the timer."""


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    """Files that settle in the same millisecond."""

    due: float
    names: list[Name] = field(default_factory=list)
    """Those of files that were removed, or put off, count no more."""


class _Waiting:
    """Files by the time at which they have settled, oldest first. A hundred thousand may come at once, and what they
    take decides how large the process is from then on."""

    def __init__(self) -> None:
        self.files: dict[Name, FoundFile] = {}
        self._due: dict[Name, float] = {}
        """Of each of them."""
        self._moments: dict[float, _Moment] = {}
        self._order: list[float] = []
        """A heap of their times."""

    def put(self, found: FoundFile, due: float) -> None:
        """Add a file, or put it off."""
        moment = self._moment(math.floor(due * 1000) / 1000)
        moment.names.append(found.name)
        # The number of the moment itself, and nothing that is made for this file alone.
        self._due[found.name] = moment.due
        self.files[found.name] = found

    def drop(self, name: Name) -> None:
        """Remove a file; no error when it is not there."""
        if self.files.pop(name, None) is not None:
            del self._due[name]

    def due(self, name: Name) -> float | None:
        """When a file has settled; None when it is not there."""
        return self._due.get(name)

    def shrink(self) -> None:
        """Free the memory of a large queue once it is empty: a dictionary is as large as it ever was."""
        if not self.files:
            self.files.clear()
            self._due.clear()

    def _moment(self, due: float) -> _Moment:
        if due not in self._moments:
            self._moments[due] = _Moment(due)
            heapq.heappush(self._order, due)
        return self._moments[due]

    def take(self, now: float, max_files: int, max_bytes: int) -> list[FoundFile]:
        """Remove settled files: at least one when there is one, then up to both limits."""
        batch: list[FoundFile] = []
        size_bytes = 0
        while (moment := self._next()) is not None and moment.due <= now:
            found = self.files[moment.names[-1]]
            if batch and (len(batch) == max_files or size_bytes + found.fingerprint.size_bytes > max_bytes):
                break
            self.drop(found.name)
            batch.append(found)
            size_bytes += found.fingerprint.size_bytes
        return batch

    def next_due(self) -> float | None:
        """When the next file has settled."""
        moment = self._next()
        return None if moment is None else moment.due

    def _next(self) -> _Moment | None:
        """The first moment with a file, which is its last one."""
        while self._order:
            moment = self._moments[self._order[0]]
            while moment.names:
                if self._due.get(moment.names[-1]) == moment.due:
                    return moment
                moment.names.pop()
            del self._moments[heapq.heappop(self._order)]
        return None


class HashQueue:
    """The queue and its workers. Only for the event loop's thread; `run` does the work.

    settle_seconds: how long a file must be left alone before it is hashed. now_ns: the time by the clock of the files'
    file system. recall: the outcomes of those files whose
    digests are known already; the others are hashed. on_hashed: gets the outcomes of each batch. An error that it
    raises is logged; the next scan finds the files again.
    """

    def __init__(
        self,
        root: Root,
        pool: DiskPool,
        clock: Clock,
        now_ns: Callable[[], int],
        settle_seconds: float,
        recall: Callable[[Sequence[FoundFile]], Awaitable[list[Hashed]]],
        on_hashed: Callable[[list[Hashed]], Awaitable[None]],
    ) -> None:
        self._root = root
        self._pool = pool
        self._clock = clock
        self._now_ns = now_ns
        self.settle_seconds = settle_seconds
        self._recall = recall
        self._on_hashed = on_hashed
        self._small = _Waiting()
        self._large = _Waiting()
        self._first_due: dict[Name, float] = {}
        """When files that were put off would have been hashed if they had not changed again."""
        self._changed = asyncio.Event()
        self._jobs: set[asyncio.Task[None]] = set()
        self._large_jobs = 0
        self._hashing: dict[Name, list[FoundFile]] = {}

    def __len__(self) -> int:
        return len(self._small.files) + len(self._large.files) + len(self._hashing)

    def __contains__(self, name: Name) -> bool:
        """Whether a file of that name waits or is being hashed."""
        return self.waiting(name) is not None or name in self._hashing

    def waiting(self, name: Name) -> FoundFile | None:
        """The file of that name that waits to be hashed; None when none does. From any thread."""
        return self._small.files.get(name) or self._large.files.get(name)

    def is_hashing(self, found: FoundFile) -> bool:
        """Whether exactly this state of the file is being hashed now."""
        return found in self._hashing.get(found.name, ())

    def put_found(self, found: FoundFile) -> None:
        """Queue a file that a scan has found: it has settled already if it was written long enough ago."""
        self._put(found, self._clock.monotonic() + self._unsettled_seconds(found))

    def put_changed(self, found: FoundFile) -> bool:
        """Queue a file that has changed just now; it replaces an earlier entry of that name.

        One that was moved or linked here as it is does not wait. Changes put a file off by MAX_SETTLE_SECONDS at most;
        whether they would have by more.
        """
        seconds = self.settle_seconds if found.name in self else self._unsettled_seconds(found)
        return self._put(found, self._clock.monotonic() + seconds)

    def _unsettled_seconds(self, found: FoundFile) -> float:
        """How much longer a file must be left alone. A program that sets the time of writing back has written all; one
        that goes on is found out by the file's other times once it is hashed. A time in the future says nothing."""
        age = (self._now_ns() - found.fingerprint.modified_ns) / 1e9
        return min(max(self.settle_seconds - age, 0.0), self.settle_seconds)

    def _put(self, found: FoundFile, due: float) -> bool:
        first_due = self._first_due_of(found.name, due)
        self.drop(found.name)
        if first_due != due:
            self._first_due[found.name] = first_due
        latest = first_due + MAX_SETTLE_SECONDS
        queue = self._large if found.fingerprint.size_bytes > RANGE_BYTES else self._small
        queue.put(found, min(due, latest))
        self._changed.set()
        return due > latest

    def _first_due_of(self, name: Name, due: float) -> float:
        """When a file would have been hashed that is to be at `due`, if it had not waited already."""
        dues = (self._first_due.get(name), self._small.due(name), self._large.due(name), due)
        return next(each for each in dues if each is not None)

    def drop(self, name: Name) -> None:
        """Remove a file that waits; no error when none does."""
        self._small.drop(name)
        self._large.drop(name)
        self._first_due.pop(name, None)

    async def run(self) -> None:
        """Hash until cancelled."""
        try:
            while True:
                self._changed.clear()
                has_room = self._start_jobs()
                await self._wait_for_work(has_room=has_room)
        finally:
            for job in self._jobs:
                job.cancel()
            await asyncio.gather(*self._jobs, return_exceptions=True)

    def _large_has_room(self) -> bool:
        return self._large_jobs < max(1, self._pool.threads - 1)

    def _start_jobs(self) -> bool:
        """Fill the threads; false when there is no room for small files."""
        now = self._clock.monotonic()
        while self._large_has_room() and (batch := self._large.take(now, 1, 0)):
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
            self._first_due.pop(found.name, None)

        async def job() -> None:
            try:
                await work(batch)
            finally:
                self._hashing_ended(batch)

        task = asyncio.create_task(job(), name="hash-batch")
        self._jobs.add(task)
        task.add_done_callback(self._job_ended)

    def _shrink(self) -> None:
        """Free the memory of a large queue once it is empty: a dictionary is as large as it ever was."""
        self._small.shrink()
        self._large.shrink()
        if not len(self):
            self._first_due.clear()
            self._hashing.clear()

    def _hashing_ended(self, batch: list[FoundFile]) -> None:
        for found in batch:
            states = self._hashing[found.name]
            states.remove(found)
            if not states:
                del self._hashing[found.name]
        self._shrink()

    def _job_ended(self, job: "asyncio.Task[None]") -> None:
        self._jobs.discard(job)
        self._changed.set()
        if not job.cancelled() and (error := job.exception()) is not None:
            log.error("hashing_failed", exc_info=error)

    async def _wait_for_work(self, *, has_room: bool) -> None:
        """Return when a file was queued, a job ended, or the next file has settled."""
        queues = [self._small] if has_room else []
        if self._large_has_room():
            queues.append(self._large)
        dues = [due for queue in queues if (due := queue.next_due()) is not None]
        wait = max(0.0, min(dues) - self._clock.monotonic()) if dues else IDLE_SECONDS
        try:
            async with asyncio.timeout(wait):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _hash_small(self, batch: list[FoundFile]) -> None:
        recalled = await self._recall(batch)
        known = {outcome.found.name for outcome in recalled}
        new = [found for found in batch if found.name not in known]
        hashed = await self._pool.run(self._hash_all, new) if new else []
        await self._on_hashed(recalled + hashed)

    def _hash_all(self, batch: list[FoundFile]) -> list[Hashed]:
        """Hash files, those of a folder together: walking to it takes as long as hashing a small file."""
        outcomes: list[Hashed] = []
        for folder, of_folder in groupby(sorted(batch, key=_folder_of), _folder_of):
            some = list(of_folder)
            try:
                with self._root.folder(folder) as parent:
                    outcomes += [self._hash_one(found, parent) for found in some]
            except OSError as error:
                outcomes += [Hashed.failed(found, error) for found in some]
        return outcomes

    def _hash_one(self, found: FoundFile, parent: int) -> Hashed:
        """Hash a file of an open folder."""
        try:
            descriptor = self._root.open_in(parent, found.path.rpartition("/")[2])
            try:
                return Hashed.of(found, *hash_descriptor(descriptor, found.path))
            finally:
                os.close(descriptor)
        except (ContentChangedError, InvalidArgumentError, OSError) as error:
            return Hashed.failed(found, error)

    async def _hash_large(self, batch: list[FoundFile]) -> None:
        try:
            outcomes = await self._recall(batch) or [await self._hash_in_ranges(batch[0])]
        finally:
            self._large_jobs -= 1
        await self._on_hashed(outcomes)

    async def _hash_in_ranges(self, found: FoundFile) -> Hashed:
        try:
            descriptor = SharedDescriptor(await self._pool.acquire(self._root.open, found.path, undo=os.close))
            try:
                return Hashed.of(found, *await hash_large(descriptor, self._pool, found.path))
            finally:
                descriptor.close()
        except (ContentChangedError, InvalidArgumentError, OSError) as error:
            return Hashed.failed(found, error)


def _folder_of(found: FoundFile) -> str:
    return found.path.rpartition("/")[0]
