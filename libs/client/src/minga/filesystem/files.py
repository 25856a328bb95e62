"""Open files of `minga://`, as fsspec's own: for programs with and without asyncio."""

import asyncio
import os
from types import TracebackType
from typing import Any, Protocol

from fsspec.asyn import AbstractAsyncStreamedFile, sync  # type: ignore[import-untyped]
from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

from minga.filesystem.clients import begin, keep_of_parent
from minga.filesystem.os_errors import os_errors
from minga.reading import AsyncFile, used
from minga.writing import AsyncWriter

READ_AHEAD_BYTES = 256 * 1024
"""The smallest chunk, which is verified as a whole anyway: more would fetch what readers of columns skip."""
WRITE_BYTES = 4 * 1024 * 1024
"""Kept in memory before it goes to the temporary file."""


class Opener(Protocol):
    """What files are opened by: the file system, whose event loop runs in a thread of its own."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of its clients."""
        ...

    async def open_content(self, path: str) -> AsyncFile:
        """The file of a path. Raises OSError."""
        ...

    async def create(self, path: str, mode: str) -> AsyncWriter:
        """A file of that name, once it is closed. Raises OSError."""
        ...


class ReadableFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is open for reading, with fsspec's caches. It is one content, in another process too: it may be
    pickled, and a forked child reads on by itself. Raises OSError."""

    DEFAULT_BLOCK_SIZE = READ_AHEAD_BYTES

    def __init__(self, fs: Opener, path: str, **options: Any) -> None:
        self._open(fs, path)
        super().__init__(fs, path, "rb", **options | {"size": self._file.size_bytes})

    def _open(self, fs: Opener, path: str) -> None:
        self._process_id, self._loop = os.getpid(), fs.loop
        self._file: AsyncFile = sync(fs.loop, fs.open_content, path)

    def _fetch_range(self, start: int, end: int) -> bytes:
        if self._process_id != os.getpid():
            keep_of_parent(self._file)
            self._open(self.fs, self._pinned())
        pieces: list[bytes] = []
        with os_errors(self.path):
            while start < end and (piece := self._read_some(start, end - start)):
                pieces.append(piece)
                start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_some(self, start: int, length: int) -> bytes | None:
        return used(
            lambda: sync(self._loop, self._file.place_at, start, length), lambda place: place.read(start, length)
        )

    def read(self, length: int | None = -1) -> bytes:
        """See fsspec. What is longer than what is read ahead is not copied through its caches."""
        rest = max(self.size - self.loc, 0)
        wanted = rest if length is None or length < 0 else min(length, rest)
        if wanted <= self.blocksize or self.closed:
            small: bytes = super().read(length)
            return small
        data = self._fetch_range(self.loc, self.loc + wanted)
        self.loc += len(data)
        return data

    def _pinned(self) -> str:
        """The path of this very content, whatever its name stands for meanwhile."""
        path: str = self.fs.version_path(self.path, self._file.content_id)
        return path

    def __reduce__(self) -> Any:
        make, (fs, _, *rest) = super().__reduce__()
        return make, (fs, self._pinned(), *rest)

    def close(self) -> None:
        """Stop fetching. Closing it again does nothing."""
        if not self.closed:
            super().close()
            if self._process_id == os.getpid():
                begin(self._loop, self._file.aclose())


class WritableFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is open for writing: uploaded whole by `close`, or at the end of fsspec's transaction.

    An error in its own `with` block discards it, and so does leaving it unclosed. Raises OSError.
    """

    DEFAULT_BLOCK_SIZE = WRITE_BYTES

    def __init__(self, fs: Opener, path: str, mode: str, **options: Any) -> None:
        self._writer: AsyncWriter = sync(fs.loop, fs.create, path, mode)
        super().__init__(fs, path, mode, **options)

    def _upload_chunk(self, final: bool = False) -> bool:
        with os_errors(self.path):
            sync(self.fs.loop, self._writer.write, self.buffer.getvalue())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Upload what was written."""
        with os_errors(self.path):
            sync(self.fs.loop, self._writer.aclose)

    def discard(self) -> None:
        """Forget what was written, and publish nothing."""
        self.closed = True
        self._writer.discard()

    def close(self) -> None:
        """Upload what was written. Closing it again does nothing, also after an error."""
        try:
            super().close()
        finally:
            self.closed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        if not self.closed:
            self.discard()


class AsyncReadableFile(AbstractAsyncStreamedFile):  # type: ignore[misc]
    """A file that is open for reading in an event loop: `await` its `read` and `close`. Raises OSError."""

    def __init__(self, fs: Opener, path: str, file: AsyncFile) -> None:
        self._file = file
        super().__init__(fs, path, "rb", cache_type="none", size=file.size_bytes)

    async def _fetch_range(self, start: int, end: int) -> bytes:
        with os_errors(self.path):
            return await self._file.read_at(start, max(end - start, 0))

    async def close(self) -> None:
        """Stop fetching. Closing it again does nothing."""
        await super().close()
        await self._file.aclose()

    def __del__(self) -> None:
        """The client closes what is still open."""


class AsyncWritableFile(AbstractAsyncStreamedFile):  # type: ignore[misc]
    """As WritableFile, for an event loop: `await` its `write` and `close`."""

    def __init__(self, fs: Opener, path: str, mode: str, writer: AsyncWriter) -> None:
        self._writer = writer
        super().__init__(fs, path, mode, WRITE_BYTES)

    async def _upload_chunk(self, final: bool = False) -> bool:
        with os_errors(self.path):
            await self._writer.write(self.buffer.getvalue())
        return True

    async def close(self) -> None:
        """Upload what was written. Closing it again does nothing."""
        await super().close()
        with os_errors(self.path):
            await self._writer.aclose()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        else:
            self.closed = True
            self._writer.discard()

    def __del__(self) -> None:
        """What was not closed is not published."""
