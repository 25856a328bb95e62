"""Small contents between peers, in groups: what answers a FilesRequest (docs/http.md), as bytes and as it is read.

A group is its number of contents, then the place in the request and the size of each, all as unsigned 32-bit
big-endian numbers, then their bytes one after the other. A group of none is the last.
"""

import asyncio
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import cast

from minga_core.chunks import MIN_CHUNK_BYTES
from minga_core.errors import InvalidArgumentError, MingaError, PeerUnavailableError
from minga_engine.wire.http_format import END_OF_HEAD, MAX_HEAD_BYTES, decode_stream_head
from minga_engine.wire.memory import HUGE_PAGES_FROM_BYTES, fresh
from minga_engine.wire.messages import MAX_SMALL_FILES

Group = list[tuple[int, bytes | memoryview]]
"""Place in the request, and bytes, of each content."""
MAX_GROUP_BYTES = 512 * 1024
"""Of the contents of a group together."""
LAST_GROUP = bytes(4)
WAITING_GROUPS = 4
"""More that wait to be taken stop the sender."""
WAKE_BYTES = 256 * 1024
"""The kernel wakes the reader once so much of a group is there, or all that is left of it."""

_COUNT = struct.Struct(">I")
_ENTRY_BYTES = 2 * _COUNT.size
_MAX_LACKING_BYTES = MAX_HEAD_BYTES + _COUNT.size + MAX_SMALL_FILES * _ENTRY_BYTES + MAX_GROUP_BYTES
"""Of a head or a group, whatever has arrived."""
_FIRST_BYTES = 2 * _MAX_LACKING_BYTES
_MORE_BYTES = HUGE_PAGES_FROM_BYTES
"""Groups stay where they were received, some of them in one piece of memory; what comes from each of many peers is
little."""


def encode_group(group: Sequence[tuple[int, bytes]]) -> bytes:
    """A group, of at most MAX_GROUP_BYTES."""
    numbers = [number for place, data in group for number in (place, len(data))]
    return b"".join((struct.pack(f">{1 + len(numbers)}I", len(group), *numbers), *(data for _, data in group)))


class GroupReader(asyncio.BufferedProtocol):
    """Reads what answers one FilesRequest, and checks that it is nothing but what was asked for.

    Groups wait until they are taken; a sender that is ahead is held up.
    """

    def __init__(self, count: int) -> None:
        """count: contents that were asked for."""
        self._missing = set(range(count))
        self._memory = fresh(_FIRST_BYTES)
        self._start = self._filled = 0
        """Where in it begins what is not taken yet, and where it ends."""
        self._begun = self._ended = False
        self._arrived: asyncio.Queue[Group | MingaError | None] = asyncio.Queue()
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._wake_bytes = 1

    async def group(self) -> Group | None:
        """The next group, None after the last one. Raises what the peer answers instead, PeerUnavailableError when the
        connection breaks, InvalidArgumentError for what was not asked for."""
        arrived = await self._arrived.get()
        if self._transport is not None and self._arrived.qsize() == WAITING_GROUPS - 1:
            self._transport.resume_reading()
        if isinstance(arrived, MingaError):
            raise arrived
        return arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        # Not checked by its class: uvloop's transports are not asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("ssl_object") is None:
            self._socket = transport.get_extra_info("socket")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = self._socket = None
        self._end(PeerUnavailableError("the peer closed the connection before all small files came"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        return memoryview(self._memory)[self._filled :]

    def buffer_updated(self, count: int) -> None:
        """See asyncio.BufferedProtocol."""
        if self._ended:
            return
        self._filled += count
        try:
            self._read()
        except MingaError as error:
            self._end(error)

    def _read(self) -> None:
        """Take what is whole of what has arrived."""
        lacking = 1
        if not self._begun:
            self._read_head()
        while self._begun and not self._ended:
            end, lacking = self._end_of_group()
            if lacking:
                break
            self._take(end)
            self._start = end
        if len(self._memory) - self._filled < _MAX_LACKING_BYTES:
            self._begin_memory()
        self._wake_after(lacking)

    def _begin_memory(self) -> None:
        """Go on in fresh memory; groups keep the one before for as long as they are."""
        rest = bytes(memoryview(self._memory)[self._start : self._filled])
        self._memory, self._start, self._filled = fresh(_MORE_BYTES), 0, len(rest)
        self._memory[: len(rest)] = rest

    def _read_head(self) -> None:
        """Raises the peer's error."""
        end = self._memory.find(END_OF_HEAD, 0, min(self._filled, MAX_HEAD_BYTES))
        if end < 0:
            if self._filled >= MAX_HEAD_BYTES:
                raise InvalidArgumentError("the peer's response has no end")
            return
        if (error := decode_stream_head(bytes(self._memory[:end]))) is not None:
            raise error
        self._begun, self._start = True, end + len(END_OF_HEAD)

    def _end_of_group(self) -> tuple[int, int]:
        """Where the next group ends, and how many bytes of it have not come; of its beginning, while that is not whole.
        Raises InvalidArgumentError for one that is too large."""
        contents_at = self._start + _COUNT.size
        if self._filled < contents_at:
            return contents_at, contents_at - self._filled
        count = self._count()
        if count > len(self._missing):
            raise InvalidArgumentError(f"the peer sends {count:,} contents where {len(self._missing):,} are missing")
        contents_at += count * _ENTRY_BYTES
        if self._filled < contents_at:
            return contents_at, contents_at - self._filled
        sizes = self._entries(count)[1::2]
        if max(sizes, default=0) > MIN_CHUNK_BYTES or sum(sizes) > MAX_GROUP_BYTES:
            raise InvalidArgumentError("the peer sends contents that are not small")
        end = contents_at + sum(sizes)
        return end, max(0, end - self._filled)

    def _count(self) -> int:
        count: int = _COUNT.unpack_from(self._memory, self._start)[0]
        return count

    def _entries(self, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f">{2 * count}I", self._memory, self._start + _COUNT.size)

    def _take(self, end: int) -> None:
        count = self._count()
        if count == 0:
            self._end(None)
            return
        entries = self._entries(count)
        self._note(entries[::2])
        view, start = memoryview(self._memory)[:end].toreadonly(), self._start + _COUNT.size + count * _ENTRY_BYTES
        group: Group = []
        for place, size_bytes in zip(entries[::2], entries[1::2], strict=True):
            group.append((place, view[start : start + size_bytes]))
            start += size_bytes
        self._arrived.put_nowait(group)
        if self._transport is not None and self._arrived.qsize() == WAITING_GROUPS:
            self._transport.pause_reading()

    def _note(self, places: Iterable[int]) -> None:
        """Raises InvalidArgumentError for a content that was not asked for, or has come already."""
        for place in places:
            if place not in self._missing:
                raise InvalidArgumentError(f"content {place} was not asked for")
            self._missing.discard(place)

    def _wake_after(self, lacking: int) -> None:
        """Have the kernel wake us when a good piece of what is lacking of a group is there. Not with TLS, whose records
        lie between the socket and the group."""
        wanted = min(lacking, WAKE_BYTES)
        if self._socket is not None and wanted != self._wake_bytes and wanted > 0:
            self._wake_bytes = wanted
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)

    def _end(self, error: MingaError | None) -> None:
        """Nothing of what comes now counts."""
        if not self._ended:
            self._ended = True
            self._arrived.put_nowait(error)
            if self._transport is not None:
                self._transport.abort()
