"""Keeps what is shared in step with the folder on disk: scans it, watches it, and has what is new hashed.

`Comparer` decides what a path on disk means, `HashQueue` hashes once a file has settled, `HashOutcomes` shares what was
hashed.
"""

import asyncio
from contextlib import aclosing

from minga_engine.parts.disk import DiskPool
from minga_peer.share.comparing import Comparer
from minga_peer.share.conditions import Kind
from minga_peer.share.first_scan import FirstScan
from minga_peer.share.folder_watcher import changed_paths
from minga_peer.share.hash_outcomes import HashOutcomes
from minga_peer.share.hash_queue import HashQueue
from minga_peer.share.hashed import Hashed
from minga_peer.share.shared_files import SharedFiles
from minga_peer.share.shared_folder import SharedFolder
from minga_peer.share.store_metrics import StoreMetrics
from minga_peer.share.unreadable import UnreadableFiles

SETTLED_SECONDS = 2.0
"""A file that changed all the time has settled once it is shared and was left alone for this and the settle time."""


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
        self._rescan_seconds = rescan_seconds
        self._rescan = asyncio.Event()
        self._first = FirstScan(folder.index, folder.file_clock)
        unreadable = UnreadableFiles()
        self._queue = HashQueue(
            folder.root,
            hashing,
            folder.clock,
            folder.file_clock.now_ns,
            settle_seconds,
            folder.known.recall,
            self._on_hashed,
        )
        self._comparer = Comparer(folder, self._queue, self._first, unreadable, metrics, self.rescan)
        self._outcomes = HashOutcomes(folder, self._first, unreadable, metrics)
        self.files = SharedFiles(folder, self._queue, self._first)
        self.ignored_count = 0
        """Files and folders that the last scan of everything left out."""

    @property
    def pending_count(self) -> int:
        """Files found but not hashed yet."""
        return len(self._queue)

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="share-watch")
            group.create_task(self._scan_regularly(), name="share-scan")
            group.create_task(self._queue.run(), name="share-hash")

    async def first_scan_done(self) -> None:
        """Return once the folder was scanned and everything known from before is shared."""
        await self._first.done.wait()

    def rescan(self) -> None:
        """Request a scan now."""
        self._rescan.set()

    async def _scan_regularly(self) -> None:
        while True:
            self._rescan.clear()
            await self._scan()
            if not self.pending_count:
                self._folder.index.made_anew()
            self._first.done.set()
            await self._first.check_complete()
            try:
                async with asyncio.timeout(self._rescan_seconds):
                    await self._rescan.wait()
            except TimeoutError:
                continue

    async def _scan(self) -> None:
        """Scan everything once. Nothing keeps the scan until the next one: it is as large as all that is known."""
        scan = await self._comparer.scan()
        self.ignored_count = scan.ignored_count
        await self._comparer.compare_all(scan)

    async def _watch(self) -> None:
        await self._first.done.wait()
        async with aclosing(changed_paths(self._folder.root, self._folder.conditions, self._folder.placing)) as changes:
            async for paths in changes:
                if paths is None:
                    self._rescan.set()
                else:
                    await self._comparer.look_at(paths)

    async def _on_hashed(self, outcomes: list[Hashed]) -> None:
        await self._comparer.look_at(await self._outcomes.share(outcomes))
        for outcome in outcomes:
            if not self._queue.waiting(outcome.found.name):
                self._first.forget(outcome.found.name)
        await self._first.check_complete()

    def note_settled(self) -> None:
        """End the conditions of files that changed all the time, and have not for a moment."""
        latest_ns = int((self._folder.clock.wall() - SETTLED_SECONDS - self._queue.settle_seconds) * 1e9)
        for path in self._folder.conditions.lines(Kind.CHANGING):
            file = self._folder.inventory.file_at(path)
            if file is not None and file.fingerprint.changed_ns < latest_ns:
                self._folder.conditions.clear(Kind.CHANGING, path)
