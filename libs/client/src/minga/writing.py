"""A file of the network that is open for writing: kept in a temporary file until it is whole, then uploaded."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import TYPE_CHECKING

from minga_engine.parts.disk import storage_errors

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from minga_engine.progress import PutResult

Upload = Callable[[Path], Awaitable["PutResult"]]


class Draft:
    """A temporary file and where it goes. Blocking, but for `publish`. Raises StorageError."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        with storage_errors("cannot make a temporary file"):
            self.file = NamedTemporaryFile(prefix="minga-", suffix=".tmp")  # noqa: SIM115 - `discard` closes it

    async def publish(self) -> "PutResult":
        """Upload what was written. The file is gone then, whether that went well or not."""
        try:
            await asyncio.to_thread(self._flush)
            return await self._upload(Path(self.file.name))
        finally:
            self.discard()

    def _flush(self) -> None:
        with storage_errors("cannot write a temporary file"):
            self.file.flush()

    def discard(self) -> None:
        """Forget what was written. Doing it again does nothing."""
        self.file.close()


class AsyncWriter:
    """A file of the network that is open for writing. An async context manager.

    Nobody sees anything of it before `aclose`, or the end of the block, has uploaded it whole; an error in the block
    discards it. It takes its size in room in the temporary folder (TMPDIR).
    """

    def __init__(self, upload: Upload) -> None:
        self._draft = Draft(upload)
        self._ended = False
        self.result: PutResult | None = None
        """Of the upload, once it is closed."""

    async def __aenter__(self) -> "AsyncWriter":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.aclose()
        else:
            self.discard()

    async def write(self, data: "ReadableBuffer") -> int:
        """Append bytes; how many. Raises StorageError."""
        if self._ended:
            raise ValueError("I/O operation on closed file")
        return await asyncio.to_thread(self._write, data)

    def _write(self, data: "ReadableBuffer") -> int:
        with storage_errors("cannot write a temporary file"):
            return self._draft.file.write(data)

    async def aclose(self) -> None:
        """Upload what was written. Raises what `AsyncClient.put` raises; closing it again does nothing."""
        if not self._ended:
            self._ended = True
            self.result = await self._draft.publish()

    def discard(self) -> None:
        """Forget what was written, and publish nothing."""
        self._ended = True
        self._draft.discard()
