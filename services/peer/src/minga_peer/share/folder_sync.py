"""Keeps the inventory in step with the shared folder: scan, watch, and hash what is new once it has settled."""

import asyncio
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from minga_core.attributes import FileAttributes
from minga_core.errors import InvalidNameError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name, parse_name
from minga_core.records import FOUND, PUBLISH, FileRow
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.files import Fingerprint
from minga_engine.parts.part import Part
from minga_peer.share.conditions import Kind
from minga_peer.share.file_conditions import FileConditions
from minga_peer.share.folder_watcher import changed_paths
from minga_peer.share.hash_queue import Hashed, HashQueue
from minga_peer.share.index import IndexedFile
from minga_peer.share.inventory import folders_of, row_of
from minga_peer.share.root import FoundFile, Scan, shown
from minga_peer.share.shared_folder import SharedFolder
from minga_peer.share.unreadable import UnreadableFiles

STEP_FILES = 1000
"""Files compared before other tasks get the event loop."""
SETTLED_SECONDS = 2.0
"""A file that changed all the time has settled once it is shared and was left alone for this and the settle time."""
MAX_ABSENT = 100_000
"""Digests kept for files that are not there now and may come back unchanged (a folder that was not mounted)."""


class StoreMetrics(Protocol):
    """What sharing a folder counts."""

    def hash_cache_hits(self, count: int) -> None:
        """Count files whose digests the index knew."""

    def hash_cache_misses(self, count: int) -> None:
        """Count files that had to be hashed."""

    def hashed_bytes(self, count: int) -> None:
        """Count bytes hashed."""

    def scrubbed_bytes(self, count: int) -> None:
        """Count bytes that the scrub has read and compared."""

    def chunk_rechecked(self, *, good: bool) -> None:
        """Count a chunk that a downloader refused as wrong, and that was read again here."""


