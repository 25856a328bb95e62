"""Reads a file from the hub alone: what is in git, and what did not come through the swarm a moment ago."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from minga_core.errors import ContentChangedError
from minga_core.ids import ContentId, digest
from minga_peer.origins.origin_file import OriginFile
from minga_peer.origins.source import Source
from minga_peer.origins.upstream import Upstream


class DirectFile:
    """Implements OpenFile, for reads in order."""

    local = False
    source = Source.UPSTREAM

    def __init__(self, url: str, size_bytes: int, position: int, pieces: AsyncIterator[bytes]) -> None:
        self.content_id = ContentId(digest(url.encode()))
        self.size_bytes = size_bytes
        self._position = position
        self._pieces = pieces
        self._data = bytearray()

    async def read(self, offset: int, length: int) -> bytes:
        """The bytes from `offset` on, which is not before those that were read. Raises UnavailableError."""
        stop = min(offset + length, self.size_bytes)
        while self._position + len(self._data) < stop:
            piece = await anext(self._pieces, None)
            if piece is None:
                raise ContentChangedError("the hub sends less than it says")
            self._data += piece
            self._skip(min(offset, self._position + len(self._data)))
        self._skip(offset)
        found = bytes(self._data[: stop - offset])
        self._skip(stop)
        return found

    def _skip(self, offset: int) -> None:
        del self._data[: offset - self._position]
        self._position = offset


@asynccontextmanager
async def open_direct(
    upstream: Upstream, file: OriginFile, size_bytes: int, start: int
) -> AsyncGenerator[DirectFile, None]:
    """The file from `start` on. Raises as `Upstream.stream`."""
    async with upstream.stream(file.url, file.headers, start) as (answer, pieces):
        if answer.size_bytes is not None and answer.size_bytes != size_bytes:
            raise ContentChangedError(f"the hub sends {answer.size_bytes:,} bytes of {size_bytes:,}")
        yield DirectFile(file.url, size_bytes, answer.start, pieces)
