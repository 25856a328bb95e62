"""Reads shared files again and compares them with what was hashed, so that rot is found before a reader finds it."""

import errno
import logging
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

from minga_core.chunks import Geometry
from minga_core.errors import ChunkCorruptError, ContentChangedError, MingaError, StorageError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_engine.parts.disk import DiskPool, storage_error
from minga_engine.parts.files import Fingerprint
from minga_engine.parts.hashing import hash_descriptor, verify_chunks
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.root import Root
from minga_peer.share.shared_files import SharedFiles
from minga_peer.share.shared_folder import SharedFolder
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

SLICE_BYTES = 16 * 1024 * 1024
"""Read by one job of a thread: at least a chunk, and soon over when the daemon stops."""
SMALL_FILES_A_JOB = 64
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)


class Verdict(StrEnum):
    """What became of a file that was read again."""

    GOOD = "good"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    """A program changed, replaced or removed it meanwhile: it is another file now, which is hashed."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A file that was read again."""

    file: IndexedFile
    verdict: Verdict
    why: str = ""
    """What is wrong with it, in one line."""


class Verifier:
    """Verifies files, and takes out of the table those that are not good. Only for the event loop's thread."""

    def __init__(self, folder: SharedFolder, shared: SharedFiles) -> None:
        self._folder = folder
        self._shared = shared

    async def verify_small(self, files: Sequence[IndexedFile], pool: DiskPool) -> list[Verified]:
        """Verify files of one chunk, in a single job of the pool."""
        errors = await pool.run(lambda: [_error_of(self._folder.root, file) for file in files])
        return [self.settle(file, error) for file, error in zip(files, errors, strict=True)]

    async def read(
        self, file: IndexedFile, pool: DiskPool, first: int = 0, *, cached: bool = False
    ) -> AsyncGenerator[tuple[int, int], None]:
        """Compare a file from its chunk `first` on; after each slice the next chunk, and how many bytes were read.

        cached: whether somebody will read it soon, so that it may take room in the page cache. Raises
        ContentChangedError, ChunkCorruptError, StorageError, for `settle`.
        """
        manifest = await self._folder.index.manifest(file)
        if manifest is None:
            raise ContentChangedError(f"the digests of {file.name} are lost")
        for chunks in slices(manifest.geometry, first):
            await pool.run(check_chunks, self._folder.root, file, manifest, chunks, cached)
            yield chunks.stop, sum(map(manifest.geometry.length, chunks))

    async def verify(self, file: IndexedFile, pool: DiskPool) -> Verified:
        """Verify all of a file that somebody is about to read."""
        try:
            async for _ in self.read(file, pool, cached=True):
                pass
        except MingaError as error:
            return self.settle(file, error)
        return self.settle(file, None)

    async def verify_chunk(self, content_id: ContentId, index: int, pool: DiskPool) -> bool:
        """Whether the chunk that is served is what it should be; if not, it is not served any more."""
        file = self._folder.inventory.file_with(content_id)
        if file is None:
            part = self._folder.inventory.part_with(content_id)
            with suppress(StorageError):  # it is closed: a file by now, or deleted
                return part is None or not await part.verify([index])
            return True
        try:
            manifest = await self._folder.index.manifest(file)
            if manifest is None:
                raise ContentChangedError(f"the digests of {file.name} are lost")
            await pool.run(check_chunks, self._folder.root, file, manifest, [index], False)
        except MingaError as error:
            return self.settle(file, error).verdict is Verdict.GOOD
        return True

    def settle(self, file: IndexedFile, error: MingaError | None) -> Verified:
        """Do what the outcome of reading all of a file demands: None when every byte is good."""
        if self._folder.shared_or_damaged(file.name) != file:
            return Verified(file, Verdict.CHANGED)
        match error:
            case None:
                self._shared.share_again(file)
                return Verified(file, Verdict.GOOD)
            case ChunkCorruptError():
                self._shared.refuse_damaged(file, str(error))
                return Verified(file, Verdict.DAMAGED, str(error))
            case StorageError():
                log_event(log, logging.WARNING, "file_unreadable", name=file.name, error=error)
                self._shared.hash_again(file)
                return Verified(file, Verdict.UNREADABLE, str(error))
            case ContentChangedError():
                self._shared.hash_again(file)
                return Verified(file, Verdict.CHANGED)
        raise error


def slices(geometry: Geometry, first: int = 0) -> Iterator[range]:
    """The chunks from `first` on, as many at a time as SLICE_BYTES has, and one at least."""
    step = max(1, SLICE_BYTES // geometry.chunk_size_bytes)
    for start in range(first, geometry.chunk_count, step):
        yield range(start, min(start + step, geometry.chunk_count))


def check_chunks(root: Root, file: IndexedFile, manifest: Manifest, chunks: Sequence[int], cached: bool) -> None:
    """Compare chunks of a file that was hashed. Blocking. cached: see `verify_chunks`.

    Raises ChunkCorruptError, StorageError when it cannot be read, ContentChangedError when it is another file by now.
    """
    with _opened(root, file) as descriptor:
        verify_chunks(descriptor, manifest, chunks, file.name, cached=cached)


def check_small(root: Root, file: IndexedFile) -> None:
    """As `check_chunks`, for all of a file whose content id needs no manifest. Blocking."""
    with _opened(root, file) as descriptor:
        if hash_descriptor(descriptor, file.name)[0].content_id != file.content_id:
            raise ChunkCorruptError(f"{file.name} is not what was hashed")


@contextmanager
def _opened(root: Root, file: IndexedFile) -> Iterator[int]:
    """A descriptor of a file that is what was hashed, by its fingerprint, before the block and after it."""
    try:
        descriptor = root.open(file.path)
        try:
            _check_fingerprint(descriptor, file)
            try:
                yield descriptor
            except ChunkCorruptError:
                # A program that is writing just now is no rot.
                _check_fingerprint(descriptor, file)
                raise
            _check_fingerprint(descriptor, file)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _GONE:
            raise ContentChangedError(f"{file.name} is gone") from error
        raise storage_error(error, f"{file.name} cannot be read") from error


def _check_fingerprint(descriptor: int, file: IndexedFile) -> None:
    if Fingerprint.of(os.fstat(descriptor)) != file.fingerprint:
        raise ContentChangedError(f"{file.name} changed")


def _error_of(root: Root, file: IndexedFile) -> MingaError | None:
    try:
        check_small(root, file)
    except MingaError as error:
        return error
    return None
