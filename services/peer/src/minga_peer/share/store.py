"""The content store: the shared folder and the parts of downloads, for serving, downloading and removing.

All disk work and hashing run in bounded pools of threads; nothing here blocks the event loop. Contents are served from
the shared files themselves and from part files; no byte is stored twice.
"""

import asyncio
import errno
import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from minga_core.attributes import FileAttributes
from minga_core.chunks import ChunkSet
from minga_core.clock import Clock
from minga_core.errors import (
    AlreadyRunningError,
    ContentChangedError,
    ContentNotHeldError,
    FileNotFoundInDirectoryError,
    MingaError,
    StorageError,
)
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import HIDDEN_ROOT, Name
from minga_core.records import FileRow
from minga_core.units import format_bytes
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_engine.parts.files import OpenChunk
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PartTarget
from minga_engine.progress import VerifyProgress
from minga_peer.share.conditions import Conditions, Kind
from minga_peer.share.damaged import DamagedFiles
from minga_peer.share.file_clock import FileClock
from minga_peer.share.file_reader import FileReader
from minga_peer.share.folder_lock import FolderLock
from minga_peer.share.folder_sync import FolderSync
from minga_peer.share.free_space import FreeSpace
from minga_peer.share.index import Index
from minga_peer.share.integrity_file import IntegrityFile
from minga_peer.share.inventory import Inventory
from minga_peer.share.known_files import KnownFiles
from minga_peer.share.part_store import PartStore
from minga_peer.share.rechecking import Rechecks
from minga_peer.share.root import Root, shown
from minga_peer.share.scrub import Scrub, ScrubState
from minga_peer.share.shared_folder import SharedFolder
from minga_peer.share.small_store import SmallFiles
from minga_peer.share.store_metrics import StoreMetrics
from minga_peer.share.verifying import Verdict, Verifier
from minga_peer.share.verifying_all import Verification
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

