"""Descriptors of shared files that are being served, with the file's identity checked before and after each read."""

import os
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from minga_core.chunks import Geometry
from minga_core.errors import ContentChangedError
from minga_engine.parts.disk import DiskPool, SharedDescriptor
from minga_engine.parts.files import OpenChunk
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.root import Root

MAX_OPEN_FILES = 128
"""Descriptors kept open for files that are being served; the least recently used is closed first."""


class FileReader:
    """Opens files that were hashed before. Only for the event loop's thread."""

    def __init__(self, root: Root, pool: DiskPool) -> None:
        self._root = root
        self._pool = pool
        self._open: OrderedDict[IndexedFile, SharedDescriptor] = OrderedDict()

    @asynccontextmanager
    async def open_chunk(self, file: IndexedFile, index: int) -> AsyncGenerator[OpenChunk, None]:
        """Where a chunk is on disk, until the end of the block. Raises ContentChangedError when the file is gone."""
        geometry = Geometry(file.size_bytes)
        offset, size_bytes = geometry.offset(index), geometry.length(index)
        with (await self.open(file)).used() as descriptor:
            yield OpenChunk(descriptor, offset, size_bytes, file.fingerprint)

    async def open(self, file: IndexedFile) -> SharedDescriptor:
        """A file's descriptor, to be used at once: the reader may close it as soon as it is not in use.

        Raises ContentChangedError when the file cannot be opened any more.
        """
        if file not in self._open:
            try:
                number = await self._pool.acquire(self._root.open, file.path, undo=os.close)
            except OSError as error:
                reason = (error.strerror or "").lower()
                raise ContentChangedError(f"{file.name} cannot be opened any more: {reason}") from error
            if file in self._open:
                # Another task opened it meanwhile.
                os.close(number)
            else:
                self._open[file] = SharedDescriptor(number)
        self._open.move_to_end(file)
        while len(self._open) > MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return self._open[file]

    def forget(self, file: IndexedFile) -> None:
        """Close a file that is no longer shared, as soon as no read uses it."""
        if (descriptor := self._open.pop(file, None)) is not None:
            descriptor.close()

    def close(self) -> None:
        """Close every file, as soon as no read uses it."""
        for descriptor in self._open.values():
            descriptor.close()
        self._open.clear()
