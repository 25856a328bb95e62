"""Files of the network as Python's own file objects, for programs without asyncio."""

import io
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from minga.reading import AsyncFile, used
from minga.writing import Draft

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

T = TypeVar("T")

BUFFER_BYTES = 256 * 1024
"""Read at once by small reads: the smallest chunk, which is verified as a whole anyway."""


class Loop(Protocol):
    """The client's loop, from another thread. Raises ValueError once the client is closed."""

    def wait(self, work: Coroutine[Any, Any, T], /) -> T:
        """Run it; its result."""
        ...

    def begin(self, work: Coroutine[Any, Any, object], /) -> None:
        """Run it without waiting: from finalisers, which may run in the loop's own thread."""
        ...


class RawFile(io.RawIOBase):
    """Reads a file of the network; `open` puts a buffer before it."""

    def __init__(self, file: AsyncFile, loop: Loop, name: str) -> None:
        self._file = file
        self._loop = loop
        self.name = name
        self.mode = "rb"

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """See AsyncFile."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """See AsyncFile."""
        return self._file.tell()

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read what is there first."""
        view, offset = memoryview(buffer).cast("B"), self._file.tell()
        # In this thread: memory that is not the caller's any more must not be written.
        count = used(
            lambda: self._loop.wait(self._file.place_at(offset, len(view))),
            lambda place: place.read_into(view, offset),
        )
        self._file.seek(count or 0, io.SEEK_CUR)
        return count or 0

    def readall(self) -> bytes:
        """Read all the rest."""
        return self._loop.wait(self._file.read())

    def close(self) -> None:
        """Stop fetching for this file."""
        if not self.closed:
            super().close()
            if not self._file.closed:
                self._loop.begin(self._file.aclose())


class WritableFile(io.BufferedIOBase):
    """Writes a file of the network, which `close` publishes whole.

    An error inside its `with` block discards it, and so does leaving it unclosed. Seekable, and readable again, as
    writers of archives need. Raises OSError of the temporary file; `close` raises what `Client.put` raises.
    """

    def __init__(self, draft: Draft, loop: Loop, name: str) -> None:
        self._draft = draft
        self._loop = loop
        self._file = draft.file
        self.name = name
        self.mode = "wb"

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of it."""
        return self._file.write(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position; the new one."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def truncate(self, size: int | None = None, /) -> int:
        """Cut it to so many bytes, or at the position."""
        return self._file.truncate(size)

    def close(self) -> None:
        """Publish what was written. Closing it again does nothing."""
        if not self.closed:
            super().close()
            self._loop.wait(self._draft.publish())

    def discard(self) -> None:
        """Forget what was written, and publish nothing."""
        super().close()
        self._draft.discard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        self.discard()