class FolderSync:
    """The loop that shares a folder. Only for the event loop's thread. hashing: the threads that hash."""

    def __init__(
        self,
        folder: SharedFolder,
        hashing: DiskPool,
        metrics: StoreMetrics | None,
        *,
        settle_seconds: float,
        rescan_seconds: float,
    ) -> None:
        self._folder = folder
        self._inventory = folder.inventory
        self._clock = folder.clock
        self._metrics = metrics
        self._settle_seconds = settle_seconds
        self._rescan_seconds = rescan_seconds
        self._queue = HashQueue(folder.root, hashing, folder.clock, self._recall, self._on_hashed)
        self._damaged = folder.damaged
        self._known: dict[Name, IndexedFile] = {}
        self._first: dict[Name, Fingerprint] = {}
        """Files that were there when the index was made, and are not hashed yet."""
        self._unreadable = UnreadableFiles()
        self._unsure: set[Name] = set()
        """Those of the known files that may have other bytes by now, and are hashed before they are shared again."""
        self._placing: set[str] = set()
        self._scanned = asyncio.Event()
        self._rescan = asyncio.Event()
        self._conditions = folder.conditions
        self._of_files = FileConditions(folder.conditions)
        self.ignored_count = 0
        """Files and folders that the last scan of everything left out."""

    @property
    def pending_count(self) -> int:
        """Files found but not hashed yet."""
        return len(self._queue)

    async def load(self) -> None:
        """Read the index; files whose fingerprints still hold are shared without hashing. Raises as `Index.open`."""
        self._known = await self._folder.index.open()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="share-watch")
            group.create_task(self._scan_regularly(), name="share-scan")
            group.create_task(self._queue.run(), name="share-hash")

    async def first_scan_done(self) -> None:
        """Return once the folder was scanned and everything known from before is shared."""
        await self._scanned.wait()

    def rescan(self) -> None:
        """Request a scan now."""
        self._rescan.set()

    def hash_again(self, file: IndexedFile) -> None:
        """Stop sharing a file that may not be what was hashed, and hash it once it has settled.

        With other bytes under the same fingerprint it is damaged: no program has written them.
        """
        if file.path in self._placing:
            return
        if self._inventory.files.get(file.name) == file:
            self._inventory.update(remove=[file.name])
        known = self._known.get(file.name)
        if known is None or known.content_id != file.content_id:
            self._known[file.name] = file
        self._unsure.add(file.name)
        self._queue.put(FoundFile(file.name, file.path, file.fingerprint), self._settled_at())

    def shared_or_damaged(self, name: Name) -> IndexedFile | None:
        """The file of that name as it was hashed, whether or not its bytes still are."""
        return self._inventory.files.get(name) or self._damaged.get(name)

    def refuse_damaged(self, file: IndexedFile, why: str) -> None:
        """Stop sharing a file whose bytes are not what was hashed; it stays on disk. why: see DamagedFile."""
        if self.shared_or_damaged(file.name) == file:
            self._damaged.add(file, why)
            self._inventory.update(remove=[file.name])

    def share_again(self, file: IndexedFile) -> None:
        """Share a file that was damaged and that has been found to be good: all of it was read."""
        if self._damaged.get(file.name) == file:
            self._damaged.discard(file.name)
            self._inventory.update(put=[file])

    @contextmanager
    def placing(self, path: str) -> Iterator[None]:
        """Ignore changes of `path` inside the block, which moves a download there and shares it."""
        self._placing.add(path)
        try:
            yield
        finally:
            self._placing.discard(path)

    async def share_placed(self, files: list[tuple[IndexedFile, Manifest]], part: Part | None = None) -> None:
        """Share files that downloads have put in place; the part that became one goes in the same change.

        The index is written first: what others know of is never hashed again.
        """
        await self._folder.index.write(files, cached=True)
        self._sure_of([file for file, _ in files])
        self._inventory.update(put=[file for file, _ in files], drop_parts=[part] if part is not None else [])

    async def set_published(self, times: Sequence[tuple[FileRow, int]]) -> None:
        """Keep the times of publication of shared files, each if the file still has the row that it had."""
        files: list[IndexedFile] = []
        for row, published_ns in times:
            file = self._inventory.files.get(row.key.name)
            if file is not None and row_of(file) == row:
                files.append(replace(file, published_ns=published_ns))
        self._known.update((file.name, file) for file in files)
        self._inventory.set_published(files)
        await self._folder.index.set_published(files)

    async def set_attributes(self, row: FileRow, attributes: FileAttributes) -> FileRow:
        """Give a shared file attributes, if it still is what that row says; its row then."""
        file = self._inventory.files.get(row.key.name)
        if file is None or row_of(file) != row or file.fingerprint.attributes == attributes:
            return row
        manifest, root = await self._folder.index.manifest(file.content_id), self._folder.root
        with self.placing(file.path):
            fingerprint = await self._folder.disk.run(root.set_attributes, file.path, file.fingerprint, attributes)
            if fingerprint is None or manifest is None:
                return row
            changed = replace(file, fingerprint=fingerprint)
            await self.share_placed([(changed, manifest)])
        return row_of(changed)

    async def forget_removed(self, file: IndexedFile) -> None:
        """Stop sharing a file that was deleted on purpose, and forget its digests."""
        self._queue.drop(file.name)
        self._first.pop(file.name, None)
        if self.shared_or_damaged(file.name) == file:
            self._inventory.update(remove=[file.name])
            self._damaged.discard(file.name)
            await self._forget_digests([file.name])

    # Scanning.

    async def _scan_regularly(self) -> None:
        while True:
            self._rescan.clear()
            scan = await self._folder.disk.run(self._folder.root.scan, "", self._known)
            self.ignored_count = scan.ignored_count
            self._of_files.scanned(scan, partial(self._awaited, scan))
            await self._compare(scan)
            held = [*self._inventory.files, *(damaged.file.name for damaged in self._damaged)]
            await self._remove_absent(await self._folder.disk.run(_not_in, held, scan))
            self._unreadable.keep(scan.files)
            await self._bound_absent(scan)
            if not self.pending_count:
                self._folder.index.made_anew()
            self._scanned.set()
            await self._check_complete()
            try:
                async with asyncio.timeout(self._rescan_seconds):
                    await self._rescan.wait()
            except TimeoutError:
                continue

    def _awaited(self, scan: Scan, path: str) -> bool:
        """Whether a file is there, and not shared yet."""
        found = scan.files.get(Name(unicodedata.normalize("NFC", path)))
        return found is not None and found.path == path and not self._is_shared(found)

    async def _compare(self, scan: Scan) -> None:
        """Share what a scan found and the index knows, and queue what is new."""
        found = list(scan.files.values())
        for start in range(0, len(found), STEP_FILES):
            changed = self._compare_some(found[start : start + STEP_FILES])
            # The scan may be older than what is shared by now.
            await self._look_at(changed)
            await asyncio.sleep(0)

    def _compare_some(self, some: list[FoundFile]) -> set[str]:
        """The paths of files that are shared, but not as they were found."""
        known: list[IndexedFile] = []
        changed: set[str] = set()
        for found in some:
            if found.path in self._placing or self._is_shared(found) or self._damaged.keeps_out(found):
                continue
            file = self._known.get(found.name)
            if found.name in self._inventory.files:
                changed.add(found.path)
            elif file is not None and self._is_known(file, found):
                known.append(file)
            elif found.name not in self._queue and self._unreadable.may_try(found):
                if not self._folder.index.complete and not self._scanned.is_set():
                    self._first[found.name] = found.fingerprint
                self._queue.put(found, self._settled_since(found.fingerprint))
        if self._metrics is not None:
            self._metrics.hash_cache_hits(len(known))
        self._inventory.update(put=known)
        return changed

    def _is_known(self, file: IndexedFile, found: FoundFile) -> bool:
        """Whether what was found is a file whose digests are known, with the bytes that they are of."""
        same = (file.path, file.fingerprint) == (found.path, found.fingerprint)
        return same and file.name not in self._unsure

    def _is_shared(self, found: FoundFile) -> bool:
        shared = self._inventory.files.get(found.name)
        return shared is not None and (shared.path, shared.fingerprint) == (found.path, found.fingerprint)

    async def _remove_absent(self, names: list[Name]) -> None:
        """Stop sharing names, unless their files are there after all: the scan may be older than a download.

        Their digests stay known: a file that comes back as it was is not hashed again.
        """
        files = [file for name in names if (file := self.shared_or_damaged(name)) is not None]
        there = await self._look([file.path for file in files])
        gone = [file for file in files if there[file.path] is None]
        for file in gone:
            if self._damaged.get(file.name) == file:
                # A folder that is mounted again brings it back as it was: it is hashed then.
                self._unsure.add(file.name)
                self._damaged.discard(file.name)
        absent: list[Name] = []
        for start in range(0, len(gone), STEP_FILES):
            some = gone[start : start + STEP_FILES]
            step = [file.name for file in some if self._inventory.files.get(file.name) == file]
            self._inventory.update(remove=step)
            absent += step
            await asyncio.sleep(0)
        bad = self._of_files.refused(Kind.BAD_NAME)
        if not {unicodedata.normalize("NFC", path) for path in bad}.isdisjoint(absent):
            # The same name in another Unicode form was refused because of the one that is gone.
            self.rescan()

    async def _look(self, paths: list[str]) -> dict[str, Fingerprint | None]:
        """The fingerprints of regular files at those paths."""
        look = self._folder.root.look
        return await self._folder.disk.run(lambda: {path: look(path) for path in paths}) if paths else {}

    async def _bound_absent(self, scan: Scan) -> None:
        if len(self._known) - len(scan.files) > MAX_ABSENT:
            absent = [name for name in self._known if name not in scan.files and name not in self._inventory.files]
            await self._forget_digests(absent[MAX_ABSENT:])

    async def _forget_digests(self, names: list[Name]) -> None:
        for name in names:
            self._known.pop(name, None)
            self._unsure.discard(name)
        await self._folder.index.write(remove=names)

    # Watching.

    async def _watch(self) -> None:
        await self._scanned.wait()
        async with aclosing(changed_paths(self._folder.root, self._conditions)) as changes:
            async for paths in changes:
                if paths is None:
                    self._rescan.set()
                else:
                    await self._look_at(paths)

    async def _look_at(self, paths: set[str]) -> None:
        """Compare paths that changed: files, folders, or things gone."""
        others: dict[str, Scan] = {}
        for path, fingerprint in (await self._look(sorted(paths))).items():
            if path in self._placing:
                continue
            if fingerprint is not None:
                self._file_changed(path, fingerprint)
            else:
                others[path] = await self._folder.disk.run(self._folder.root.scan, path, self._known)
                await self._compare(others[path])
        if others:
            self._of_files.scanned_below(set(others), list(others.values()))
        damaged = [damaged.file for damaged in self._damaged]
        await self._remove_absent([file.name for path in paths if (file := self._inventory.file_at(path)) is not None])
        await self._remove_absent([file.name for file in damaged if file.path in paths] + _below(damaged, paths))
        folders = {path for path in paths if self._inventory.is_folder(path)}
        if folders:
            files = list(self._inventory.files.values())
            await self._remove_absent(await self._folder.disk.run(_below, files, folders))

    def _file_changed(self, path: str, fingerprint: Fingerprint) -> None:
        try:
            found = FoundFile(parse_name(path), path, fingerprint)
        except InvalidNameError as error:
            self._of_files.refuse(Kind.BAD_NAME, path, str(error))
            return
        shared = self._inventory.files.get(found.name)
        if shared is not None and shared.path != path and shared.path == found.name:
            line = f"{shown(path)} is there in another Unicode form too; that one is shared"
            self._of_files.refuse(Kind.BAD_NAME, path, line)
            return
        if self._is_shared(found) or self._damaged.keeps_out(found):
            return
        if shared is not None and shared.path == path:
            # Reads of it would be refused already.
            self._inventory.update(remove=[found.name])
        if not self._queue.is_hashing(found) and self._queue.put(found, self._settled_at()):
            self._is_changing(path)

    def _is_changing(self, path: str) -> None:
        self._of_files.refuse(Kind.CHANGING, path, f"{shown(path)} changes all the time")

    def note_settled(self) -> None:
        """End the conditions of files that changed all the time, and have not for a moment."""
        latest_ns = int((self._clock.wall() - SETTLED_SECONDS - self._settle_seconds) * 1e9)
        for path in self._of_files.refused(Kind.CHANGING):
            file = self._inventory.file_at(path)
            if file is not None and file.fingerprint.changed_ns < latest_ns:
                self._conditions.clear(Kind.CHANGING, path)

    def _settled_at(self) -> float:
        """When a file that changed just now has settled."""
        return self._clock.monotonic() + self._settle_seconds

    def _settled_since(self, fingerprint: Fingerprint) -> float:
        """When a file that was found has settled: now, if its last change is long enough ago."""
        age = self._clock.wall() - fingerprint.changed_ns / 1e9
        left = self._settle_seconds - age if 0 <= age < self._settle_seconds else 0.0
        return self._clock.monotonic() + left

    # Hashing.

    async def _recall(self, batch: list[FoundFile]) -> list[Hashed]:
        """The outcomes of files whose digests are known by another name: of the inode, if nothing has changed it since.

        So nothing of a folder that is renamed is hashed again, but what may have other bytes than are known.
        """
        known: dict[Fingerprint, dict[ContentId, Manifest]] = {}
        doubtful: set[Fingerprint] = set()
        for name, fingerprint, content_id, manifest in await self._folder.index.with_fingerprints(
            [found.fingerprint for found in batch]
        ):
            known.setdefault(fingerprint, {})[content_id] = manifest
            if not self._is_trusted(name, fingerprint):
                doubtful.add(fingerprint)
        outcomes: list[Hashed] = []
        for found in batch:
            manifests = known.get(found.fingerprint, {})
            if len(manifests) == 1 and found.fingerprint not in doubtful:
                ((content_id, manifest),) = manifests.items()
                outcomes.append(Hashed(found, manifest, content_id, found.fingerprint, recalled=True))
        return outcomes

    def _is_trusted(self, name: Name, fingerprint: Fingerprint) -> bool:
        """Whether the digests of a known file count, or the file is to be hashed again."""
        file = self._known.get(name)
        doubtful = name in self._unsure or self._damaged.get(name) is not None
        return file is not None and file.fingerprint == fingerprint and not doubtful

    async def _on_hashed(self, outcomes: list[Hashed]) -> None:
        """Share what was hashed; look again at what changed meanwhile."""
        files: list[tuple[IndexedFile, Manifest]] = []
        again: set[str] = set()
        for outcome in outcomes:
            if self._folder.root.hidden.file(outcome.found.path):
                continue
            if outcome.problem:
                self._refuse(outcome)
            elif outcome.manifest is None or self._is_outdated(outcome):
                again.add(outcome.found.path)
                if outcome.manifest is None:
                    self._is_changing(outcome.found.path)
            else:
                if (rotten := self._rotten(outcome)) is not None:
                    self._keep_out(rotten)
                else:
                    files.append((self._indexed(outcome), outcome.manifest))
        self._count([outcome for outcome in outcomes if outcome.manifest is not None])
        await self._look_at(again | await self._share_hashed(files))
        for outcome in outcomes:
            if not self._queue.is_waiting(outcome.found.name):
                self._first.pop(outcome.found.name, None)
        await self._check_complete()

    async def _check_complete(self) -> None:
        """Note in the index when all files of the first scan have been hashed."""
        if not self._first and self._scanned.is_set() and not self._folder.index.complete:
            await self._folder.index.set_complete()

    def _count(self, outcomes: list[Hashed]) -> None:
        if self._metrics is not None:
            hashed = [outcome for outcome in outcomes if not outcome.recalled]
            self._metrics.hash_cache_hits(len(outcomes) - len(hashed))
            self._metrics.hash_cache_misses(len(hashed))
            self._metrics.hashed_bytes(sum(outcome.manifest.size_bytes for outcome in hashed if outcome.manifest))

    async def _share_hashed(self, files: list[tuple[IndexedFile, Manifest]]) -> set[str]:
        """Share files; the paths of those that were removed or replaced while the index was written."""
        before = {file.name: self._inventory.files.get(file.name) for file, _ in files}
        files = [(file, manifest) for file, manifest in files if before[file.name] != file]
        if files:
            await self._folder.index.write(files)
        current = [file for file, _ in files if self._inventory.files.get(file.name) is before[file.name]]
        self._sure_of(current)
        self._inventory.update(put=current)
        for file in current:
            self._of_files.hashed(file.path)
        return {file.path for file, _ in files} - {file.path for file in current}

    def _sure_of(self, files: list[IndexedFile]) -> None:
        """Note the digests of files that were hashed, or verified, just now."""
        for file in files:
            self._known[file.name] = file
            self._unsure.discard(file.name)
            self._unreadable.forget(file.name)
            self._damaged.discard(file.name)

    def _rotten(self, outcome: Hashed) -> IndexedFile | None:
        """The file as it was hashed before, when it has other bytes now and nothing else shows it."""
        before = self._known.get(outcome.found.name)
        if before is None or (before.path, before.fingerprint) != (outcome.found.path, outcome.fingerprint):
            return None
        return before if before.content_id != outcome.content_id else None

    def _keep_out(self, rotten: IndexedFile) -> None:
        self._inventory.update(remove=[rotten.name])
        self._damaged.add(rotten, "its bytes are not what was hashed")

    def _is_outdated(self, outcome: Hashed) -> bool:
        """Whether a download has been put there since the file was opened for hashing."""
        path, shared = outcome.found.path, self._inventory.files.get(outcome.found.name)
        newer = shared is not None and shared.path == path and shared.fingerprint != outcome.fingerprint
        return newer or path in self._placing

    def _refuse(self, outcome: Hashed) -> None:
        found = outcome.found
        self._of_files.refuse(Kind.UNREADABLE, found.path, outcome.problem)
        self._unreadable.failed(found)
        if found.name in self._inventory.files:
            self._inventory.update(remove=[found.name])

    def _indexed(self, outcome: Hashed) -> IndexedFile:
        """A file's entry."""
        found, content_id, fingerprint = outcome.found, outcome.content_id, outcome.fingerprint
        if content_id is None or fingerprint is None:
            raise ValueError(f"{found.path} was not hashed")
        published_ns = self._published_ns(found.name, content_id, fingerprint)
        return IndexedFile(found.name, found.path, fingerprint, content_id, published_ns)

    def _published_ns(self, name: Name, content_id: ContentId, fingerprint: Fingerprint) -> int:
        """When a file was published. Touching it publishes nothing, and neither does an index that was lost."""
        before = self._inventory.files.get(name) or self._known.get(name)
        if before is not None:
            return before.published_ns if before.content_id == content_id else PUBLISH
        first = self._first.get(name)
        unchanged = first is not None and first.modified_ns == fingerprint.modified_ns
        return FOUND if unchanged else PUBLISH


def _not_in(names: list[Name], scan: Scan) -> list[Name]:
    return [name for name in names if name not in scan.files]


def _below(files: list[IndexedFile], folders: set[str]) -> list[Name]:
    """Names of the files that are in one of those folders."""
    return [file.name for file in files if not folders.isdisjoint(folders_of(file.path))]
