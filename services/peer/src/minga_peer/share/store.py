"""The content store: the shared folder and the parts of downloads, behind one door. Implements `ports.ContentStore`."""

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from minga_core.chunks import ChunkSet, Geometry
from minga_core.clock import Clock
from minga_core.errors import (
    AlreadyRunningError,
    ChunkCorruptError,
    ContentChangedError,
    ContentNotHeldError,
    FileNotFoundInDirectoryError,
    MingaError,
    NameTakenError,
    NoSpaceError,
)
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import HIDDEN_ROOT, Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_core.units import format_bytes
from minga_engine.parts.content_store import OpenChunk, RowsChanged, StoreStatus
from minga_engine.parts.disk import DiskPool, run_to_end, storage_error, told_as
from minga_engine.parts.files import Stamp
from minga_engine.parts.part import Part, PartHooks, PartTarget
from minga_peer.share.availability import Availability
from minga_peer.share.capacity import Capacity
from minga_peer.share.contents import Catalog, row_of
from minga_peer.share.index import Index, IndexedFile
from minga_peer.share.manifests import ManifestCache
from minga_peer.share.partial_downloads import Shelf, key_of_part
from minga_peer.share.reading import FileReader
from minga_peer.share.root import Root
from minga_peer.share.sharing import NoMetrics, Sharing, StoreMetrics
from minga_peer.share.small_store import SmallFiles
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

DISK_THREADS = 4
"""Threads that read, write and look; hashing has its own, so that a folder of new files never delays a transfer."""
MAX_SHOWN_PROBLEMS = 20
SPACE_CHECK_SECONDS = 2.0
PART_CHECK_SECONDS = 3600.0


