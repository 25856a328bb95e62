"""Reading chunks of shared files, with the file's identity checked before and after."""

import os
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from minga_core.errors import ContentChangedError
from minga_core.manifest import Manifest
from minga_engine.parts.content_store import OpenChunk
from minga_engine.parts.disk import DiskPool, SharedDescriptor
from minga_engine.parts.files import Stamp
from minga_peer.share.index import IndexedFile
from minga_peer.share.root import Root

MAX_OPEN_FILES = 128
"""Descriptors kept open for files that are being served; the least recently used is let go first."""


class FileReader:
    """Reads chunks of files that were hashed before. Only for the event loop's thread."""

    def __init__(self, root: Root, pool: DiskPool) -> None:
        self._root = root
        self._pool = pool
        self._open: OrderedDict[IndexedFile, SharedDescriptor] = OrderedDict()

    async def read_chunk(self, file: IndexedFile, manifest: Manifest, index: int) -> bytes:
        """A chunk's bytes. Raises ContentChangedError when the file no longer is what was hashed, or is gone."""
        offset, length = manifest.geometry.offset(index), manifest.geometry.length(index)
        with (await self.opened(file)).used() as descriptor:
            return await self._pool.run(_read, descriptor, file, offset, length)

    @asynccontextmanager
    async def opened_chunk(self, file: IndexedFile, manifest: Manifest, index: int) -> AsyncGenerator[OpenChunk, None]:
        """Where a chunk lies, until the end of the block. Raises ContentChangedError when the file is gone."""
        geometry = manifest.geometry
        with (await self.opened(file)).used() as descriptor:
            yield OpenChunk(
                descriptor, geometry.offset(index), geometry.length(index), lambda: _check(descriptor, file)
            )

    async def opened(self, file: IndexedFile) -> SharedDescriptor:
        """A file's descriptor, to be used at once: it is the reader's, which may close it as soon as it is not in use.

        Raises ContentChangedError when the file cannot be opened any more.
        """
        if file not in self._open:
            try:
                number = await self._pool.acquire(self._root.open, file.path, undo=os.close)
            except OSError as error:
                reason = (error.strerror or "").lower()
                raise ContentChangedError(f"{file.name} cannot be opened any more: {reason}") from error
            if file in self._open:
                # Another reader was faster.
                os.close(number)
            else:
                self._open[file] = SharedDescriptor(number)
        self._open.move_to_end(file)
        while len(self._open) > MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return self._open[file]

    def forget(self, file: IndexedFile) -> None:
        """Closes a file that is no longer shared, as soon as nobody reads it."""
        if (descriptor := self._open.pop(file, None)) is not None:
            descriptor.close()

    def close(self) -> None:
        """Closes every file, as soon as nobody reads it."""
        for descriptor in self._open.values():
            descriptor.close()
        self._open.clear()


def _read(descriptor: int, file: IndexedFile, offset: int, length: int) -> bytes:
    _check(descriptor, file)
    data = os.pread(descriptor, length, offset)
    if len(data) != length:
        raise ContentChangedError(f"{file.name} became shorter")
    _check(descriptor, file)
    return data


def _check(descriptor: int, file: IndexedFile) -> None:
    if Stamp.of(os.fstat(descriptor)) != file.stamp:
        raise ContentChangedError(f"{file.name} changed")
