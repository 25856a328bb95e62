"""Compares what is on disk with what is shared: what is known is shared, what is new is hashed, what is gone goes."""

import asyncio
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from minga_core.errors import InvalidNameError
from minga_core.names import Name, parse_name
from minga_engine.parts.files import Fingerprint
from minga_peer.share.conditions import Kind
from minga_peer.share.file_conditions import FileConditions
from minga_peer.share.first_scan import FirstScan
from minga_peer.share.hash_queue import HashQueue
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.inventory import folders_of
from minga_peer.share.known_files import KnownFiles
from minga_peer.share.root import FoundFile, KnownFile, Scan, shown
from minga_peer.share.shared_folder import SharedFolder
from minga_peer.share.store_metrics import StoreMetrics
from minga_peer.share.unreadable import UnreadableFiles

STEP_FILES = 1000
"""Files compared before other tasks get the event loop."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """Files of which something is kept, those that wait to be hashed too: folders into which very many are put are
    scanned again and again meanwhile. Implements `root.KnownFiles`."""

    known: KnownFiles
    queue: HashQueue

    def get(self, name: Name) -> KnownFile | None:
        return self.known.get(name) or self.queue.waiting(name)


class Comparer:
    """Compares, and does what follows. Only for the event loop's thread. rescan: requests a scan of everything."""

    def __init__(
        self,
        folder: SharedFolder,
        queue: HashQueue,
        first: FirstScan,
        unreadable: UnreadableFiles,
        metrics: StoreMetrics | None,
        rescan: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._inventory = folder.inventory
        self._known = folder.known
        self._damaged = folder.damaged
        self._queue = queue
        self._first = first
        self._unreadable = unreadable
        self._metrics = metrics
        self._rescan = rescan
        self._of_files = FileConditions(folder.conditions)

    async def scan(self, below: str = "") -> Scan:
        """Scan everything, or what is below a folder; see `Root.scan`."""
        return await self._folder.disk.run(self._folder.root.scan, below, _Kept(self._known, self._queue))

    async def compare_all(self, scan: Scan) -> None:
        """Take in a scan of everything."""
        self._of_files.scanned(scan, lambda path: self._is_awaited(scan, path))
        await self.compare(scan)
        held = [*self._inventory.files, *(damaged.file.name for damaged in self._damaged)]
        await self._remove_absent(await self._folder.disk.run(_not_in, held, scan))
        self._unreadable.keep(scan.files)
        await self._known.bound_absent(scan.files)

    def _is_awaited(self, scan: Scan, path: str) -> bool:
        """Whether a file is there, and not shared yet."""
        found = scan.files.get(Name(unicodedata.normalize("NFC", path)))
        return found is not None and found.path == path and not self._is_shared(found)

    async def compare(self, scan: Scan) -> None:
        """Share what a scan found and the index knows, and queue what is new."""
        found = list(scan.files.values())
        for start in range(0, len(found), STEP_FILES):
            changed = self._compare_some(found[start : start + STEP_FILES])
            # The scan may be older than what is shared by now.
            await self.look_at(changed)
            await asyncio.sleep(0)

    def _compare_some(self, some: list[KnownFile]) -> set[str]:
        """The paths of files that are shared, but not as they were found."""
        known: list[IndexedFile] = []
        changed: set[str] = set()
        for each in some:
            if each.path in self._folder.placing or self._is_shared(each):
                continue
            found = FoundFile.of(each)
            if self._damaged.keeps_out(found):
                continue
            if found.name in self._inventory.files:
                changed.add(found.path)
            elif (file := self._known.unchanged(found)) is not None:
                known.append(file)
            elif found.name not in self._queue and self._unreadable.may_try(found):
                self._first.add(found)
                self._queue.put_found(found)
        if self._metrics is not None:
            self._metrics.hash_cache_hits(len(known))
        self._inventory.update(put=known)
        return changed

    def _is_shared(self, found: KnownFile) -> bool:
        shared = self._inventory.files.get(found.name)
        return shared is found or FoundFile.of(found).is_still(shared)

    async def look_at(self, paths: set[str]) -> None:
        """Compare paths that changed: files, folders, or things gone."""
        others: dict[str, Scan] = {}
        looked = await self._look(sorted(paths))
        for path, fingerprint in looked.items():
            if path in self._folder.placing:
                continue
            if fingerprint is not None:
                self._file_changed(path, fingerprint)
            else:
                others[path] = await self.scan(path)
                await self.compare(others[path])
        if others:
            scans = list(others.values())
            self._of_files.scanned_below(
                set(others), scans, lambda path: any(self._is_awaited(scan, path) for scan in scans)
            )
        damaged = [damaged.file for damaged in self._damaged]
        missing = [path for path, fingerprint in looked.items() if fingerprint is None]
        await self._remove_absent(
            [file.name for path in missing if (file := self._inventory.file_at(path)) is not None]
        )
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
        if not self._queue.is_hashing(found) and self._queue.put_changed(found):
            self._of_files.changing(path)

    async def _remove_absent(self, names: list[Name]) -> None:
        """Stop sharing names, unless their files are there after all: the scan may be older than a download.

        Their digests stay known: a file that comes back as it was is not hashed again.
        """
        files = [file for name in names if (file := self._folder.shared_or_damaged(name)) is not None]
        there = await self._look([file.path for file in files])
        gone = [file for file in files if there[file.path] is None]
        for file in gone:
            if self._damaged.get(file.name) == file:
                # A folder that is mounted again brings it back as it was: it is hashed then.
                self._known.unsure.add(file.name)
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
            self._rescan()

    async def _look(self, paths: list[str]) -> dict[str, Fingerprint | None]:
        """The fingerprints of regular files at those paths."""
        return await self._folder.disk.run(self._folder.root.look, paths) if paths else {}


def _not_in(names: list[Name], scan: Scan) -> list[Name]:
    return [name for name in names if name not in scan.files]


def _below(files: list[IndexedFile], folders: set[str]) -> list[Name]:
    """Names of the files that are in one of those folders."""
    return [file.name for file in files if not folders.isdisjoint(folders_of(file.path))]