class ChunkStore:
    """Made by `open`. `run` is its loop; it must be running for the shared folder to be shared."""

    def __init__(
        self,
        root: Path,
        state_dir: Path,
        capacity_bytes: int | None,
        clock: Clock,
        metrics: StoreMetrics,
        *,
        threads: int,
        quiet_seconds: float,
        rescan_seconds: float,
    ) -> None:
        self._clock = clock
        self._state_dir = state_dir
        self._root = Root(root)
        self._disk = DiskPool(DISK_THREADS)
        self._hashing = DiskPool(threads, "hash")
        self._index = Index(state_dir / "index.sqlite")
        self._catalog = Catalog()
        self._sharing = Sharing(
            self._root,
            self._catalog,
            self._index,
            self._disk,
            self._hashing,
            clock,
            metrics,
            quiet_seconds=quiet_seconds,
            rescan_seconds=rescan_seconds,
        )
        self._reader = FileReader(self._root, self._disk)
        self._shelf = Shelf(state_dir / "parts", clock)
        self._capacity = Capacity(root, capacity_bytes)
        self._manifests = ManifestCache()
        self._availability = Availability()
        self.small = SmallFiles(
            *(self._root, self._disk, self._catalog, self._sharing, self._shelf),
            *(self._capacity, self._manifests, self._availability, lambda: self.status().free_bytes),
        )
        """Many small files at once."""
        self._parts_device = -1
        self._lock = -1
        self._closed = False
        self._catalog.listen_gone(self._file_gone)

    @classmethod
    async def open(
        cls,
        root: Path,
        *,
        state_dir: Path | None = None,
        capacity_bytes: int | None = None,
        clock: Clock,
        threads: int = 4,
        quiet_seconds: float = 0.5,
        rescan_seconds: float = 300.0,
        metrics: StoreMetrics | None = None,
    ) -> "ChunkStore":
        """A store on a folder, which is made when it is not there.

        state_dir: index and parts; `.minga` in the folder unless given; on the folder's file system. capacity_bytes:
        what may be held in all; None: what the disk has. threads: for hashing. quiet_seconds: a file is hashed once it
        has not changed for so long. Raises StorageError, NoSpaceError; AlreadyRunningError when another process shares
        this folder.
        """
        root = await asyncio.to_thread(root.absolute)
        store = cls(
            root,
            state_dir or root / HIDDEN_ROOT,
            capacity_bytes,
            clock,
            metrics or NoMetrics(),
            threads=threads,
            quiet_seconds=quiet_seconds,
            rescan_seconds=rescan_seconds,
        )
        try:
            await store._disk.run(store._claim)
            store._sharing.start_from(await run_to_end(store._index.thread, store._index.open))
            await store._load_parts()
            await store._disk.run(store._capacity.measure)
        except BaseException:
            await store.aclose()
            raise
        return store

    async def run(self) -> None:
        """Shares the folder until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sharing.run(), name="store-sharing")
            group.create_task(self._watch_space(), name="store-space")
            group.create_task(self._expire_parts(), name="store-parts")

    async def first_scan_done(self) -> None:
        """Returns once the folder was scanned and what is known from before is shared."""
        await self._sharing.first_scan_done()

    def rescan(self) -> None:
        """Asks for a scan of the folder now."""
        self._sharing.rescan()

    async def aclose(self) -> None:
        """Saves what parts have and lets go of everything. `run` must have ended. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for part in self._shelf.all():
            await part.close()
            part.shut()
        self._reader.close()
        await run_to_end(self._index.thread, self._index.close)
        await asyncio.to_thread(self._end_threads)
        if self._lock >= 0:
            os.close(self._lock)

    def _end_threads(self) -> None:
        self._index.thread.shutdown()
        self._hashing.close()
        self._disk.close()

    # What is here.

    @property
    def root(self) -> Path:
        """See ContentStore."""
        return self._root.path

    def rows(self) -> Sequence[FileRow]:
        """See ContentStore."""
        return self._catalog.rows()

    def on_rows_changed(self, callback: Callable[[RowsChanged], None]) -> None:
        """See ContentStore."""
        self._catalog.listen(callback)

    def find(self, name: Name) -> FileRow | None:
        """See ContentStore."""
        file = self._catalog.files.get(name)
        return None if file is None else row_of(file)

    def path_of(self, name: Name) -> Path:
        """See ContentStore."""
        file = self._catalog.files.get(name)
        return self._root.path / (file.path if file is not None else name)

    def held(self, content_id: ContentId) -> ChunkSet | None:
        """See ContentStore."""
        file = self._catalog.holding(content_id)
        if file is not None:
            return ChunkSet.full(_chunk_count(file))
        part = self._shelf.best(content_id)
        return None if part is None else part.held

    def status(self) -> StoreStatus:
        """See ContentStore."""
        coming_bytes = self.small.unwritten_bytes
        used_bytes = self._catalog.shared_bytes + self._shelf.whole_bytes + coming_bytes
        return StoreStatus(
            file_count=len(self._catalog.files),
            shared_bytes=self._catalog.shared_bytes,
            pending_hash_count=self._sharing.pending_count,
            free_bytes=self._capacity.free_bytes(used_bytes, self._shelf.unwritten_bytes + coming_bytes),
            capacity_bytes=self._capacity.total_bytes(used_bytes),
            problems=list(self._sharing.problems.values())[:MAX_SHOWN_PROBLEMS],
        )

    # Serving.

    async def manifest(self, content_id: ContentId) -> Manifest:
        """See ContentStore."""
        if (part := self._shelf.best(content_id)) is not None:
            return part.manifest
        if (file := self._catalog.holding(content_id)) is None:
            raise ContentNotHeldError(f"{content_id.short} is not held here")
        manifest = self._manifests.get(content_id)
        if manifest is None:
            manifest = await run_to_end(self._index.thread, self._index.manifest, content_id)
            if manifest is None:
                self._sharing.look_again(file)
                raise ContentNotHeldError(f"the digests of {file.name} are lost; it is hashed again")
            self._manifests.put(content_id, manifest)
        return manifest

    async def read_chunk(self, content_id: ContentId, index: int) -> bytes | bytearray | memoryview:
        """See ContentStore."""
        file = self._catalog.holding(content_id)
        if file is None:
            part = self._shelf.best(content_id)
            if part is None:
                raise ContentNotHeldError(f"{content_id.short} is not held here")
            return await part.read_chunk(index)
        manifest = await self.manifest(content_id)
        try:
            return await self._reader.read_chunk(file, manifest, index)
        except ContentChangedError:
            self._sharing.look_again(file)
            raise
        except OSError as error:
            raise storage_error(error, f"cannot read {file.name}") from error

    @asynccontextmanager
    async def open_chunk(self, content_id: ContentId, index: int) -> AsyncGenerator[OpenChunk, None]:
        """See ContentStore."""
        file = self._catalog.holding(content_id)
        if file is None:
            part = self._shelf.best(content_id)
            if part is None:
                raise ContentNotHeldError(f"{content_id.short} is not held here")
            with part.opened_chunk(index) as chunk:
                yield chunk
            return
        manifest = await self.manifest(content_id)
        try:
            async with self._reader.opened_chunk(file, manifest, index) as chunk:
                yield chunk
        except ContentChangedError:
            self._sharing.look_again(file)
            raise

    async def watch(self, content_id: ContentId) -> AsyncGenerator[ChunkSet, None]:
        """See ContentStore."""
        with self._availability.followed(content_id) as news:
            told = ChunkSet(0)
            while True:
                news.clear()
                held = self.held(content_id)
                if held is None:
                    if told.count == 0:
                        raise ContentNotHeldError(f"{content_id.short} is not held here")
                    return
                if told.count == 0 or held - told:
                    fresh, told = held - told if told.count else held, held
                    yield fresh
                if held.complete:
                    return
                await news.wait()

    # Storing.

    async def begin_part(self, name: Name, manifest: Manifest, *, published_ns: int, overwrite: bool) -> Part:
        """See ContentStore. published_ns: 0 stands for now."""
        target = PartTarget(name, manifest, manifest.content_id, published_ns or int(self._clock.wall() * 1e9))
        self._refuse_taken(target, overwrite=overwrite)
        await self._disk.run(self._check_place, target, overwrite)
        part = self._part_for(target)
        try:
            await part.begin(self._hooks(overwrite=overwrite))
            await self._copy_from_here(part)
        except BaseException:
            await part.close()
            raise
        return part

    def _part_for(self, target: PartTarget) -> Part:
        """The part of an earlier attempt, or a new one if it fits; claimed for the caller."""
        part = self._shelf.get(RowKey(target.name, target.content_id))
        if part is not None and part.writing:
            raise AlreadyRunningError(f"{target.name} is being stored here already")
        if part is None:
            self._refuse_too_large(target)
            part = Part(self._shelf.folder, target, self._disk, self._hooks(overwrite=False))
            self._shelf.put(part)
        part.writing = True
        return part

    async def remove(self, name: Name) -> FileRow:
        """See ContentStore."""
        file = self._catalog.files.get(name)
        if file is None:
            raise FileNotFoundInDirectoryError(f"{name} is not in the shared folder")
        # A file that is gone already is as good as removed.
        with told_as(f"cannot remove {name}"), suppress(FileNotFoundError):
            await self._disk.run(self._root.remove, file.path)
        await self._sharing.forget_removed(file)
        return row_of(file)

    def _hooks(self, *, overwrite: bool) -> PartHooks:
        async def finish(part: Part, stamp: Stamp) -> FileRow:
            return await self._finish(part, stamp, overwrite=overwrite)

        return PartHooks(finish, chunk_held=self._chunk_held, ended=self._part_ended)

    def _refuse_taken(self, target: PartTarget, *, overwrite: bool) -> None:
        present = self._catalog.files.get(target.name)
        if present is not None and present.content_id != target.content_id and not overwrite:
            raise NameTakenError(f"{target.name} is here with another content", hint="--overwrite replaces it")

    def _refuse_too_large(self, target: PartTarget) -> None:
        free = self.status().free_bytes
        if target.manifest.size_bytes > free:
            raise NoSpaceError(
                f"{target.name} has {format_bytes(target.manifest.size_bytes)}, but only {format_bytes(free)} are free",
                hint="make room, or raise the capacity",
            )

    def _check_place(self, target: PartTarget, overwrite: bool) -> None:
        """Refuses on disk, before a byte is fetched, what could not be put in place afterwards."""
        with told_as(f"cannot put {target.name} in place"):
            self._root.check_place(target.name, self._parts_device)
            self._capacity.measure()
        # A file of another Unicode form has the name in the catalog alone.
        if not overwrite and target.name not in self._catalog.files and self._root.exists(target.name):
            raise NameTakenError(
                f"{target.name} is here already, and its content is not known yet",
                hint="try again once it is hashed, or replace it with --overwrite",
            )

    async def _copy_from_here(self, part: Part) -> None:
        """Fills a part from a file with the same content under another name, if there is one."""
        file = self._catalog.holding(part.target.content_id)
        if file is None:
            return
        try:
            await part.copy_from(await self._reader.opened(file))
        except (ChunkCorruptError, ContentChangedError):
            self._sharing.look_again(file)

    async def _finish(self, part: Part, stamp: Stamp, *, overwrite: bool) -> FileRow:
        """Moves a whole part to its name and shares it; the old content of that name goes in the same change."""
        target = part.target
        present = self._catalog.files.get(target.name)
        same = present is not None and present.content_id == target.content_id
        path = present.path if present is not None else target.name
        if present is not None and same and not overwrite and await self._is_untouched(present):
            await self._disk.run(part.files.delete)
            self._part_ended(part)
            return row_of(present)
        file = IndexedFile(target.name, path, stamp, target.content_id, target.published_ns)
        with self._sharing.placing(path):
            with told_as(f"cannot put {target.name} in place"):
                await self._disk.run(self._place, part, path, overwrite)
            self._manifests.put(target.content_id, target.manifest)
            await self._sharing.share_placed([(file, target.manifest)], [key_of_part(part)])
        self._shelf.drop(part)
        self._availability.changed(target.content_id)
        return row_of(file)

    async def _is_untouched(self, file: IndexedFile) -> bool:
        """Whether the file on disk still is what is shared: somebody may have written another one just now."""
        return await self._disk.run(self._root.look, file.path) == file.stamp

    def _place(self, part: Part, path: str, overwrite: bool) -> None:
        self._root.place(part.files.data_path, path, overwrite=overwrite)

    def _chunk_held(self, part: Part) -> None:
        if part.held_count == 1:
            self._catalog.change(part_put=[self._partial_row(part)])
        self._availability.changed(part.target.content_id)

    def _part_ended(self, part: Part) -> None:
        """A part is gone without having become a file."""
        self._shelf.drop(part)
        self._catalog.change(part_remove=[key_of_part(part)])
        self._availability.changed(part.target.content_id)

    def _file_gone(self, file: IndexedFile) -> None:
        self._reader.forget(file)
        self._availability.changed(file.content_id)

    def _partial_row(self, part: Part) -> FileRow:
        target = part.target
        now_ns = int(self._clock.wall() * 1e9)
        return FileRow(key_of_part(part), target.manifest.size_bytes, now_ns, target.published_ns, HoldingState.PARTIAL)

    # Start and upkeep.

    def _claim(self) -> None:
        """Makes the folders and takes the lock that keeps a second daemon out."""
        with told_as(f"cannot use the shared folder {self._root.path}"):
            self._root.path.mkdir(parents=True, exist_ok=True)
            self._shelf.folder.mkdir(parents=True, exist_ok=True)
            self._parts_device = self._shelf.folder.stat().st_dev
            self._root.check_place("", self._parts_device)
            self._lock = os.open(self._state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError(
                    f"another process shares {self._root.path} already", hint="give this one another --share"
                ) from None

    async def _load_parts(self) -> None:
        """Takes over the parts of earlier runs, so that they are served and resumed."""
        with told_as("cannot read the parts of earlier downloads"):
            targets = await self._disk.run(self._shelf.kept_targets)
        for target in targets:
            part = Part(self._shelf.folder, target, self._disk, self._hooks(overwrite=False))
            try:
                await part.open()
            except MingaError as error:
                log_event(log, logging.WARNING, "part_not_loaded", name=target.name, error=error)
                continue
            if part.held_count == 0:
                await part.discard()
                continue
            self._shelf.put(part)
            self._catalog.change(part_put=[self._partial_row(part)])

    async def _watch_space(self) -> None:
        while True:
            await self._disk.run(self._capacity.measure)
            await asyncio.sleep(SPACE_CHECK_SECONDS)

    async def _expire_parts(self) -> None:
        while True:
            await self._shelf.expire(self._disk)
            await asyncio.sleep(PART_CHECK_SECONDS)


def _chunk_count(file: IndexedFile) -> int:
    return Geometry(file.stamp.size_bytes).chunk_count
