"""The content store: the shared folder and the parts of downloads, behind one door. Implements `ports.ContentStore`."""

import asyncio
import fcntl
import logging
import os
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from minga_core.chunks import ChunkSet, Geometry
from minga_core.clock import Clock
from minga_core.errors import (
    AlreadyRunningError,
    ContentChangedError,
    ContentNotHeldError,
    FileNotFoundInDirectoryError,
    MingaError,
    NameTakenError,
    NoSpaceError,
    StorageError,
)
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import HIDDEN_ROOT, Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_core.units import format_bytes
from minga_peer.chunkstore.availability import Availability
from minga_peer.chunkstore.catalog import Catalog, row_of
from minga_peer.chunkstore.disk import DiskPool, storage_error, told_as
from minga_peer.chunkstore.index import Index, IndexedFile
from minga_peer.chunkstore.parts import Part, PartHooks, PartTarget, decode_meta
from minga_peer.chunkstore.ports import RowsChanged, StoreStatus
from minga_peer.chunkstore.reading import FileReader
from minga_peer.chunkstore.root import Root, Stamp
from minga_peer.chunkstore.sharing import Sharing, StoreMetrics
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_KEPT_PARTS = 256
PART_LIFE_SECONDS = 7 * 24 * 3600.0
"""A part that nobody has resumed for a week is deleted."""
MAX_CACHED_MANIFESTS = 256
MAX_SHOWN_PROBLEMS = 20
SPACE_CHECK_SECONDS = 2.0


