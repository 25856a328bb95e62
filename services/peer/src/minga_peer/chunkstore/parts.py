"""Part files: contents under construction that survive `kill -9` and power cuts.

A part is up to three files in the parts folder, named after the content and the file:

==========  ====================================================================================
``.data``   the content, chunks at their offsets; sparse until they come
``.meta``   what is being built: name, publishing time, manifest
``.held``   bitmap of the verified chunks whose data are synced, with a checksum over it
==========  ====================================================================================

Order is what makes it safe: data are synced before a bitmap that claims them is written, and the bitmap is replaced in
one step. What is lost with the power is at most the chunks since the last flush, and none is ever claimed that is not
there. A part that is done within its first flush interval never writes ``.meta`` and ``.held`` at all.
"""

import asyncio
import fcntl
import json
import os
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minga_core.chunks import ChunkSet
from minga_core.errors import (
    AlreadyRunningError,
    ChunkCorruptError,
    ContentNotHeldError,
    InvalidArgumentError,
    NameTakenError,
    NoSpaceError,
    StorageError,
)
from minga_core.ids import ContentId, digest
from minga_core.manifest import Manifest
from minga_core.names import Name, parse_name
from minga_core.records import FileRow, RowKey
from minga_peer.chunkstore.disk import DiskPool, told_as
from minga_peer.chunkstore.root import move_without_replacing

FLUSH_SECONDS = 2.0
FLUSH_BYTES = 64 * 1024 * 1024
"""A flush is begun after this much time or data, whichever comes first."""
_META_VERSION = 1
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class PartTarget:
    """What a part is to become."""

    name: Name
    manifest: Manifest
    content_id: ContentId
    published_ns: int

    def stem(self) -> str:
        """The files' common name: the content, and enough of the name's digest to tell two names apart."""
        return f"{self.content_id.raw.hex()}-{digest(self.name.encode()).hex()[:16]}"


@dataclass(frozen=True, slots=True)
class PartHooks:
    """What the owner of a part does with it."""

    finish: Callable[["Part"], Awaitable[FileRow]]
    """Moves the synced data file to its name. Raises NameTakenError, NoSpaceError, StorageError."""
    chunk_held: Callable[["Part", int], None] = lambda part, index: None
    """Hears, on the event loop, of each chunk that is verified and written."""
    closed: Callable[["Part"], None] = lambda part: None
    """Hears when nobody writes the part any more."""
    after: Callable[[], Awaitable[None]] | None = None
    """Runs once the part's files are gone."""


