"""What is put onto the network, and where its bytes are read."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minga_core.attributes import NO_ATTRIBUTES, FileAttributes
from minga_core.errors import ContentChangedError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_engine.transfer.stream import Reader


class FileChangedError(ContentChangedError):
    """The local file is not what was hashed any more."""


class PutFile(Protocol):
    """What is put, and where its bytes are read."""

    @property
    def manifest(self) -> Manifest:
        """What it is made of."""
        ...

    @property
    def content_id(self) -> ContentId:
        """That of the manifest."""
        ...

    @property
    def attributes(self) -> FileAttributes:
        """Those that its name gets."""
        ...

    async def chunk(self, index: int) -> bytes:
        """The bytes of a chunk. Raises FileChangedError, and what reading them raises."""
        ...


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A local file and what it is made of. Implements PutFile."""

    path: Path
    manifest: Manifest
    content_id: ContentId
    attributes: FileAttributes = NO_ATTRIBUTES

    async def chunk(self, index: int) -> bytes:
        """See PutFile."""
        return await asyncio.to_thread(_read_chunk, self, index)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A content of the network, which is read only as far as a peer that is to store it lacks chunks. Implements
    PutFile."""

    manifest: Manifest
    content_id: ContentId
    attributes: FileAttributes
    reader: Reader

    async def chunk(self, index: int) -> bytes:
        """See PutFile. Raises what `Reader.read` raises."""
        geometry = self.manifest.geometry
        data, length = b"", geometry.length(index)
        while len(data) < length:
            data += await self.reader.read(geometry.offset(index) + len(data), length - len(data))
        return data


def _read_chunk(file: HashedFile, index: int) -> bytes:
    """A chunk of a local file; blocking. Raises ContentChangedError when it no longer is what was hashed."""
    geometry = file.manifest.geometry
    try:
        with file.path.open("rb") as handle:
            data = os.pread(handle.fileno(), geometry.length(index), geometry.offset(index))
    except OSError as error:
        raise FileChangedError(f"{file.path} cannot be read any more: {error.strerror}") from error
    if not file.manifest.matches(index, data):
        raise FileChangedError(f"{file.path} changed while it was uploaded", hint="run the command again")
    return data
