"""Reads a file of an origin, from wherever it comes; its end only once all of it is verified."""

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

from minga_core.chunks import Geometry
from minga_core.errors import NoSourcesError
from minga_core.ids import ContentId
from minga_engine.progress import Progress
from minga_engine.transfer.locating import Located, VersionGoneError
from minga_engine.transfer.stream import Reader
from minga_engine.wire.digests import HEAD_BYTES
from minga_peer.origins.arrival import Arrival
from minga_peer.origins.incoming import Incoming, end
from minga_peer.origins.source import Source


class Room(Protocol):
    """Where files arrive."""

    def arriving(self, *, peers: bool) -> AbstractAsyncContextManager[Arrival]:
        """The file on its way, begun."""
        ...

    def reading(self, located: Located) -> AbstractAsyncContextManager[Reader]:
        """A plain reader of it."""
        ...


class OriginReader:
    """Implements Reader. The last chunk is read only once the whole digest holds, so that no client has a whole file
    that is wrong."""

    def __init__(self, room: Room, stack: AsyncExitStack) -> None:
        self._room = room
        self._stack = stack
        self._has_read = False

    async def begin(self, *, peers: bool) -> None:
        """Return when its size is known. Raises as `Origins.open`."""
        self._arrival = await self._stack.enter_async_context(self._room.arriving(peers=peers))
        located = await self._arrival.begun()
        # Who has read its last chunk finds it here from then on, although its name may follow a moment later.
        self._was_here = self._arrival.is_verified
        self._reader = await self._stack.enter_async_context(self._room.reading(located))
        geometry = Geometry(located.size_bytes)
        self._tail = geometry.offset(geometry.chunk_count - 1) if geometry.chunk_count else 0
        if not located.size_bytes:
            await self._arrival.until_verified()

    @property
    def content_id(self) -> ContentId:
        """What is read; while it comes from its origin, an id that stands for it."""
        return self._reader.content_id

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return self._reader.size_bytes

    @property
    def local(self) -> bool:
        """Whether all of it was on this machine when it was opened."""
        return self.source is Source.LOCAL

    @property
    def source(self) -> Source:
        """Where it comes from."""
        return Source.LOCAL if self._was_here else self._arrival.source

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._arrival.progress()

    async def read(self, offset: int, length: int) -> bytes:
        """As `Reader.read`. Raises what ended the file's arrival too: see `Arrival.whole`."""
        try:
            data = await self._read(offset, length)
        except (NoSourcesError, VersionGoneError):
            if self._has_read or self.source is not Source.PEERS:
                raise
            # Nobody has seen a byte of it yet: the origin's are as good.
            await self.begin(peers=False)
            data = await self._read(offset, length)
        self._has_read = True
        return data

    async def _read(self, offset: int, length: int) -> bytes:
        if offset < self._tail:
            length = min(length, self._tail - offset)
        else:
            await self._arrival.until_verified()
        transfer = self._arrival.transfer
        if transfer is not None and offset < min(HEAD_BYTES, self._tail):
            return await self._read_head(transfer.incoming, offset, length)
        return await self._reader.read(offset, length)

    async def _read_head(self, incoming: Incoming, offset: int, length: int) -> bytes:
        """Bytes of the file's beginning, which comes ahead of its first chunk."""
        reading = asyncio.create_task(self._reader.read(offset, length), name="origin-read")
        head = asyncio.create_task(incoming.headed.wait(), name="origin-head")
        try:
            await asyncio.wait((reading, head), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else incoming.head[offset : offset + length]
        finally:
            await end(reading)
            await end(head)

    async def whole(self) -> Located:
        """The file, once it is in place. Raises what ended its arrival."""
        try:
            return await self._arrival.whole()
        except (NoSourcesError, VersionGoneError):
            if self._has_read or self.source is not Source.PEERS:
                raise
            await self.begin(peers=False)
            return await self._arrival.whole()
