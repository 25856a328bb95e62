"""Reading chunks of shared files, with the file's identity checked before and after."""

import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from minga_core.errors import ContentChangedError
from minga_core.manifest import Manifest
from minga_peer.chunkstore.disk import DiskPool
from minga_peer.chunkstore.index import IndexedFile
from minga_peer.chunkstore.root import Root, Stamp

MAX_OPEN_FILES = 128
"""Descriptors kept open for files that are being served; the least recently used idle one is closed first."""


@dataclass(slots=True)
class _Open:
    descriptor: int
    users: int = 0
    dropped: bool = False


class FileReader:
    """Reads chunks of files that were hashed before."""

    def __init__(self, root: Root, pool: DiskPool) -> None:
        self._root = root
        self._pool = pool
        self._open: OrderedDict[IndexedFile, _Open] = OrderedDict()

    async def read_chunk(self, file: IndexedFile, manifest: Manifest, index: int) -> bytearray:
        """A chunk's bytes. Raises ContentChangedError when the file no longer is what was hashed, or is gone."""
        geometry = manifest.geometry
        async with self._opened(file) as descriptor:
            return await self._pool.run(_read, descriptor, file, geometry.offset(index), geometry.length(index))

    @asynccontextmanager
    async def _opened(self, file: IndexedFile) -> AsyncIterator[int]:
        entry = self._open.get(file)
        if entry is None:
            try:
                descriptor = await self._pool.run(self._root.open, file.path)
            except OSError as error:
                raise ContentChangedError(f"{file.name} cannot be opened any more: {error.strerror}") from error
            entry = self._keep(file, descriptor)
        self._open.move_to_end(file)
        entry.users += 1
        try:
            yield entry.descriptor
        finally:
            entry.users -= 1
            if entry.dropped and entry.users == 0:
                os.close(entry.descriptor)
            self._close_surplus()

    def _keep(self, file: IndexedFile, descriptor: int) -> _Open:
        """Keeps a descriptor, unless another task has opened the same file meanwhile."""
        rival = self._open.get(file)
        if rival is not None:
            os.close(descriptor)
            return rival
        entry = self._open[file] = _Open(descriptor)
        return entry

    def _close_surplus(self) -> None:
        if len(self._open) <= MAX_OPEN_FILES:
            return
        idle = [file for file, entry in self._open.items() if entry.users == 0]
        for file in idle[: len(self._open) - MAX_OPEN_FILES]:
            os.close(self._open.pop(file).descriptor)

    def forget(self, file: IndexedFile) -> None:
        """Closes a file that is no longer shared, as soon as nobody reads it."""
        entry = self._open.pop(file, None)
        if entry is None:
            return
        entry.dropped = True
        if entry.users == 0:
            os.close(entry.descriptor)

    def close(self) -> None:
        """Closes every descriptor. Nobody may be reading."""
        for entry in self._open.values():
            os.close(entry.descriptor)
        self._open.clear()


def _read(descriptor: int, file: IndexedFile, offset: int, length: int) -> bytearray:
    _check(descriptor, file)
    data = bytearray(length)
    if os.preadv(descriptor, [data], offset) != length:
        raise ContentChangedError(f"{file.name} became shorter")
    _check(descriptor, file)
    return data


def _check(descriptor: int, file: IndexedFile) -> None:
    if Stamp.of(os.fstat(descriptor)) != file.stamp:
        raise ContentChangedError(f"{file.name} changed")
