"""What the rest of the peer may ask of the disk.

`ChunkStore` (in `store`) implements `ContentStore`. All methods are coroutines whose disk work and hashing run in a
bounded pool of threads; nothing here blocks the event loop. Contents are served from the shared files themselves and
from part files; no byte is kept twice.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minga_core.chunks import ChunkSet
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import FileRow, RowKey


@dataclass(frozen=True, slots=True)
class RowsChanged:
    """Rows of the file table that changed; a key is in one of the two at most."""

    put: tuple[FileRow, ...]
    remove: tuple[RowKey, ...]


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The store in figures."""

    file_count: int
    shared_bytes: int
    pending_hash_count: int
    free_bytes: int
    """What downloads and uploads may still take: the lesser of the disk's free space and the capacity's rest."""
    capacity_bytes: int
    problems: Sequence[str]
    """Files that cannot be shared, each with its reason in one line; at most 20."""


@dataclass(frozen=True, slots=True)
class OpenChunk:
    """A chunk in an open file."""

    descriptor: int
    offset: int
    """Bytes from the file's start."""
    size_bytes: int
    check: Callable[[], None]
    """Blocking. Raises ContentChangedError when the file no longer is what was hashed; to be called before and after
    reading."""


class PartFile(Protocol):
    """A content under construction. Verified chunks survive kill -9; the name appears only at `commit`."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def held(self) -> ChunkSet:
        """A copy of the set of chunks that are verified and written."""
        ...

    async def write_chunk(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """Verifies the chunk and writes it. A chunk that is already held is ignored.

        Raises ChunkCorruptError (nothing was written), NoSpaceError, StorageError.
        """
        ...

    async def commit(self) -> FileRow:
        """Syncs, moves the file to its name, and lists it. Raises NameTakenError, NoSpaceError, StorageError."""
        ...

    async def close(self) -> None:
        """Saves the bitmap and lets go; the part stays for a later resume. Idempotent; no-op after commit."""
        ...

    async def discard(self) -> None:
        """Deletes the part."""
        ...


class ContentStore(Protocol):
    """The shared folder and the parts of downloads."""

    @property
    def root(self) -> Path: ...

    def rows(self) -> Sequence[FileRow]:
        """The file table now: complete files, and parts with at least one chunk."""
        ...

    def on_rows_changed(self, callback: Callable[[RowsChanged], None]) -> None:
        """Calls back, on the event loop, at each change of the table."""
        ...

    def find(self, name: Name) -> FileRow | None:
        """The complete file under a name; None when there is none that is shared."""
        ...

    def path_of(self, name: Name) -> Path:
        """Where the complete file of that name is, or would be, inside the root."""
        ...

    async def manifest(self, content_id: ContentId) -> Manifest:
        """The manifest of a content held in whole or part. Raises ContentNotHeldError."""
        ...

    def held(self, content_id: ContentId) -> ChunkSet | None:
        """The chunks of a content that can be served now (a copy); None when it is not held at all."""
        ...

    def watch(self, content_id: ContentId) -> AsyncGenerator[ChunkSet, None]:
        """All chunks held now, then each new set of chunks as it is verified; ends when complete or no longer held.

        Raises ContentNotHeldError.
        """
        ...

    async def read_chunk(self, content_id: ContentId, index: int) -> bytes | bytearray | memoryview:
        """A chunk's bytes. Raises ContentNotHeldError; ContentChangedError when the file no longer is what was hashed
        (it is then hashed again)."""
        ...

    def open_chunk(self, content_id: ContentId, index: int) -> AbstractAsyncContextManager[OpenChunk]:
        """Where a chunk's bytes are, for as long as the block lasts; for sending them without a way through memory.

        Raises ContentNotHeldError, ContentChangedError.
        """
        ...

    async def begin_part(self, name: Name, manifest: Manifest, *, published_ns: int, overwrite: bool) -> PartFile:
        """Opens or resumes a part.

        Raises NameTakenError (another content has the name, and not overwrite), NoSpaceError, StorageError,
        AlreadyRunningError (the same part is being written already).
        """
        ...

    async def remove(self, name: Name) -> FileRow:
        """Deletes the file of that name and unlists it. Raises FileNotFoundInDirectoryError, StorageError."""
        ...

    def status(self) -> StoreStatus: ...
