"""Parts: contents under construction. The life of one, and parts that become files outside of any shared folder.

::

    open ─► writing ─► commit: synced, moved to its name, gone as a part
               │ ▲
         close ▼ │ begin again
              idle: kept and served ─► discard: deleted

How a part survives `kill -9` is told in `part_files`. A part that is done within its first save interval never writes
more than its data. Only for the event loop's thread; disk work is done in the pool.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from minga_core.chunks import ChunkSet
from minga_core.errors import (
    ContentNotHeldError,
    InvalidArgumentError,
    NameTakenError,
    NoSpaceError,
    StorageError,
)
from minga_core.manifest import Manifest
from minga_core.records import FileRow, RowKey
from minga_engine.parts.content_store import OpenChunk
from minga_engine.parts.disk import DiskPool, SharedDescriptor, told_as, uninterrupted
from minga_engine.parts.files import PARTS_FOLDER, Stamp, fsync_folder, move_without_replacing
from minga_engine.parts.part_files import PartFiles, PartTarget
from minga_runtime.logs import log_event

__all__ = ["Part", "PartHooks", "PartTarget", "open_part"]

log = logging.getLogger(__name__)

SAVE_SECONDS = 1.0
SAVE_BYTES = 64 * 1024 * 1024
"""Progress is saved after this much time or data, whichever comes first: what a crash may cost."""
OPEN_TRIES = 5
"""How often a part of a lone command is opened while other commands tidy up the same folder."""


@dataclass(frozen=True, slots=True)
class PartHooks:
    """What the owner of a part does with it."""

    finish: Callable[["Part", Stamp], Awaitable[FileRow]]
    """Moves the synced data file, whose stamp is given, to its name. Raises NameTakenError, NoSpaceError,
    StorageError."""
    chunk_held: Callable[["Part"], None] = lambda part: None
    """Hears, on the event loop, of each chunk that is verified and written."""
    closed: Callable[["Part"], None] = lambda part: None
    """Hears when nobody writes the part any more, and it is kept."""
    ended: Callable[["Part"], None] = lambda part: None
    """Hears when the part's files are gone without a commit."""
    after: Callable[[], Awaitable[None]] | None = None
    """Runs once the part's files are gone, however that came."""