DISK_THREADS = 4
SPACE_CHECK_SECONDS = 2.0
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How a folder is shared."""

    root: Path
    """Made when it is not there."""
    state_dir: Path | None = None
    """Index and parts, on the root's file system unless that is read-only; `.minga` in the root unless given."""
    capacity_bytes: int | None = None
    """What may be held in all; None: what the disk has."""
    hash_threads: int = 4
    settle_seconds: float = 0.5
    """A file is hashed once it has not changed for so long."""
    rescan_seconds: float = 300.0
    scrub_seconds: float = 0.0
    """How long one pass over everything that is shared may take; 0: nothing is read again."""


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The store in figures."""

    file_count: int
    shared_bytes: int
    pending_hash_count: int
    free_bytes: int
    """What downloads and uploads may still take: the lesser of the disk's free space and the capacity's rest."""
    capacity_bytes: int
    ignored_count: int
    """Files and folders that are left out, as of the last scan."""
    scrub: ScrubState


class ContentStore:
    """Made by `open`. `run` is its loop; it must be running for the shared folder to be shared."""

    def __init__(self, settings: StoreSettings, clock: Clock, metrics: StoreMetrics | None) -> None:
        path = settings.root.absolute()
        self.state_dir = state_dir = settings.state_dir or path / HIDDEN_ROOT
        root, disk = Root(path, state_dir), DiskPool(DISK_THREADS)
        reader = FileReader(root, disk)
        self.inventory = Inventory(clock, on_file_gone=reader.forget)
        self.conditions = Conditions(clock)
        """What is wrong with the folder and its files; other parts of the peer add theirs."""
        index, damaged = Index(state_dir / "index.sqlite", self.conditions), DamagedFiles(clock, self.conditions)
        self.folder = SharedFolder(
            root=root,
            disk=disk,
            reader=reader,
            index=index,
            known=KnownFiles(index, damaged, self.inventory),
            inventory=self.inventory,
            damaged=damaged,
            space=FreeSpace(root.path, settings.capacity_bytes, self.inventory),
            conditions=self.conditions,
            clock=clock,
            file_clock=FileClock(),
        )
        self._hashing = DiskPool(settings.hash_threads, "hash")
        self.sync = FolderSync(
            self.folder,
            self._hashing,
            metrics,
            settle_seconds=settings.settle_seconds,
            rescan_seconds=settings.rescan_seconds,
        )
        self.files = self.sync.files
        self.parts = PartStore(self.folder, self.files, state_dir / "parts")
        self.verifier = Verifier(self.folder, self.files)
        self.small = SmallFiles(self.folder, self.files, self.verifier, state_dir / "parts")
        """Many small files at once."""
        self.scrub = Scrub(self.folder, self.sync, self.verifier, metrics, settings.scrub_seconds)
        self._rechecks = Rechecks(self.inventory, self.verifier, self.folder.disk, clock, metrics)
        self._verifying = asyncio.Lock()
        self._integrity = IntegrityFile(state_dir / "integrity.json", self.scrub, damaged, disk, self.conditions)
        self.table = self.inventory.table
        """Complete files, and parts with at least one chunk."""
        self._lock = FolderLock()
        self._has_state = False
        """Whether the state folder is locked, and so its files may be written."""
        self._closed = False

    @classmethod
    async def open(cls, settings: StoreSettings, clock: Clock, metrics: StoreMetrics | None = None) -> "ContentStore":
        """A store, also where nothing can be written: that is a condition.

        Raises StorageError, NoSpaceError when there is no folder; AlreadyRunningError when another process shares it.
        """
        store = cls(settings, clock, metrics)
        try:
            await store.folder.disk.run(store._claim)
            await store.folder.known.load()
            await store._integrity.load()
            await store.parts.load()
            await store.folder.disk.run(store.folder.space.measure)
            store._note_space()
        except BaseException:
            await store.aclose()
            raise
        return store

    def _claim(self) -> None:
        """Make the folders and take the locks that keep a second daemon out, whatever its state folder."""
        with storage_errors(f"cannot use the shared folder {self.root}"):
            self.root.mkdir(parents=True, exist_ok=True)
            if self.state_dir.resolve() == self.root.resolve():
                raise StorageError(
                    f"the shared folder {self.root} cannot be the state folder too",
                    hint="give --state-dir another folder, inside of it or elsewhere",
                )
            self._lock.take_root(self.root)
            self.folder.space.measure()
            self._claim_state()
            self.folder.file_clock.measure(self.state_dir)

    def _claim_state(self) -> None:
        """Make and lock the state folder. On a full or read-only disk what is shared is served without it. Raises
        OSError."""
        try:
            self._take_state()
        except OSError as error:
            if error.errno not in _NOT_WRITABLE and not self.folder.space.read_only:
                raise
            log_event(log, logging.WARNING, "state_folder_not_usable", path=self.state_dir, error=error)

    def _take_state(self) -> None:
        if not self._has_state:
            self.parts.make_folder()
            self._lock.take_state(self.state_dir)
            self._has_state = True

    async def run(self) -> None:
        """Share the folder until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sync.run(), name="store-sync")
            group.create_task(self._measure_space(), name="store-space")
            group.create_task(self.parts.expire_regularly(), name="store-parts")
            group.create_task(self._rechecks.run(), name="store-rechecks")
            group.create_task(self.scrub.run(), name="store-scrub")
            group.create_task(self._integrity.save_regularly(), name="store-integrity")

    async def _measure_space(self) -> None:
        while True:
            await self.folder.disk.run(self.folder.space.measure)
            self._note_space()
            self.sync.note_settled()
            await self._write_index()
            await asyncio.sleep(SPACE_CHECK_SECONDS)

    async def _write_index(self) -> None:
        """Write what the index could not write before, if the state folder can be used by now."""
        if not self.folder.index.is_behind:
            return
        try:
            await self.folder.disk.run(self._take_state)
        except (OSError, MingaError):
            return
        await self.folder.index.write_again()

    def _note_space(self) -> None:
        space, path = self.folder.space, shown(str(self.root))
        if space.used_up:
            free, capacity = format_bytes(space.free_bytes), format_bytes(space.capacity_bytes)
            self.conditions.set(Kind.NO_SPACE, f"{free} of {capacity} are free")
        else:
            self.conditions.clear(Kind.NO_SPACE)
        if space.read_only:
            self.conditions.set(Kind.READ_ONLY, f"{path} cannot be written by this user, or is mounted read-only")
        else:
            self.conditions.clear(Kind.READ_ONLY)

    async def aclose(self) -> None:
        """Save what parts have and close everything. `run` must have ended. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for part in list(self.inventory.parts.values()):
            await part.close()
            part.shut()
        await self._integrity.save()
        self.folder.reader.close()
        await self.folder.index.aclose()
        await asyncio.to_thread(self.scrub.close)
        await asyncio.to_thread(self._hashing.close)
        await asyncio.to_thread(self.folder.disk.close)
        self._lock.release()

    # What is here.

    @property
    def root(self) -> Path:
        """The shared folder."""
        return self.folder.root.path

    def status(self) -> StoreStatus:
        """The store now."""
        return StoreStatus(
            file_count=len(self.inventory.files),
            shared_bytes=self.inventory.shared_bytes,
            pending_hash_count=self.sync.pending_count,
            free_bytes=self.folder.space.free_bytes,
            capacity_bytes=self.folder.space.capacity_bytes,
            scrub=self.scrub.state,
            ignored_count=self.sync.ignored_count,
        )

    def find(self, name: Name) -> FileRow | None:
        """The complete file under a name; None when none is shared."""
        file = self.inventory.files.get(name)
        return None if file is None else file.row

    def path_of(self, name: Name) -> Path:
        """Where the complete file of that name is, or would be, inside the root."""
        file = self.inventory.files.get(name)
        return self.root / (file.path if file is not None else name)

    async def present(self, name: Name, content_id: ContentId) -> Path | None:
        """Where the file is when it is shared with that content; all of it is read and compared."""
        file = self.inventory.files.get(name)
        if file is None or file.content_id != content_id:
            return None
        verified = await self.verifier.verify(file, self.folder.disk)
        return self.root / file.path if verified.verdict is Verdict.GOOD else None

    def held(self, content_id: ContentId) -> ChunkSet | None:
        """The chunks of a content that can be served now (a copy); None when it is not held at all."""
        return self.inventory.held(content_id)

    # Serving.

    def is_growing(self, content_id: ContentId) -> bool:
        """Whether its chunks come to this peer before any other has them."""
        part = self.inventory.part_with(content_id)
        return part is not None and part.growing

    def is_provisional(self, content_id: ContentId) -> bool:
        """Whether it is still on its way from its origin."""
        part = self.inventory.part_with(content_id)
        return part is not None and not part.listed

    async def manifest(self, content_id: ContentId) -> Manifest:
        """The manifest of a content held complete or in part. Raises ContentNotHeldError."""
        if (part := self.inventory.part_with(content_id)) is not None:
            return part.manifest
        file = self.inventory.file_with(content_id)
        if file is None:
            raise _not_held(content_id)
        # It may have been asked for by an id that stands for it.
        manifest = await self.folder.index.manifest(file)
        if manifest is None:
            self.files.hash_again(file)
            raise ContentNotHeldError(f"the digests of {file.name} are lost; it is hashed again")
        return manifest

    async def verify(self, prefix: str) -> AsyncGenerator[VerifyProgress, None]:
        """Read all files whose names begin so, damaged ones too, and compare every byte; see `Verification.run`.

        Raises AlreadyRunningError when another verification is under way.
        """
        if self._verifying.locked():
            raise AlreadyRunningError("another verification is under way", hint="try again when it is over")
        held = [*self.inventory.files.values(), *(damaged.file for damaged in self.folder.damaged)]
        files = [file for file in held if file.name.startswith(prefix)]
        async with self._verifying, aclosing(Verification(self.verifier, files, self._hashing).run()) as steps:
            async for progress in steps:
                yield progress

    def report(self, content_id: ContentId, index: int, host: str) -> None:
        """Have a chunk read again, some time soon, because `host` received it wrong. Raises as `Rechecks.report`."""
        self._rechecks.report(content_id, index, host)

    @asynccontextmanager
    async def open_chunk(self, content_id: ContentId, index: int) -> AsyncGenerator[OpenChunk, None]:
        """Where a chunk is on disk until the end of the block, to send it without a copy in memory.

        Raises ContentNotHeldError; ContentChangedError, also when the block does, if the file no longer is what was
        hashed. It is then hashed again, as after a StorageError of the block; until then it is not shared.
        """
        file = self.inventory.file_with(content_id)
        if file is None:
            part = self.inventory.part_with(content_id)
            if part is None:
                raise _not_held(content_id)
            try:
                with part.open_chunk(index) as chunk:
                    yield chunk
            except StorageError:
                await part.verify([index])
                raise
            return
        self.table.requested.note(file.content_id)
        try:
            async with self.folder.reader.open_chunk(file, index) as chunk:
                yield chunk
        except (ContentChangedError, StorageError):
            self.files.hash_again(file)
            raise

    async def follow(self, content_id: ContentId) -> AsyncGenerator[ChunkSet, None]:
        """All chunks held now, then each new set of chunks as it is verified; ends when complete or no longer held.

        Raises ContentNotHeldError.
        """
        with self.inventory.following(content_id) as changed:
            reported: ChunkSet | None = None
            while True:
                changed.clear()
                held = self.held(content_id)
                if held is None:
                    if reported is None:
                        raise _not_held(content_id)
                    return
                if reported is None or held - reported:
                    fresh = held if reported is None else held - reported
                    reported = held
                    yield fresh
                if held.complete:
                    return
                await changed.wait()

    def following(self, content_id: ContentId) -> AbstractContextManager[asyncio.Event]:
        """See Inventory.following."""
        return self.inventory.following(content_id)

    # Storing.

    async def begin_part(self, target: PartTarget, *, overwrite: bool, reading: bool = False) -> Part:
        """As `Destination.begin_part`; a content that is here under another name is copied into the part."""
        return await self.parts.begin(target, overwrite=overwrite, reading=reading)

    async def publish_again(self, row: FileRow, attributes: FileAttributes, ticket: bytes = b"") -> FileRow:
        """Have a shared file published again, with those attributes, as the newest version of its name; its row now."""
        row = await self.files.set_attributes(row, attributes)
        return await self.files.publish_again(row, ticket)

    async def remove(self, name: Name) -> FileRow:
        """Delete the file of that name and stop sharing it. Raises FileNotFoundInDirectoryError, StorageError."""
        file = self.folder.shared_or_damaged(name)
        if file is None:
            raise FileNotFoundInDirectoryError(f"{name} is not in the shared folder")
        # A file that is gone already counts as removed.
        with storage_errors(f"cannot remove {name}"), suppress(FileNotFoundError):
            await self.folder.disk.run(self.folder.root.remove, file.path)
        await self.files.forget_removed(file)
        return file.row


def _not_held(content_id: ContentId) -> ContentNotHeldError:
    return ContentNotHeldError(f"{content_id.short} is not held here")
