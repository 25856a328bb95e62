"""Reading a content's verified bytes, in order of a position, while they arrive."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from minga_core.chunks import ChunkSet, Geometry
from minga_core.errors import ContentNotHeldError, InvalidArgumentError
from minga_core.ids import ContentId
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_engine.parts.files import OpenChunk
from minga_engine.transfer.locating import Located


class Reader(Protocol):
    """An open content. Any number of reads at once, at any positions."""

    @property
    def content_id(self) -> ContentId:
        """What is read."""
        ...

    @property
    def size_bytes(self) -> int:
        """Of the whole content."""
        ...

    @property
    def local(self) -> bool:
        """Whether all of it was on this machine when it was opened."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """At least one byte from `offset` on and at most `length` (which is at least 1); empty at the end.

        Waits until they have arrived. Safe to retry. Raises NoSourcesError when no source was usable for the wait,
        NoSpaceError, StorageError, VersionGoneError, LocatorUnavailableError, InvalidArgumentError.
        """
        ...


class Contents(Protocol):
    """Where verified chunks are read from."""

    def held(self, content_id: ContentId) -> ChunkSet | None:
        """The chunks of a content that can be read now; None when there is nothing of it."""
        ...

    def open_chunk(self, content_id: ContentId, index: int) -> AbstractAsyncContextManager[OpenChunk]:
        """Where a chunk is on disk until the end of the block. Raises ContentNotHeldError, ContentChangedError."""
        ...


class Streams:
    """Opens contents for reading. One for a process."""

    def __init__(self, contents: Contents, pool: DiskPool) -> None:
        self._contents = contents
        self._pool = pool

    @asynccontextmanager
    async def open(self, file: Located, *, keep: bool) -> AsyncGenerator[Reader, None]:
        """The reader of a located version, until the end of the block.

        keep: whether what was fetched for it may stay on this machine. Raises InvalidArgumentError.
        """
        yield _Reader(self._contents, self._pool, file)


class _Reader:
    """Implements Reader."""

    def __init__(self, contents: Contents, pool: DiskPool, file: Located) -> None:
        self.content_id = file.content_id
        self.size_bytes = file.size_bytes
        self._geometry = Geometry(file.size_bytes)
        self._contents = contents
        self._pool = pool
        held = contents.held(file.content_id)
        self.local = held is not None and held.complete

    async def read(self, offset: int, length: int) -> bytes:
        """See Reader."""
        if offset < 0 or length < 1:
            raise InvalidArgumentError(f"{length} bytes from {offset} on cannot be read")
        if offset >= self.size_bytes:
            return b""
        index = offset // self._geometry.chunk_size_bytes
        held = self._contents.held(self.content_id)
        if held is None or index not in held:
            raise ContentNotHeldError(f"{self.content_id.short} is not held here")
        start = offset - self._geometry.offset(index)
        async with self._contents.open_chunk(self.content_id, index) as chunk:
            with storage_errors(f"cannot read {self.content_id.short}"):
                return await self._pool.run(chunk.read, start, length)
