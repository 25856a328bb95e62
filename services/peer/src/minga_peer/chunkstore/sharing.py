"""Keeps the catalog true to the shared folder: scan, watch, hash what is new once it is quiet."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from minga_core.clock import Clock
from minga_core.errors import ContentChangedError, InvalidNameError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name, parse_name
from minga_core.records import RowKey
from minga_peer.chunkstore.catalog import Catalog
from minga_peer.chunkstore.disk import DiskPool
from minga_peer.chunkstore.hasher import hash_descriptor
from minga_peer.chunkstore.index import Index, IndexedFile
from minga_peer.chunkstore.root import FoundFile, Root, Scan, Stamp
from minga_peer.chunkstore.watch import changed_paths
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

BATCH_FILES = 64
BATCH_BYTES = 8 * 1024 * 1024
"""Small files are hashed so many, or so many bytes, to a thread's job."""
IDLE_SECONDS = 3600.0


class StoreMetrics(Protocol):
    """What the store counts."""

    def hash_cache_hits(self, count: int) -> None:
        """Files whose digests the index knew."""
        ...

    def hash_cache_misses(self, count: int) -> None:
        """Files that had to be hashed."""
        ...

    def hashed_bytes(self, count: int) -> None:
        """Bytes hashed."""
        ...


@dataclass(frozen=True, slots=True)
class _Hashed:
    """A file's outcome: a manifest, or a problem, or neither (it changed, or is gone: look again)."""

    found: FoundFile
    manifest: Manifest | None = None
    stamp: Stamp | None = None
    problem: str = ""


@dataclass(slots=True)
class _Pending:
    """Files to be hashed, by when they will have been quiet."""

    due: dict[Name, tuple[float, FoundFile]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, found: FoundFile, due: float) -> None:
        self.due[found.name] = (due, found)
        self.changed.set()