class ChunkStore:
    """Made by `open`. `run` is its loop; it must be running for the shared folder to be shared."""

    def __init__(
        self,
        root: Root,
        state_dir: Path,
        pool: DiskPool,
        index: Index,
        sharing: Sharing,
        catalog: Catalog,
        capacity_bytes: int | None,
    ) -> None:
        self._root = root
        self._state_dir = state_dir
        self._parts_dir = state_dir / "parts"
        self._pool = pool
        self._index = index
        self._sharing = sharing
        self._catalog = catalog
        self._capacity_bytes = capacity_bytes
        self._reader = FileReader(root, pool)
        self._parts: dict[RowKey, Part] = {}
        self._manifests: OrderedDict[ContentId, Manifest] = OrderedDict()
        self._availability = Availability()
        self._disk_free_bytes = 0
        self._lock = -1

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
        metrics: StoreMetrics,
    ) -> "ChunkStore":
        """A store on a folder, which is made when it is not there.

        capacity_bytes: what may be held in all; None: what the disk has. Raises StorageError, AlreadyRunningError when
        another process shares this folder.
        """
        pool = DiskPool(threads)
        state_dir = state_dir or root / HIDDEN_ROOT
        index = Index(state_dir / "index.sqlite")
        safe_root, catalog = Root(await pool.run(root.absolute)), Catalog()
        sharing = Sharing(
            safe_root,
            catalog,
            index,
            pool,
            clock,
            metrics,
            threads=threads,
            quiet_seconds=quiet_seconds,
            rescan_seconds=rescan_seconds,
        )
        store = cls(safe_root, state_dir, pool, index, sharing, catalog, capacity_bytes)
        try:
            await pool.run(store._claim)
            sharing.start_from(await asyncio.get_running_loop().run_in_executor(index.thread, index.open))
            await store._load_parts()
            await pool.run(store._measure)
        except BaseException:
            await store.aclose()
            raise
        return store

    async def run(self) -> None:
        """Shares the folder until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sharing.run(), name="store-sharing")
            group.create_task(self._watch_space(), name="store-space")

    async def first_scan_done(self) -> None:
        """Returns once the folder was scanned and what is known from before is shared."""
        await self._sharing.first_scan_done()

    def rescan(self) -> None:
        """Asks for a scan of the folder now."""
        self._sharing.rescan()

    async def aclose(self) -> None:
        """Saves what parts have and lets go of everything. `run` must have ended."""
        for part in list(self._parts.values()):
            await part.close()
            part.shut()
        self._reader.close()
        await asyncio.get_running_loop().run_in_executor(self._index.thread, self._index.close)
        self._index.thread.shutdown()
        self._pool.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

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
        part = self._part_of(content_id)
        return None if part is None else part.held

    def status(self) -> StoreStatus:
        """See ContentStore."""
        in_parts = sum(part.manifest.size_bytes for part in self._parts.values())
        used = self._catalog.shared_bytes + in_parts
        capacity = self._capacity_bytes if self._capacity_bytes is not None else used + self._disk_free_bytes
        return StoreStatus(
            file_count=len(self._catalog.files),
            shared_bytes=self._catalog.shared_bytes,
            pending_hash_count=self._sharing.pending_count,
            free_bytes=max(0, min(self._disk_free_bytes, capacity - used)),
            capacity_bytes=capacity,
            problems=[f"{path}: {why}" for path, why in list(self._sharing.problems.items())[:MAX_SHOWN_PROBLEMS]],
        )

    # Serving.

    async def manifest(self, content_id: ContentId) -> Manifest:
        """See ContentStore."""
        part = self._part_of(content_id)
        if part is not None:
            return part.manifest
        if self._catalog.holding(content_id) is None:
            raise ContentNotHeldError(f"{content_id.short} is not held here")
        manifest = self._manifests.get(content_id)
        if manifest is None:
            loop = asyncio.get_running_loop()
            manifest = await loop.run_in_executor(self._index.thread, self._index.manifest, content_id)
            if manifest is None:
                raise ContentNotHeldError(f"the digests of {content_id.short} are lost; it will be hashed again")
            self._manifests[content_id] = manifest
        self._manifests.move_to_end(content_id)
        if len(self._manifests) > MAX_CACHED_MANIFESTS:
            self._manifests.popitem(last=False)
        return manifest

    async def read_chunk(self, content_id: ContentId, index: int) -> bytes | bytearray | memoryview:
        """See ContentStore."""
        file = self._catalog.holding(content_id)
        if file is None:
            part = self._part_of(content_id)
            if part is None:
                raise ContentNotHeldError(f"{content_id.short} is not held here")
            return await part.read_chunk(index)
        manifest = await self.manifest(content_id)
        try:
            return await self._reader.read_chunk(file, manifest, index)
        except ContentChangedError:
            self._reader.forget(file)
            self._sharing.look_again(file)
            raise
        except OSError as error:
            raise storage_error(error, f"cannot read {file.name}") from error

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
        """See ContentStore."""
        target = PartTarget(name, manifest, manifest.content_id, published_ns)
        self._refuse_taken(target, overwrite=overwrite)
        key = RowKey(name, target.content_id)
        part = self._parts.get(key)
        if part is not None and part.writing:
            raise AlreadyRunningError(f"{name} is being stored here already")
        if part is None:
            self._refuse_too_large(target)
            part = self._parts[key] = Part(self._parts_dir, target, self._pool, self._hooks(overwrite=overwrite))
        else:
            part.rehook(self._hooks(overwrite=overwrite))
        part.writing = True
        try:
            await part.open()
            await self._copy_from_here(part)
        except BaseException:
            await part.close()
            raise
        return part

    async def remove(self, name: Name) -> FileRow:
        """See ContentStore."""
        file = self._catalog.files.get(name)
        if file is None:
            raise FileNotFoundInDirectoryError(f"{name} is not in the shared folder")
        with told_as(f"cannot remove {name}"), suppress(FileNotFoundError):
            await self._pool.run(self._root.remove, file.path)
        self._reader.forget(file)
        self._catalog.change(remove=[name])
        await self._sharing.in_index(self._index.write, (), [name])
        return row_of(file)

    def _hooks(self, *, overwrite: bool) -> PartHooks:
        async def finish(part: Part) -> FileRow:
            return await self._finish(part, overwrite=overwrite)

        return PartHooks(finish, self._chunk_held, self._part_closed)

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

    async def _copy_from_here(self, part: Part) -> None:
        """Fills a part from a file with the same content under another name, if there is one."""
        content_id = part.target.content_id
        if self._catalog.holding(content_id) is None:
            return
        with suppress(ContentChangedError, ContentNotHeldError):
            for index in part.held.missing():
                await part.write_chunk(index, await self.read_chunk(content_id, index))

    async def _finish(self, part: Part, *, overwrite: bool) -> FileRow:
        """Moves a whole part to its name and shares it; the old content of that name goes in the same change."""
        target = part.target
        present = self._catalog.files.get(target.name)
        same = present is not None and present.content_id == target.content_id
        path = present.path if present is not None else target.name
        stamp = await self._pool.run(self._place, part, path, overwrite or same)
        if present is not None:
            self._reader.forget(present)
        file = IndexedFile(target.name, path, stamp, target.content_id, target.published_ns)
        key = RowKey(target.name, target.content_id)
        self._parts.pop(key, None)
        self._manifests[target.content_id] = target.manifest
        await self._sharing.share([(file, target.manifest)], part_remove=[key])
        self._availability.changed(target.content_id)
        if present is not None and not same:
            self._availability.changed(present.content_id)
        return row_of(file)

    def _place(self, part: Part, path: str, overwrite: bool) -> Stamp:
        with told_as(f"cannot put {part.target.name} in place"):
            self._root.place(part.data_path, path, overwrite=overwrite)
        stamp = self._root.look(path)
        if stamp is None:
            raise StorageError(f"{part.target.name} vanished as soon as it was in place")
        return stamp

    def _chunk_held(self, part: Part, index: int) -> None:
        if part.held_count == 1:
            self._catalog.change(part_put=[_partial_row(part)])
        self._availability.changed(part.target.content_id)

    def _part_closed(self, part: Part) -> None:
        """A part that has nothing is forgotten; one with chunks stays and is served."""
        if not part.held_count:
            self._parts.pop(RowKey(part.target.name, part.target.content_id), None)

    def _part_of(self, content_id: ContentId) -> Part | None:
        parts = [part for key, part in self._parts.items() if key.content_id == content_id]
        return max(parts, key=lambda part: part.held_count, default=None)

    # Start and upkeep.

    def _claim(self) -> None:
        """Makes the folders and takes the lock that keeps a second daemon out."""
        with told_as(f"cannot use the shared folder {self._root.path}"):
            self._root.path.mkdir(parents=True, exist_ok=True)
            self._parts_dir.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError(
                    f"another process shares {self._root.path} already", hint="give this one another --share"
                ) from None

    async def _load_parts(self) -> None:
        """Takes over the parts of earlier runs, so that they are served and resumed."""
        for target in await self._pool.run(self._kept_parts):
            part = Part(self._parts_dir, target, self._pool, self._hooks(overwrite=False))
            try:
                await part.open()
            except MingaError as error:
                log_event(log, logging.WARNING, "part_not_loaded", name=target.name, error=error)
                continue
            if part.held_count == 0:
                await part.discard()
                continue
            self._parts[RowKey(target.name, target.content_id)] = part
            self._catalog.change(part_put=[_partial_row(part)])

    def _kept_parts(self) -> list[PartTarget]:
        """Descriptions of the parts on disk, newest first; deletes what is damaged, stale or too many."""
        kept: list[PartTarget] = []
        paths = sorted(self._parts_dir.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        stems: set[str] = set()
        for path in (path for path in paths if path.suffix == ".meta"):
            fresh = time.time() - path.stat().st_mtime < PART_LIFE_SECONDS and len(kept) < MAX_KEPT_PARTS
            with suppress(MingaError, ValueError, KeyError, OSError):
                target = decode_meta(path.read_bytes())
                if fresh and target.stem() == path.stem:
                    kept.append(target)
                    stems.add(path.stem)
        for path in paths:
            if path.name.split(".")[0] not in stems:
                with suppress(OSError):
                    path.unlink()
        return kept

    async def _watch_space(self) -> None:
        while True:
            await self._pool.run(self._measure)
            await asyncio.sleep(SPACE_CHECK_SECONDS)

    def _measure(self) -> None:
        with suppress(OSError):
            disk = os.statvfs(self._root.path)
            self._disk_free_bytes = disk.f_bavail * disk.f_frsize


def _partial_row(part: Part) -> FileRow:
    target = part.target
    now_ns = time.time_ns()
    key = RowKey(target.name, target.content_id)
    return FileRow(key, target.manifest.size_bytes, now_ns, target.published_ns, HoldingState.PARTIAL)


def _chunk_count(file: IndexedFile) -> int:
    return Geometry(file.stamp.size_bytes).chunk_count
