"""Keeps the catalog true to the shared folder: scan, watch, and hash what is new once it is quiet."""

import asyncio
import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Protocol

from minga_core.clock import Clock
from minga_core.errors import InvalidNameError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name, parse_name
from minga_core.records import RowKey
from minga_engine.parts.disk import DiskPool, run_to_end
from minga_engine.parts.files import Stamp
from minga_peer.share.contents import Catalog, folders_of
from minga_peer.share.folder_watcher import changed_paths
from minga_peer.share.hash_queue import Hashed, HashQueue
from minga_peer.share.index import Index, IndexedFile
from minga_peer.share.root import FoundFile, Root, Scan, note_problem, shown
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

STEP_FILES = 1000
"""Files compared before others get the event loop."""
MAX_ABSENT = 100_000
"""Digests kept for files that are not there now, and may come back unchanged (a folder that was not mounted)."""


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


class NoMetrics:
    """Counts nothing. Implements StoreMetrics."""

    def hash_cache_hits(self, count: int) -> None:
        """See StoreMetrics."""

    def hash_cache_misses(self, count: int) -> None:
        """See StoreMetrics."""

    def hashed_bytes(self, count: int) -> None:
        """See StoreMetrics."""


class Sharing:
    """The loop that shares a folder. Only for the event loop's thread."""

    def __init__(
        self,
        root: Root,
        catalog: Catalog,
        index: Index,
        disk: DiskPool,
        hashing: DiskPool,
        clock: Clock,
        metrics: StoreMetrics,
        *,
        quiet_seconds: float,
        rescan_seconds: float,
    ) -> None:
        self._root = root
        self._catalog = catalog
        self._index = index
        self._disk = disk
        self._clock = clock
        self._metrics = metrics
        self._quiet_seconds = quiet_seconds
        self._rescan_seconds = rescan_seconds
        self._queue = HashQueue(root, hashing, clock, self._take_hashed)
        self._known: dict[Name, IndexedFile] = {}
        self._placing: set[str] = set()
        self._scanned = asyncio.Event()
        self._rescan = asyncio.Event()
        self.problems: dict[str, str] = {}
        """Relative path → one line that says why it is not shared."""

    @property
    def pending_count(self) -> int:
        """Files found but not hashed yet."""
        return len(self._queue)

    def start_from(self, known: dict[Name, IndexedFile]) -> None:
        """What the index knows; those whose stamps still hold are shared without hashing."""
        self._known = known

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="share-watch")
            group.create_task(self._scan_regularly(), name="share-scan")
            group.create_task(self._queue.run(), name="share-hash")

    async def first_scan_done(self) -> None:
        """Returns once the folder was scanned and everything known from before is shared."""
        await self._scanned.wait()

    def rescan(self) -> None:
        """Asks for a scan now."""
        self._rescan.set()

    def look_again(self, file: IndexedFile) -> None:
        """A file is not what was hashed any more: it is unlisted at once and hashed when it is quiet."""
        if self._catalog.files.get(file.name) == file:
            self._catalog.change(remove=[file.name])
        # Known for its publishing time only: this stamp is no file's.
        self._known[file.name] = replace(file, stamp=Stamp(-1, 0, 0, 0))
        self._queue.put(FoundFile(file.name, file.path, file.stamp), self._quiet_at())

    @contextmanager
    def placing(self, path: str) -> Iterator[None]:
        """While a download is moved to `path` and shared, news of that path is its own doing."""
        self._placing.add(path)
        try:
            yield
        finally:
            self._placing.discard(path)

    # Finding.

    async def _scan_regularly(self) -> None:
        while True:
            self._rescan.clear()
            scan = await self._disk.run(self._root.scan)
            self.problems = dict(scan.problems)
            await self._compare(scan)
            await self._forget([name for name in self._catalog.files if name not in scan.files])
            await self._bound_absent(scan)
            self._scanned.set()
            try:
                async with asyncio.timeout(self._rescan_seconds):
                    await self._rescan.wait()
            except TimeoutError:
                continue

    async def _compare(self, scan: Scan) -> None:
        """Takes what a scan found: shares what is known, puts off what is new."""
        found = list(scan.files.values())
        for start in range(0, len(found), STEP_FILES):
            changed = self._compare_some(found[start : start + STEP_FILES])
            # The scan may be older than what is shared by now.
            await self._look_at(changed)
            await asyncio.sleep(0)

    def _compare_some(self, some: list[FoundFile]) -> set[str]:
        """Returns the paths of files that are shared, but not as they were found."""
        known: list[IndexedFile] = []
        changed: set[str] = set()
        for found in some:
            if found.path in self._placing or self._is_shared(found):
                continue
            file = self._known.get(found.name)
            if found.name in self._catalog.files:
                changed.add(found.path)
            elif file is not None and (file.path, file.stamp) == (found.path, found.stamp):
                known.append(file)
            elif found.name not in self._queue:
                self._queue.put(found, self._quiet_since(found.stamp))
        self._metrics.hash_cache_hits(len(known))
        self._catalog.change(put=known)
        return changed

    def _is_shared(self, found: FoundFile) -> bool:
        shared = self._catalog.files.get(found.name)
        return shared is not None and (shared.path, shared.stamp) == (found.path, found.stamp)

    async def _forget(self, names: list[Name]) -> None:
        """Unlists names, unless their files are there after all: what was seen may be older than a download.

        Their digests stay known: a file that comes back as it was is not hashed again.
        """
        files = [file for name in names if (file := self._catalog.files.get(name)) is not None]
        there = await self._look([file.path for file in files])
        gone = [file.name for file in files if there[file.path] is None and self._catalog.files.get(file.name) == file]
        self._catalog.change(remove=gone)
        normal = {unicodedata.normalize("NFC", path) for path in self.problems}
        if not normal.isdisjoint(gone):
            # The same name in another Unicode form was refused because of the one that is gone.
            self.rescan()

    async def _look(self, paths: list[str]) -> dict[str, Stamp | None]:
        """The stamps of regular files at those paths."""
        return await self._disk.run(lambda: {path: self._root.look(path) for path in paths}) if paths else {}

    async def _bound_absent(self, scan: Scan) -> None:
        absent = len(self._known) - len(scan.files)
        if absent <= MAX_ABSENT:
            return
        surplus = [name for name in self._known if name not in scan.files and name not in self._catalog.files]
        await self._unlearn(surplus[MAX_ABSENT:])

    async def _unlearn(self, names: list[Name]) -> None:
        for name in names:
            self._known.pop(name, None)
        await self.in_index(self._index.write, (), names)

    async def forget_removed(self, file: IndexedFile) -> None:
        """A file was removed on purpose: nothing is kept of it."""
        self._queue.drop(file.name)
        if self._catalog.files.get(file.name) == file:
            self._catalog.change(remove=[file.name])
            await self._unlearn([file.name])

    async def _watch(self) -> None:
        await self._scanned.wait()
        async with aclosing(changed_paths(self._root.path)) as news:
            async for paths in news:
                if paths is None:
                    self._rescan.set()
                else:
                    await self._look_at(paths)

    async def _look_at(self, paths: set[str]) -> None:
        """Paths that changed: files, folders, or things gone."""
        stamps = await self._look(sorted(paths))
        for path, stamp in stamps.items():
            if path in self._placing:
                continue
            if stamp is not None:
                self._file_changed(path, stamp)
            else:
                self.problems.pop(path, None)
                await self._take_scan(await self._disk.run(self._root.scan, path))
        await self._forget([file.name for path in paths if (file := self._catalog.at(path)) is not None])
        folders = {path for path in paths if self._catalog.is_folder(path)}
        if folders:
            files = list(self._catalog.files.values())
            await self._forget(await self._disk.run(_below, files, folders))

    async def _take_scan(self, scan: Scan) -> None:
        for path, line in scan.problems.items():
            note_problem(self.problems, path, line)
        await self._compare(scan)

    def _file_changed(self, path: str, stamp: Stamp) -> None:
        try:
            found = FoundFile(parse_name(path), path, stamp)
        except InvalidNameError as error:
            note_problem(self.problems, path, str(error))
            return
        shared = self._catalog.files.get(found.name)
        if shared is not None and shared.path != path and shared.path == found.name:
            line = f"{shown(path)} is there in another Unicode form too; that one is shared"
            note_problem(self.problems, path, line)
            return
        if shared is not None and (shared.path, shared.stamp) == (path, stamp):
            return
        if shared is not None and shared.path == path:
            # Reads of it would be refused already.
            self._catalog.change(remove=[found.name])
        if not self._queue.is_hashing(found):
            self._queue.put(found, self._quiet_at())

    def _quiet_at(self) -> float:
        """When a file that changed just now will have been quiet."""
        return self._clock.monotonic() + self._quiet_seconds

    def _quiet_since(self, stamp: Stamp) -> float:
        """When a file that was found will have been quiet: now, if its last change is long enough ago."""
        age = self._clock.wall() - stamp.modified_ns / 1e9
        left = self._quiet_seconds - age if 0 <= age < self._quiet_seconds else 0.0
        return self._clock.monotonic() + left

    # Sharing.

    async def _take_hashed(self, outcomes: list[Hashed]) -> None:
        """Shares what was hashed; looks again at what changed meanwhile."""
        files: list[tuple[IndexedFile, Manifest]] = []
        again: list[FoundFile] = []
        for outcome in outcomes:
            if outcome.problem:
                self._refuse(outcome)
            elif (
                outcome.manifest is None
                or outcome.content_id is None
                or outcome.stamp is None
                or self._is_outdated(outcome)
            ):
                again.append(outcome.found)
            else:
                self.problems.pop(outcome.found.path, None)
                files.append((self._indexed(outcome.found, outcome.content_id, outcome.stamp), outcome.manifest))
        self._metrics.hash_cache_misses(len(files))
        self._metrics.hashed_bytes(sum(file.stamp.size_bytes for file, _ in files))
        outdated = await self._share_hashed(files)
        await self._look_at({found.path for found in again} | outdated)

    async def _share_hashed(self, files: list[tuple[IndexedFile, Manifest]]) -> set[str]:
        """Shares files; returns the paths of those that were removed or replaced while the index was written."""
        before = {file.name: self._catalog.files.get(file.name) for file, _ in files}
        files = [(file, manifest) for file, manifest in files if before[file.name] != file]
        if files:
            await self.in_index(self._index.write, files, ())
        current = [file for file, _ in files if self._catalog.files.get(file.name) is before[file.name]]
        self._known.update((file.name, file) for file in current)
        self._catalog.change(put=current)
        return {file.path for file, _ in files} - {file.path for file in current}

    def _is_outdated(self, outcome: Hashed) -> bool:
        """Whether a download has been put there since the file was opened for hashing."""
        shared = self._catalog.files.get(outcome.found.name)
        newer = shared is not None and shared.path == outcome.found.path and shared.stamp != outcome.stamp
        return newer or outcome.found.path in self._placing

    def _refuse(self, outcome: Hashed) -> None:
        found = outcome.found
        if self.problems.get(found.path) != outcome.problem:
            log_event(log, logging.WARNING, "file_not_shared", path=shown(found.path), why=outcome.problem)
        note_problem(self.problems, found.path, outcome.problem)
        if found.name in self._catalog.files:
            self._catalog.change(remove=[found.name])

    def _indexed(self, found: FoundFile, content_id: ContentId, stamp: Stamp) -> IndexedFile:
        """A file's entry; the same content under the same name keeps its publishing time."""
        before = self._catalog.files.get(found.name) or self._known.get(found.name)
        same = before is not None and before.content_id == content_id
        published_ns = before.published_ns if before is not None and same else int(self._clock.wall() * 1e9)
        return IndexedFile(found.name, found.path, stamp, content_id, published_ns)

    async def share_placed(self, files: list[tuple[IndexedFile, Manifest]], parts: Iterable[RowKey] = ()) -> None:
        """Shares files that downloads have put in place; the rows of the parts they were go in the same change.

        The index comes first: what is told to others is never hashed again.
        """
        await self.in_index(self._index.write, files, ())
        self._known.update((file.name, file) for file, _ in files)
        self._catalog.change(put=[file for file, _ in files], part_remove=parts)

    async def in_index(self, work: Callable[..., object], *arguments: object) -> None:
        """Runs a method of the index on its thread."""
        await run_to_end(self._index.thread, work, *arguments)


def _below(files: list[IndexedFile], folders: set[str]) -> list[Name]:
    """Names of the files that are in one of those folders."""
    return [file.name for file in files if not folders.isdisjoint(folders_of(file.path))]