class Part:
    """Implements PartFile. Chunks may be written from many tasks at once."""

    def __init__(self, folder: Path, target: PartTarget, pool: DiskPool, hooks: PartHooks) -> None:
        self.target = target
        self.files = PartFiles(folder, target)
        self._pool = pool
        self._hooks = hooks
        self._held = ChunkSet(target.manifest.geometry.chunk_count)
        self._descriptor: SharedDescriptor | None = None
        self._writers: dict[int, asyncio.Event] = {}
        self._unsaved_bytes = 0
        self._save_soon = asyncio.Event()
        self._save_now = asyncio.Event()
        self._saver: asyncio.Task[None] | None = None
        self._gone = False
        self.writing = False
        """Whether somebody holds it for writing."""

    @property
    def manifest(self) -> Manifest:
        """See PartFile."""
        return self.target.manifest

    @property
    def held(self) -> ChunkSet:
        """See PartFile."""
        return self._held.copy()

    @property
    def held_count(self) -> int:
        """How many chunks are held."""
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """How many bytes they are."""
        geometry, count = self.manifest.geometry, len(self._held)
        last = geometry.chunk_count - 1
        missing = geometry.chunk_size_bytes - geometry.length(last) if last in self._held else 0
        return count * geometry.chunk_size_bytes - missing

    async def open(self) -> None:
        """Opens the files, or makes them; takes over the chunks of an earlier attempt. From now on they are served.

        Raises AlreadyRunningError when somebody else has this part, NoSpaceError, StorageError.
        """
        if self._descriptor is None:
            opened = await self._pool.acquire(
                self.files.open, undo=lambda opened: SharedDescriptor(opened.descriptor).close()
            )
            self._descriptor, self._held = SharedDescriptor(opened.descriptor), opened.held

    async def begin(self, hooks: PartHooks) -> None:
        """Opens it for writing, for a new owner. Raises as `open`."""
        self._hooks, self.writing = hooks, True
        await self.open()
        with self._opened().used() as descriptor:
            await self._pool.run(self.files.touch, descriptor)
        self._saver = asyncio.create_task(self._save_regularly(), name=f"part-{self.target.content_id.short}")

    async def write_chunk(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """See PartFile."""
        await self._take(index, self.files.write, data)

    async def copy_from(self, source: SharedDescriptor) -> None:
        """Takes the missing chunks from a file that is said to have the same content.

        Raises ChunkCorruptError when it does not have it, NoSpaceError, StorageError.
        """
        with source.used() as descriptor:
            for index in self._held.missing():
                await self._take(index, self.files.copy, descriptor)

    async def _take(self, index: int, work: Callable[..., None], argument: object) -> None:
        """Lets `work` write a chunk. One writer for each chunk: a late twin must not touch a file that is done."""
        while (rival := self._writers.get(index)) is not None:
            await rival.wait()
        if index in self._held:
            return
        if not self.writing:
            raise StorageError(f"{self.target.name} is not being written any more")
        over = self._writers[index] = asyncio.Event()
        try:
            with self._opened().used() as descriptor:
                await self._pool.run(work, descriptor, index, argument)
            self._took(index)
        finally:
            del self._writers[index]
            over.set()

    def _took(self, index: int) -> None:
        self._held.add(index)
        self._unsaved_bytes += self.manifest.geometry.length(index)
        self._save_soon.set()
        if self._unsaved_bytes >= SAVE_BYTES:
            self._save_now.set()
        self._hooks.chunk_held(self)

    async def read_chunk(self, index: int) -> bytes:
        """A chunk that is held. Raises ContentNotHeldError, StorageError."""
        if index not in self._held or self._descriptor is None:
            raise ContentNotHeldError(f"chunk {index} of {self.target.name} is not here")
        with self._descriptor.used() as descriptor:
            return await self._pool.run(self.files.read, descriptor, index)

    @contextmanager
    def opened_chunk(self, index: int) -> Iterator[OpenChunk]:
        """Where a chunk that is held lies, until the end of the block. Raises ContentNotHeldError."""
        if index not in self._held or self._descriptor is None:
            raise ContentNotHeldError(f"chunk {index} of {self.target.name} is not here")
        geometry = self.manifest.geometry
        with self._descriptor.used() as descriptor:
            # A chunk that is held is never written again.
            yield OpenChunk(descriptor, geometry.offset(index), geometry.length(index), lambda: None)

    async def commit(self) -> FileRow:
        """See PartFile."""
        if not self._held.complete:
            raise InvalidArgumentError(f"{self.target.name} is not whole yet")
        if not self.writing:
            raise StorageError(f"{self.target.name} is not being written any more")
        return await uninterrupted(self._commit())

    async def _commit(self) -> FileRow:
        await self._end_writing()
        with self._opened().used() as descriptor:
            stamp = await self._pool.run(self.files.sync, descriptor)
        row = await self._hooks.finish(self, stamp)
        self.writing, self._gone = False, True
        self.shut()
        # The file is in place and shared: what is left to tidy up must not make that a failure.
        with suppress(StorageError):
            await self._pool.run(self.files.forget)
        await self._tidy()
        return row

    async def close(self) -> None:
        """See PartFile."""
        if not self._gone and self.writing:
            await uninterrupted(self._close())

    async def _close(self) -> None:
        await self._end_writing()
        if not self._held:
            await self._discard()
            return
        await self._save()
        if not self.files.described:
            # Nothing on disk says what it is, and nobody would save it later: on a full disk it only takes room.
            # At most the work of one save interval goes with it.
            await self._discard()
            return
        self.writing = False
        self._hooks.closed(self)

    async def discard(self) -> None:
        """See PartFile."""
        if not self._gone:
            await uninterrupted(self._discard())

    async def _discard(self) -> None:
        self._gone = True
        await self._end_writing()
        self.writing = False
        # Without the lock that comes with the descriptor the files may be somebody else's.
        try:
            if self._descriptor is not None:
                await self._pool.run(self.files.delete)
        finally:
            self.shut()
            self._hooks.ended(self)
        await self._tidy()

    def shut(self) -> None:
        """Closes the data file once nobody reads it; the part stays on disk."""
        if self._descriptor is not None:
            self._descriptor.close()
            self._descriptor = None

    def _opened(self) -> SharedDescriptor:
        if self._descriptor is None:
            raise StorageError(f"the part of {self.target.name} is closed")
        return self._descriptor

    async def _end_writing(self) -> None:
        """Waits for chunks that are being written, and ends saving."""
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
                # A whole part is about to be committed, or saved by `close`.
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

    async def _tidy(self) -> None:
        if self._hooks.after is not None:
            await self._hooks.after()


async def open_part(
    final: Path, target: PartTarget, pool: DiskPool, *, overwrite: bool, folder: Path | None = None
) -> Part:
    """A part that becomes a file anywhere, for a command that has no shared folder; resumes an earlier attempt.

    final: where the file goes. folder: where the part is kept meanwhile, on the same file system; beside `final` in a
    hidden folder unless given, which is removed once it is empty. Raises NameTakenError, AlreadyRunningError,
    NoSpaceError, StorageError.
    """
    parts = folder or final.parent / PARTS_FOLDER
    if not overwrite and await pool.run(_is_there, final):
        raise NameTakenError(f"{final} is there already with another content", hint="--overwrite replaces it")

    async def finish(part: Part, _: Stamp) -> FileRow:
        await pool.run(_put_in_place, part.files.data_path, final, overwrite)
        key = RowKey(target.name, target.content_id)
        return FileRow(key, target.manifest.size_bytes, time.time_ns(), target.published_ns)

    async def tidy() -> None:
        # Not empty: other parts are there.
        with suppress(OSError):
            await pool.run(parts.rmdir)

    hooks = PartHooks(finish, closed=Part.shut, after=tidy)
    for _ in range(OPEN_TRIES - 1):
        try:
            return await _begun(Part(parts, target, pool, hooks), hooks)
        except StorageError as error:
            # Another part that has just ended took the shared folder away between our making it and using it.
            if not isinstance(error.__cause__, FileNotFoundError | FileExistsError):
                raise
    return await _begun(Part(parts, target, pool, hooks), hooks)


async def _begun(part: Part, hooks: PartHooks) -> Part:
    try:
        await part.begin(hooks)
    except BaseException:
        await part.close()
        part.shut()
        raise
    return part


def _is_there(final: Path) -> bool:
    return final.exists() or final.is_symlink()


def _put_in_place(data: Path, final: Path, overwrite: bool) -> None:
    with told_as(f"cannot put {final} in place"):
        final.parent.mkdir(parents=True, exist_ok=True)
        with fsync_folder(final.parent) as parent:
            if overwrite:
                data.replace(final)
            else:
                move_without_replacing(data, final.name, parent)