class Sharing:
    """The loop that shares a folder."""

    def __init__(
        self,
        root: Root,
        catalog: Catalog,
        index: Index,
        pool: DiskPool,
        clock: Clock,
        metrics: StoreMetrics,
        *,
        threads: int,
        quiet_seconds: float,
        rescan_seconds: float,
    ) -> None:
        self._root = root
        self._catalog = catalog
        self._index = index
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        self._threads = threads
        self._quiet_seconds = quiet_seconds
        self._rescan_seconds = rescan_seconds
        self._pending = _Pending()
        self._known: dict[Name, IndexedFile] = {}
        self._scanned = asyncio.Event()
        self._rescan = asyncio.Event()
        self._hashing_count = 0
        self.problems: dict[str, str] = {}
        """Relative path → why it is not shared."""

    @property
    def pending_count(self) -> int:
        """Files found but not hashed yet."""
        return len(self._pending.due) + self._hashing_count

    def start_from(self, known: dict[Name, IndexedFile]) -> None:
        """What the index knows; those whose stamps still hold are shared without hashing."""
        self._known = known

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="share-watch")
            group.create_task(self._scan_regularly(), name="share-scan")
            group.create_task(self._hash_pending(), name="share-hash")

    async def first_scan_done(self) -> None:
        """Returns once the folder was scanned and everything found was hashed or put off."""
        await self._scanned.wait()

    def rescan(self) -> None:
        """Asks for a scan now."""
        self._rescan.set()

    def look_again(self, file: IndexedFile) -> None:
        """A file is not what was hashed any more: it is unlisted at once and hashed when it is quiet."""
        if self._catalog.files.get(file.name) == file:
            self._catalog.change(remove=[file.name])
        self._pending.put(FoundFile(file.name, file.path, file.stamp), self._quiet_at())

    # Finding.

    async def _scan_regularly(self) -> None:
        while True:
            self._rescan.clear()
            scan = await self._pool.run(self._root.scan)
            await self._compare(scan, whole=True)
            self._scanned.set()
            try:
                async with asyncio.timeout(self._rescan_seconds):
                    await self._rescan.wait()
            except TimeoutError:
                continue

    async def _compare(self, scan: Scan, *, whole: bool) -> None:
        """Takes what a scan found: shares what is known, puts off what is new, unlists what is gone."""
        if whole:
            self.problems = dict(scan.problems)
        else:
            self.problems |= scan.problems
        known: list[IndexedFile] = []
        for found in scan.files.values():
            if self._is_shared(found):
                continue
            file = self._known.get(found.name)
            if file is not None and (file.path, file.stamp) == (found.path, found.stamp):
                known.append(file)
            elif found.name not in self._pending.due:
                self._pending.put(found, self._quiet_since(found.stamp))
        self._metrics.hash_cache_hits(len(known))
        self._catalog.change(put=known)
        if whole:
            await self._forget([name for name in self._catalog.files if name not in scan.files])

    def _is_shared(self, found: FoundFile) -> bool:
        shared = self._catalog.files.get(found.name)
        return shared is not None and (shared.path, shared.stamp) == (found.path, found.stamp)

    async def _forget(self, names: list[Name]) -> None:
        """Unlists names, unless their files are there after all: a scan may be older than a download."""
        gone = [name for name in names if await self._pool.run(self._root.look, self._catalog.files[name].path) is None]
        if not gone:
            return
        self._catalog.change(remove=gone)
        for name in gone:
            self._known.pop(name, None)
        await self.in_index(self._index.write, (), gone)

    async def _watch(self) -> None:
        await self._scanned.wait()
        async with aclosing(changed_paths(self._root.path)) as news:
            # What changed between the scan and the watch's start is found by a second look.
            self._rescan.set()
            async for paths in news:
                for path in paths:
                    await self._look_at(path)

    async def _look_at(self, path: str) -> None:
        """One path that changed: a file, a folder, or something gone."""
        stamp = await self._pool.run(self._root.look, path)
        if stamp is not None:
            self._file_changed(path, stamp)
            return
        scan = await self._pool.run(self._root.scan, path)
        await self._compare(scan, whole=False)
        parts = PurePosixPath(path).parts
        below = [
            name
            for name, file in self._catalog.files.items()
            if PurePosixPath(file.path).parts[: len(parts)] == parts and name not in scan.files
        ]
        await self._forget(below)

    def _file_changed(self, path: str, stamp: Stamp) -> None:
        try:
            found = FoundFile(parse_name(path), path, stamp)
        except InvalidNameError as error:
            self.problems[path] = str(error)
            return
        rival = self._catalog.files.get(found.name)
        if rival is not None and rival.path != path and rival.path == found.name:
            self.problems[path] = f"{found.name} is there in another Unicode form too; that one is shared"
            return
        if not self._is_shared(found):
            self._pending.put(found, self._quiet_at())

    def _quiet_at(self) -> float:
        """When a file that changed just now will have been quiet."""
        return self._clock.monotonic() + self._quiet_seconds

    def _quiet_since(self, stamp: Stamp) -> float:
        """When a file that was found will have been quiet: now, if its last change is long enough ago."""
        age = self._clock.wall() - stamp.modified_ns / 1e9
        left = self._quiet_seconds - age if 0 <= age < self._quiet_seconds else 0.0
        return self._clock.monotonic() + left

    # Hashing.

    async def _hash_pending(self) -> None:
        """Hashes what has become quiet, as many jobs at once as there are threads."""
        jobs: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._pending.changed.clear()
                while len(jobs) < self._threads and (batch := self._next_batch()):
                    job = asyncio.create_task(self._hash_batch(batch), name="share-hash-batch")
                    jobs.add(job)
                    job.add_done_callback(self._job_ended(jobs))
                await self._wait_for_work(has_room=len(jobs) < self._threads)
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    def _job_ended(self, jobs: "set[asyncio.Task[None]]") -> "Callable[[asyncio.Task[None]], None]":
        def ended(job: "asyncio.Task[None]") -> None:
            jobs.discard(job)
            self._pending.changed.set()
            if not job.cancelled() and (error := job.exception()) is not None:
                log.error("hashing_failed", exc_info=error)

        return ended

    async def _wait_for_work(self, *, has_room: bool) -> None:
        """Returns when something was put in, a job ended, or the next file has become quiet."""
        wait = IDLE_SECONDS
        if has_room and self._pending.due:
            wait = max(0.0, min(due for due, _ in self._pending.due.values()) - self._clock.monotonic())
        try:
            async with asyncio.timeout(wait):
                await self._pending.changed.wait()
        except TimeoutError:
            return

    def _next_batch(self) -> list[FoundFile]:
        """Quiet files for one job, taken out of the pending ones."""
        now = self._clock.monotonic()
        batch: list[FoundFile] = []
        size_bytes = 0
        for due, found in self._pending.due.values():
            if due > now:
                continue
            if len(batch) == BATCH_FILES or (batch and size_bytes + found.stamp.size_bytes > BATCH_BYTES):
                break
            batch.append(found)
            size_bytes += found.stamp.size_bytes
        for found in batch:
            del self._pending.due[found.name]
        self._hashing_count += len(batch)
        return batch

    async def _hash_batch(self, batch: list[FoundFile]) -> None:
        try:
            outcomes = await self._pool.run(self._hash_files, batch)
            await self._take_hashed(outcomes)
        finally:
            self._hashing_count -= len(batch)

    def _hash_files(self, batch: list[FoundFile]) -> list[_Hashed]:
        return [self._hash_one(found) for found in batch]

    def _hash_one(self, found: FoundFile) -> _Hashed:
        try:
            descriptor = self._root.open(found.path)
        except FileNotFoundError:
            return _Hashed(found)
        except OSError as error:
            return _Hashed(found, problem=f"cannot be opened: {error.strerror}")
        try:
            manifest, stamp = hash_descriptor(descriptor, found.path)
            return _Hashed(found, manifest, stamp)
        except ContentChangedError:
            return _Hashed(found)
        except OSError as error:
            return _Hashed(found, problem=f"cannot be read: {error.strerror}")
        finally:
            os.close(descriptor)

    async def _take_hashed(self, outcomes: Iterable[_Hashed]) -> None:
        """Shares what was hashed; looks again at what changed meanwhile."""
        files: list[tuple[IndexedFile, Manifest]] = []
        for outcome in outcomes:
            if outcome.manifest is not None and outcome.stamp is not None:
                self.problems.pop(outcome.found.path, None)
                files.append(
                    (self._indexed(outcome.found, outcome.manifest.content_id, outcome.stamp), outcome.manifest)
                )
            elif outcome.problem:
                self._refuse(outcome)
            elif (stamp := await self._pool.run(self._root.look, outcome.found.path)) is not None:
                again = FoundFile(outcome.found.name, outcome.found.path, stamp)
                self._pending.put(again, self._quiet_at())
        if files:
            self._metrics.hash_cache_misses(len(files))
            self._metrics.hashed_bytes(sum(file.stamp.size_bytes for file, _ in files))
            await self.share(files)

    def _refuse(self, outcome: _Hashed) -> None:
        if self.problems.get(outcome.found.path) != outcome.problem:
            log_event(log, logging.WARNING, "file_not_shared", path=outcome.found.path, why=outcome.problem)
        self.problems[outcome.found.path] = outcome.problem
        if outcome.found.name in self._catalog.files:
            self._catalog.change(remove=[outcome.found.name])

    def _indexed(self, found: FoundFile, content_id: ContentId, stamp: Stamp) -> IndexedFile:
        """A file's entry; the same content under the same name keeps its publishing time."""
        before = self._catalog.files.get(found.name) or self._known.get(found.name)
        same = before is not None and before.content_id == content_id
        published_ns = before.published_ns if before is not None and same else int(self._clock.wall() * 1e9)
        return IndexedFile(found.name, found.path, stamp, content_id, published_ns)

    async def share(self, files: list[tuple[IndexedFile, Manifest]], part_remove: Iterable[RowKey] = ()) -> None:
        """Writes files into the index, then the catalog: what is told to others is never hashed again.

        part_remove: parts that have become these files.
        """
        await self.in_index(self._index.write, files, ())
        for file, _ in files:
            self._known[file.name] = file
            pending = self._pending.due.get(file.name)
            if pending is not None and pending[1].stamp == file.stamp:
                del self._pending.due[file.name]
        self._catalog.change(put=[file for file, _ in files], part_remove=part_remove)

    async def in_index(self, work: Callable[..., object], *arguments: object) -> None:
        """Runs a method of the index on its thread."""
        await asyncio.get_running_loop().run_in_executor(self._index.thread, work, *arguments)
