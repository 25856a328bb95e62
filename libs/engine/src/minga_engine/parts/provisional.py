"""A part of a content whose digests come while it is fetched from where nobody knows them, in any order.

Its content id is none of its bytes: it stands for them until all are here. Then the part becomes one of the real
content. It is not kept for a later attempt: without all digests nobody could tell what it is.
"""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

from minga_core.chunks import ChunkSet, Geometry
from minga_core.errors import (
    ChunkCorruptError,
    ContentChangedError,
    InvalidArgumentError,
    InvalidManifestError,
    NoSpaceError,
    StorageError,
)
from minga_core.ids import DIGEST_BYTES
from minga_core.manifest import Manifest
from minga_core.records import FileRow
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_engine.parts.part import Part, PartOwner
from minga_engine.parts.part_files import PartTarget

DIGEST_SECONDS = 10.0
"""A chunk that is here waits so long for its digest."""


def no_digests(size_bytes: int) -> Manifest:
    """The manifest of a content of that size of which no digest is known yet: zeros stand for them."""
    geometry = Geometry(size_bytes)
    return Manifest(geometry, bytes(geometry.chunk_count * DIGEST_BYTES))


class ProvisionalPart(Part):
    """A part whose target has a manifest of `no_digests` and any content id."""

    listed = False

    def __init__(self, folder: Path, target: PartTarget, pool: DiskPool, owner: PartOwner) -> None:
        super().__init__(folder, target, pool, owner)
        self._known = ChunkSet(target.manifest.geometry.chunk_count)
        self._changed: asyncio.Event | None = None
        self.fetching = False
        """Whether it is filled from where nobody else fetches it."""
        self._unsynced: NoSpaceError | StorageError | None = None
        """Why data were lost on their way to the disk: the kernel says that once."""

    @property
    def growing(self) -> bool:  # type: ignore[override]
        """Whether chunks are still to come here first."""
        return self.fetching and not self._held.complete

    @property
    def known(self) -> ChunkSet:
        """A copy of the set of chunks whose digests are known."""
        return self._known.copy()

    def add_digests(self, first: int, digests: bytes) -> None:
        """Take the digests of the chunks from `first` on. Raises ContentChangedError for another one than is known,
        InvalidArgumentError for more than there are chunks."""
        manifest, count = self.manifest, len(digests) // DIGEST_BYTES
        if len(digests) % DIGEST_BYTES or not 0 <= first <= manifest.geometry.chunk_count - count:
            raise InvalidArgumentError(f"these are not digests of chunks of {self.target.name}")
        added = ChunkSet.from_ranges(self._known.count, [(first, first + count)] if count else [])
        for index in added & self._known:
            if manifest.chunk_digest(index) != digests[(index - first) * DIGEST_BYTES :][:DIGEST_BYTES]:
                raise ContentChangedError(f"{self.target.name} is another file than before")
        self._known |= added
        before, after = manifest.digests[: first * DIGEST_BYTES], manifest.digests[(first + count) * DIGEST_BYTES :]
        self.files.target = replace(self.target, manifest=Manifest(manifest.geometry, before + digests + after))
        self.wake()

    def wake(self) -> None:
        """Have all calls of `changed` return."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def changed(self) -> None:
        """Return when digests have come since this was called, or at `wake`."""
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    async def write_chunk(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """As for any part, once its digest is known. Raises ChunkCorruptError when that takes too long."""
        try:
            async with asyncio.timeout(DIGEST_SECONDS):
                while index not in self._known:
                    await self.changed()
        except TimeoutError:
            raise ChunkCorruptError(f"chunk {index} of {self.target.name} came, and no digest of it") from None
        await super().write_chunk(index, data)

    def final_manifest(self) -> Manifest:
        """The manifest of the real content. Raises InvalidManifestError while digests are missing."""
        if not self._known.complete:
            raise InvalidManifestError(f"not all digests of {self.target.name} are known")
        return self.manifest

    async def close(self) -> None:
        """Stop writing; what has not become a file is deleted. Idempotent."""
        await self.discard()

    async def _save(self) -> None:
        """Nothing is claimed; but what has come is synced meanwhile, and not all of it at the end."""
        self._save_soon.clear()
        self._save_now.clear()
        self._unsaved_bytes = 0
        try:
            with self._opened().used() as descriptor, storage_errors(f"cannot write {self.target.name}"):
                await self._pool.run(os.fdatasync, descriptor)
        except (NoSpaceError, StorageError) as error:
            self._unsynced = error

    async def commit(self) -> FileRow:
        """As for any part."""
        if self._unsynced is not None:
            raise self._unsynced
        return await super().commit()