class Part:
    """Implements PartFile. Chunks may be written from many tasks at once."""

    def __init__(self, folder: Path, target: PartTarget, pool: DiskPool, hooks: PartHooks) -> None:
        self.target = target
        self._pool = pool
        self._hooks = hooks
        stem = target.stem()
        self.data_path = folder / f"{stem}.data"
        self._meta_path = folder / f"{stem}.meta"
        self._held_path = folder / f"{stem}.held"
        self._held = ChunkSet(target.manifest.geometry.chunk_count)
        self._descriptor = -1
        self._flushed_at = time.monotonic()
        self._unflushed_bytes = 0
        self._flushing: asyncio.Task[None] | None = None
        self._meta_written = False
        self._finished = False
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

    def rehook(self, hooks: PartHooks) -> None:
        """Another owner resumes the part."""
        self._hooks = hooks

    async def open(self) -> None:
        """Opens the files, or makes them; takes over the chunks of an earlier attempt.

        Raises AlreadyRunningError when another process writes this part, NoSpaceError, StorageError.
        """
        if self._descriptor < 0:
            await self._pool.run(self._open)

    def _open(self) -> None:
        with told_as(f"cannot write {self.target.name}"):
            self.data_path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.data_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise AlreadyRunningError(f"{self.target.name} is being downloaded by another process") from None
            size_bytes = self.manifest.size_bytes
            if os.fstat(descriptor).st_size == size_bytes:
                self._held = self._saved()
                self._meta_written = self._meta_path.exists()
            else:
                os.ftruncate(descriptor, size_bytes)
            self._descriptor = descriptor

    def _saved(self) -> ChunkSet:
        """The chunks that the bitmap on disk claims; none when there is no whole bitmap."""
        count = self.manifest.geometry.chunk_count
        try:
            saved = self._held_path.read_bytes()
            if digest(saved[:-32]) == saved[-32:]:
                return ChunkSet.from_bytes(count, saved[:-32])
        except (FileNotFoundError, InvalidArgumentError):
            return ChunkSet(count)
        return ChunkSet(count)

    async def write_chunk(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """See PartFile."""
        if index in self._held:
            return
        await self._pool.run(self._write, index, data)
        self._held.add(index)
        self._unflushed_bytes += len(data)
        self._hooks.chunk_held(self, index)
        if self._flush_due() and not self._held.complete:
            self._flushing = asyncio.create_task(self._flush(), name=f"flush-{self.target.content_id.short}")

    def _write(self, index: int, data: bytes | bytearray | memoryview) -> None:
        if not self.manifest.matches(index, data):
            raise ChunkCorruptError(f"chunk {index} of {self.target.name} fails its digest")
        view, offset = memoryview(data), self.manifest.geometry.offset(index)
        with told_as(f"cannot write {self.target.name}"):
            while view:
                count = os.pwrite(self._descriptor, view, offset)
                view, offset = view[count:], offset + count

    def _flush_due(self) -> bool:
        if self._flushing is not None and not self._flushing.done():
            return False
        late = time.monotonic() - self._flushed_at >= FLUSH_SECONDS
        return late or self._unflushed_bytes >= FLUSH_BYTES

    async def _flush(self) -> None:
        """Syncs data, then saves the bitmap of what was written before."""
        self._flushed_at, self._unflushed_bytes = time.monotonic(), 0
        with suppress_storage_errors():
            await self._pool.run(self._save, self._held.to_bytes())

    def _save(self, bitmap: bytes) -> None:
        with told_as(f"cannot save the progress of {self.target.name}"):
            os.fdatasync(self._descriptor)
            if not self._meta_written:
                _replace(self._meta_path, encode_meta(self.target))
                self._meta_written = True
            _replace(self._held_path, bitmap + digest(bitmap))

    async def read_chunk(self, index: int) -> bytearray:
        """A chunk that is held. Raises ContentNotHeldError, StorageError."""
        if index not in self._held or self._descriptor < 0:
            raise ContentNotHeldError(f"chunk {index} of {self.target.name} is not there yet")
        return await self._pool.run(self._read, index)

    def _read(self, index: int) -> bytearray:
        geometry = self.manifest.geometry
        data = bytearray(geometry.length(index))
        with told_as(f"cannot read {self.target.name}"):
            os.preadv(self._descriptor, [data], geometry.offset(index))
        return data

    async def commit(self) -> FileRow:
        """See PartFile."""
        if not self._held.complete:
            raise InvalidArgumentError(f"{self.target.name} is not whole yet")
        await self._end_flush()
        await self._pool.run(self._sync)
        row = await self._hooks.finish(self)
        self._finished = True
        await self._pool.run(self._forget)
        self._release()
        await self._tidy()
        return row

    def _sync(self) -> None:
        with told_as(f"cannot write {self.target.name}"):
            os.fdatasync(self._descriptor)

    def _forget(self) -> None:
        self._meta_path.unlink(missing_ok=True)
        self._held_path.unlink(missing_ok=True)

    async def close(self) -> None:
        """See PartFile."""
        if self._finished or not self.writing:
            return
        await self._end_flush()
        if self._held:
            with suppress_storage_errors():
                await self._pool.run(self._save, self._held.to_bytes())
        self._release()
        if not self._held:
            await self.discard()

    async def discard(self) -> None:
        """See PartFile."""
        self._finished = True
        await self._end_flush()
        await self._pool.run(self._delete)
        self._release()
        await self._tidy()

    def _delete(self) -> None:
        self.data_path.unlink(missing_ok=True)
        self._forget()

    async def _end_flush(self) -> None:
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)

    def _release(self) -> None:
        was_writing, self.writing = self.writing, False
        if was_writing:
            self._hooks.closed(self)
        if self._finished:
            self.shut()

    async def _tidy(self) -> None:
        if self._hooks.after is not None:
            await self._hooks.after()

    def shut(self) -> None:
        """Closes the descriptor; the part stays on disk."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def suppress_storage_errors() -> suppress:
    """For saving progress: when that fails, chunks since the last save are fetched again after a restart, no more."""
    return suppress(NoSpaceError, StorageError)


def encode_meta(target: PartTarget) -> bytes:
    """The ``.meta`` file: a JSON head with its length before it, then the manifest, then a checksum over both."""
    head = json.dumps({"version": _META_VERSION, "name": target.name, "published_ns": target.published_ns}).encode()
    body = _LENGTH.pack(len(head)) + head + target.manifest.encode()
    return body + digest(body)


def decode_meta(data: bytes) -> PartTarget:
    """What a ``.meta`` file says. Raises InvalidArgumentError or a ValueError when it is damaged."""
    body, checksum = data[:-32], data[-32:]
    if len(body) < _LENGTH.size or digest(body) != checksum:
        raise InvalidArgumentError("the part's description is damaged")
    (length,) = _LENGTH.unpack_from(body)
    head = json.loads(body[_LENGTH.size : _LENGTH.size + length])
    manifest = Manifest.decode(body[_LENGTH.size + length :])
    return PartTarget(parse_name(head["name"]), manifest, manifest.content_id, int(head["published_ns"]))


def _replace(path: Path, data: bytes) -> None:
    """Replaces a small file in one durable step."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, data)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)


async def open_part(
    final: Path, target: PartTarget, pool: DiskPool, *, overwrite: bool, folder: Path | None = None
) -> Part:
    """A part that becomes a file anywhere, for a command that has no shared folder; resumes an earlier attempt.

    final: where the file goes. folder: where the part is kept meanwhile, on the same file system; beside `final` in a
    hidden folder unless given, which is removed once it is empty. Raises NameTakenError, AlreadyRunningError,
    NoSpaceError, StorageError.
    """
    parts = folder or final.parent / ".minga-parts"
    if not overwrite and await pool.run(final.exists):
        raise NameTakenError(f"{final} is there already with another content", hint="--overwrite replaces it")

    async def finish(part: Part) -> FileRow:
        await pool.run(_put_in_place, part.data_path, final, overwrite)
        key = RowKey(target.name, target.content_id)
        return FileRow(key, target.manifest.size_bytes, time.time_ns(), target.published_ns)

    async def tidy() -> None:
        with suppress(OSError):
            await pool.run(parts.rmdir)

    part = Part(parts, target, pool, PartHooks(finish, after=tidy))
    part.writing = True
    await part.open()
    return part


def _put_in_place(data: Path, final: Path, overwrite: bool) -> None:
    with told_as(f"cannot put {final} in place"):
        final.parent.mkdir(parents=True, exist_ok=True)
        parent = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if overwrite:
                data.replace(final)
            else:
                move_without_replacing(data, final.name, parent)
            os.fsync(parent)
        finally:
            os.close(parent)
