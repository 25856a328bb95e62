"""An open file of the network: a position in a content, and where its bytes come from."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

from minga_core.errors import ContentChangedError, InvalidArgumentError, NoSourcesError
from minga_core.ids import ContentId

if TYPE_CHECKING:
    from minga_engine.parts.places import Place

T = TypeVar("T")

STEP_BYTES = 1024 * 1024
"""Bytes that are asked for at once when all of the rest is wanted."""
CHANGED_TRIES = 3
"""How often bytes are looked for that were in a file which a program was just changing."""
RETRY_SECONDS = 1.0
"""Pause before a source is asked again that has found nobody who has the bytes."""


class Source(Protocol):
    """Verified bytes of one content, at any position."""

    content_id: ContentId
    size_bytes: int

    async def place(self, offset: int, length: int) -> "Place":
        """Where bytes are on this machine: at least the first of `length` from `offset` on, which is before the end.
        Waits until it has arrived.

        Raises NoSourcesError when nobody who has it was usable for a while: the wait that it was opened with, or less.
        """
        ...

    async def aclose(self) -> None:
        """Stop whatever arrives for this alone."""
        ...


class AsyncFile:
    """A file of the network that is open for reading: bytes in order of a position, fetched as they are read.

    Every byte is verified. What is read belongs to one content, whatever happens to the name meanwhile. An async
    context manager, and an async iterator of pieces. Reads raise NoSourcesError when no peer that has the bytes was
    reachable for the wait (None: for ever), NoSpaceError, StorageError, DaemonUnavailableError; all are safe to retry.
    """

    def __init__(
        self, source: Source, wait: timedelta | None, on_close: Callable[["AsyncFile"], None] = lambda _: None
    ) -> None:
        self._source = source
        self._wait_seconds = None if wait is None else wait.total_seconds()
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
        wanted = min(size_bytes, max(self.size_bytes - self._position, 0))
        data = await self._read(self._position, wanted) if wanted else b""
        self._position += len(data)
        return data

    async def place_at(self, offset: int, size_bytes: int) -> "Place | None":
        """Where on this machine the first of those bytes are, for a program that reads there itself, at once (`used`);
        None at the end."""
        self._check()
        wanted = min(size_bytes, max(self.size_bytes - offset, 0))
        return await self._place(offset, wanted) if wanted else None

    async def read_at(self, offset: int, size_bytes: int = -1) -> bytes:
        """As `read`, from `offset` on and without moving the position: any number at once, of one file."""
        self._check()
        if offset < 0:
            raise InvalidArgumentError(f"cannot read from {offset} on")
        rest = max(self.size_bytes - offset, 0)
        wanted = rest if size_bytes < 0 else min(size_bytes, rest)
        return await _read_exactly(self._read, offset, wanted)

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

    async def _read(self, offset: int, length: int) -> bytes:
        """At least one byte from an offset on, which is before the end."""
        tries_left = CHANGED_TRIES
        while True:
            place = await self._place(offset, length)
            try:
                return await asyncio.to_thread(place.read, offset, length)
            except ContentChangedError:
                tries_left -= 1
                if not tries_left:
                    raise

    async def _place(self, offset: int, length: int) -> "Place":
        """As `Source.place`, which may give up before the wait is over."""
        began = time.monotonic()
        while True:
            try:
                return await self._source.place(offset, length)
            except NoSourcesError:
                left_seconds = RETRY_SECONDS
                if self._wait_seconds is not None:
                    left_seconds = began + self._wait_seconds - time.monotonic()
                if left_seconds <= 0:
                    raise
            await asyncio.sleep(min(left_seconds, RETRY_SECONDS))

    def _check(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed file")


def used(find: Callable[[], "Place | None"], use: Callable[["Place"], T]) -> T | None:
    """Call `use` with a place that `find` gives, and again with another if a program was changing the file. None at the
    end. Raises ContentChangedError when it goes on changing, and what both raise."""
    tries_left = CHANGED_TRIES
    while (place := find()) is not None:
        try:
            return use(place)
        except ContentChangedError:
            tries_left -= 1
            if not tries_left:
                raise
    return None


async def _read_exactly(read: Callable[[int, int], Awaitable[bytes]], offset: int, length: int) -> bytes:
    first = await read(offset, length) if length else b""
    if len(first) == length:
        return first
    pieces, held_bytes = [first], len(first)
    while held_bytes < length and (piece := await read(offset + held_bytes, min(length - held_bytes, STEP_BYTES))):
        pieces.append(piece)
        held_bytes += len(piece)
    return b"".join(pieces)
