"""An open file of the network: a position in a content, and where its bytes come from."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Protocol

from minga_core.errors import InvalidArgumentError
from minga_core.ids import ContentId

STEP_BYTES = 1024 * 1024
"""Bytes that are asked for at once when all of the rest is wanted."""


class Source(Protocol):
    """Verified bytes of one content, at any position."""

    content_id: ContentId
    size_bytes: int

    async def read(self, offset: int, length: int) -> bytes:
        """At least one byte from `offset` on and at most `length`; empty at the end. Waits until they have arrived."""
        ...

    async def aclose(self) -> None:
        """Stop whatever arrives for this alone."""
        ...


class AsyncFile:
    """A file of the network that is open for reading: bytes in order of a position, fetched as they are read.

    Every byte is verified. What is read belongs to one content, whatever happens to the name meanwhile. An async
    context manager, and an async iterator of pieces. Reads raise NoSourcesError when no peer that has the bytes was
    reachable for the wait, NoSpaceError, StorageError, DaemonUnavailableError; all are safe to retry.
    """

    def __init__(self, source: Source, on_close: Callable[["AsyncFile"], None] = lambda _: None) -> None:
        self._source = source
        self._position = 0
        self._closed = False
        self._on_close = on_close

    async def __aenter__(self) -> "AsyncFile":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read_some(STEP_BYTES):
            yield piece

    @property
    def content_id(self) -> ContentId:
        """What is read."""
        return self._source.content_id

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return self._source.size_bytes

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed

    async def read(self, size_bytes: int = -1) -> bytes:
        """Exactly so many bytes from the position on, fewer at the end only; negative: all the rest."""
        data = await self.read_at(self._position, size_bytes)
        self._position += len(data)
        return data

    async def read_some(self, size_bytes: int) -> bytes:
        """What is there first from the position on: at least one byte and at most so many; empty at the end."""
        self._check()
        data = await self._source.read(self._position, size_bytes) if size_bytes else b""
        self._position += len(data)
        return data

    async def read_at(self, offset: int, size_bytes: int = -1) -> bytes:
        """As `read`, from `offset` on and without moving the position: any number at once, of one file."""
        self._check()
        if offset < 0:
            raise InvalidArgumentError(f"cannot read from {offset} on")
        rest = max(self.size_bytes - offset, 0)
        wanted = rest if size_bytes < 0 else min(size_bytes, rest)
        return await _read_exactly(self._source.read, offset, wanted)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, from the start, from where it is or from the end; the new one. Fetches nothing."""
        self._check()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}
        if whence not in base or base[whence] + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        """The position in bytes from the start."""
        return self._position

    async def aclose(self) -> None:
        """Stop fetching for this file. Closing it again does nothing."""
        if not self._closed:
            self._closed = True
            self._on_close(self)
            await self._source.aclose()

    def _check(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed file")


async def _read_exactly(read: Callable[[int, int], Awaitable[bytes]], offset: int, length: int) -> bytes:
    first = await read(offset, length) if length else b""
    if len(first) == length:
        return first
    pieces, held_bytes = [first], len(first)
    while held_bytes < length and (piece := await read(offset + held_bytes, min(length - held_bytes, STEP_BYTES))):
        pieces.append(piece)
        held_bytes += len(piece)
    return b"".join(pieces)
