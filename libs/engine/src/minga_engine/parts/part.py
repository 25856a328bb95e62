"""A part: one content under construction, from its first chunk until it becomes a file.

::

    open ─► writing ─► commit: synced, moved to its name, gone as a part
               │ ▲
         close ▼ │ begin again
              idle: kept and served ─► discard: deleted

`part_files` says how a part survives `kill -9`. A part that is complete within its first save interval never writes
more than its data. Only for the event loop's thread; disk work runs in the pool.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from minga_core.chunks import ChunkSet
from minga_core.errors import ContentNotHeldError, InvalidArgumentError, NoSpaceError, StorageError
from minga_core.manifest import Manifest
from minga_core.records import FileRow, RowKey
from minga_engine.parts.disk import DiskPool, SharedDescriptor, uninterrupted
from minga_engine.parts.files import Fingerprint, OpenChunk
from minga_engine.parts.hashing import find_wrong_chunks
from minga_engine.parts.part_files import PartFiles, PartTarget
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

SAVE_SECONDS = 1.0
SAVE_BYTES = 64 * 1024 * 1024
"""Progress is saved after this much time or data, whichever comes first: what a crash may cost."""


class PartOwner(Protocol):
    """Where a part belongs. Called on the event loop."""

    async def finish(self, part: "Part", fingerprint: Fingerprint) -> FileRow:
        """Move the synced data file, whose fingerprint is given, to its name.

        Raises NameTakenError, NoSpaceError, StorageError.
        """
        ...

    def chunk_held(self, part: "Part") -> None:
        """Note that one more chunk is verified and written."""
        ...

    def chunks_dropped(self, part: "Part") -> None:
        """Note that chunks of an earlier attempt were damaged and are missing again."""
        ...

    async def released(self, part: "Part", *, kept: bool) -> None:
        """Note that the part is no longer written. kept: its files stay for a later attempt; else they are gone."""
        ...


class Part:
    """Chunks may be written from many tasks at once. Verified chunks survive kill -9; the name appears at `commit`."""

    listed = True
    """Whether it has a row in the file table once it holds a chunk."""
    growing = False
    """Whether its chunks come to this process before any other has them."""

    def __init__(self, folder: Path, target: PartTarget, pool: DiskPool, owner: PartOwner) -> None:
        self.files = PartFiles(folder, target)
        self._pool = pool
        self._owner = owner
        self._held = ChunkSet(target.manifest.geometry.chunk_count)
        self._descriptor: SharedDescriptor | None = None
        self._writers: dict[int, asyncio.Event] = {}
        self._unverified: list[int] = []
        self._unsaved_bytes = 0
        self._save_soon = asyncio.Event()
        self._save_now = asyncio.Event()
        self._saver: asyncio.Task[None] | None = None
        self.gone = False
        """Whether it has become a file, or is being deleted."""
        self.writing = False
        """Whether a download or upload has it for writing."""
        self.overwrite = False
        """Whether `finish` may replace a file of that name."""

    @property
    def target(self) -> PartTarget:
        """What it becomes."""
        return self.files.target

    @property
    def manifest(self) -> Manifest:
        """The manifest of the content."""
        return self.target.manifest

    @property
    def key(self) -> RowKey:
        """The row that it has, and that its file will have."""
        return RowKey(self.target.name, self.target.content_id)

    @property
    def held(self) -> ChunkSet:
        """A copy of the set of chunks that are verified and written."""
        return self._held.copy()

    @property
    def held_count(self) -> int:
        """Number of chunks held."""
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """Bytes of the chunks held."""
        geometry, count = self.manifest.geometry, len(self._held)
        last = geometry.chunk_count - 1
        missing = geometry.chunk_size_bytes - geometry.length(last) if last in self._held else 0
        return count * geometry.chunk_size_bytes - missing

    async def open(self) -> None:
        """Open or make the files and load the chunks of an earlier attempt, which can be served from now on.

        Raises AlreadyRunningError when another process has this part open, NoSpaceError, StorageError.
        """
        if self._descriptor is None:
            # A caller that is cancelled has a part that it can close, which deletes what was made here.
            await uninterrupted(self._open())

    async def _open(self) -> None:
        opened = await self._pool.run(self.files.open)
        self._descriptor, self._held = SharedDescriptor(opened.descriptor), opened.held

    async def begin(self, *, overwrite: bool, verified: bool = True) -> None:
        """Open it for writing. Raises as `open`.

        verified: whether what it holds of earlier attempts is verified first, which for a large part takes seconds;
        otherwise `verify_resumed` must be called before `commit`.
        """
        self.overwrite, self.writing = overwrite, True
        await self.open()
        with self._opened().used() as descriptor:
            await self._pool.run(self.files.resume, descriptor)
        self._unverified = list(self._held)
        if verified:
            await self.verify_resumed()
        self._saver = asyncio.create_task(self._save_regularly(), name=f"part-{self.target.content_id.short}")

    async def verify(self, chunks: Iterable[int]) -> list[int]:
        """Verify those of the chunks that are held: the wrong and unreadable ones, which are missing from now on."""
        held = [index for index in chunks if index in self._held]
        wrong = await find_wrong_chunks(self._opened(), self.manifest, held, self._pool)
        if not self.gone:
            await self._drop_wrong(wrong)
        return wrong

    async def verify_resumed(self) -> None:
        """Verify what it held when it was begun: the bitmap speaks for what was synced, not for what is there now."""
        unverified, self._unverified = self._unverified, []
        if unverified:
            await self.verify(unverified)

    async def _drop_wrong(self, wrong: list[int]) -> None:
        if not wrong:
            return
        for index in wrong:
            self._held.discard(index)
        log_event(log, logging.WARNING, "part_damaged", name=self.target.name, chunk_count=len(wrong))
        await self._save()
        self._owner.chunks_dropped(self)

    async def write_chunk(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """Verify a chunk and write it. A chunk that is already held is ignored.

        Raises ChunkCorruptError (nothing was written), NoSpaceError, StorageError.
        """
        await self._add_chunk(index, self.files.write, data)

    async def copy_from(self, source: SharedDescriptor) -> None:
        """Copy the missing chunks from a file that should have the same content, and verify them.

        Raises ChunkCorruptError when it has another content, NoSpaceError, StorageError.
        """
        with source.used() as descriptor:
            for index in self._held.missing():
                await self._add_chunk(index, self.files.copy, descriptor)

    async def _add_chunk(self, index: int, write: Callable[..., None], source: object) -> None:
        """Write a chunk with `write`. One writer for each chunk: a late second copy must not touch a finished file."""
        while (other := self._writers.get(index)) is not None:
            await other.wait()
        if index in self._held:
            return
        if not self.writing:
            raise StorageError(f"{self.target.name} is not being written any more")
        written = self._writers[index] = asyncio.Event()
        try:
            with self._opened().used() as descriptor:
                await self._pool.run(write, descriptor, index, source)
            self._held.add(index)
            self._unsaved_bytes += self.manifest.geometry.length(index)
            self._save_soon.set()
            if self._unsaved_bytes >= SAVE_BYTES:
                self._save_now.set()
            self._owner.chunk_held(self)
        finally:
            del self._writers[index]
            written.set()

    @contextmanager
    def open_chunk(self, index: int) -> Iterator[OpenChunk]:
        """Where a held chunk is on disk, until the end of the block. Raises ContentNotHeldError."""
        if index not in self._held or self._descriptor is None:
            raise ContentNotHeldError(f"chunk {index} of {self.target.name} is not here")
        geometry = self.manifest.geometry
        with self._descriptor.used() as descriptor:
            # No check is needed: a chunk that is held is never written again, unless it was found damaged.
            yield OpenChunk(descriptor, geometry.offset(index), geometry.length(index))

    async def commit(self) -> FileRow:
        """Sync, move the file to its name and share it; the row. Finishes once begun, also when cancelled.

        Raises NameTakenError, NoSpaceError, StorageError, InvalidArgumentError when chunks are missing.
        """
        if not self._held.complete:
            raise InvalidArgumentError(f"{self.target.name} is not complete yet")
        if not self.writing:
            raise StorageError(f"{self.target.name} is not being written any more")
        return await uninterrupted(self._commit())

    async def _commit(self) -> FileRow:
        await self._end_writing()
        with self._opened().used() as descriptor:
            fingerprint = await self._pool.run(self.files.sync, descriptor)
        row = await self._owner.finish(self, fingerprint)
        self.writing, self.gone = False, True
        self.shut()
        # The file is in place and shared: failing to delete what is left must not make that a failure.
        with suppress(StorageError):
            await self._pool.run(self.files.forget)
        await self._owner.released(self, kept=False)
        return row

    async def close(self) -> None:
        """Save the bitmap and stop writing; the part stays for a later attempt. Idempotent; no-op after commit."""
        if not self.gone and self.writing:
            await uninterrupted(self._close())

    async def _close(self) -> None:
        await self._end_writing()
        if self._held:
            await self._save()
        if not self._held or not self.files.described:
            # Nothing to resume, or a full disk refused the description: it would only take room.
            await self._discard()
            return
        self.writing = False
        await self._owner.released(self, kept=True)

    async def discard(self) -> None:
        """Delete the part. Idempotent."""
        if not self.gone:
            # At once: nobody may begin it any more.
            self.gone = True
            await uninterrupted(self._discard())

    async def _discard(self) -> None:
        self.gone = True
        await self._end_writing()
        self.writing = False
        try:
            # Without the lock that comes with the descriptor the files may be another process's.
            if self._descriptor is not None:
                await self._pool.run(self.files.delete)
        finally:
            self.shut()
            await self._owner.released(self, kept=False)

    def shut(self) -> None:
        """Close the data file as soon as no reader uses it; the part stays on disk."""
        if self._descriptor is not None:
            self._descriptor.close()
            self._descriptor = None

    def _opened(self) -> SharedDescriptor:
        if self._descriptor is None:
            raise StorageError(f"the part of {self.target.name} is closed")
        return self._descriptor

    async def _end_writing(self) -> None:
        """Wait for chunks that are being written, and stop saving."""
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
            self._saver = None
        while self._writers:
            await next(iter(self._writers.values())).wait()

    async def _save_regularly(self) -> None:
        while True:
            await self._save_soon.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(SAVE_SECONDS):
                    await self._save_now.wait()
            if self._held.complete:
                # A complete part is about to be committed, or saved by `close`.
                return
            await self._save()

    async def _save(self) -> None:
        self._save_soon.clear()
        self._save_now.clear()
        self._unsaved_bytes = 0
        try:
            with self._opened().used() as descriptor:
                await self._pool.run(self.files.save, descriptor, self._held.to_bytes())
        except (NoSpaceError, StorageError) as error:
            # It costs chunks only when the process dies: then they are fetched again.
            log_event(log, logging.WARNING, "part_progress_not_saved", name=self.target.name, error=error)
