"""From an origin's bytes to the chunks of a part."""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from minga_core.errors import NoSpaceError, UnavailableError
from minga_core.ids import digest
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_engine.parts.provisional import ProvisionalPart

SPOOL_BYTES = 1024 * 1024


async def fill(part: ProvisionalPart, body: AsyncIterator[bytes], first: int, has: Callable[[int], bool]) -> None:
    """Write the chunks from `first` on as their bytes come, each digest before its chunk; up to one that `has` denies.

    Raises ContentChangedError for bytes that are not those of a digest that is known, UnavailableError when they end
    early, NoSpaceError, StorageError.
    """
    index = first
    async with aclosing(_chunks(part, body, first)) as chunks:
        async for chunk in chunks:
            part.add_digests(index, await asyncio.to_thread(digest, chunk))
            await part.write_chunk(index, chunk)
            index += 1
            if index < part.manifest.geometry.chunk_count and not has(index):
                return


async def _chunks(part: ProvisionalPart, body: AsyncIterator[bytes], first: int) -> AsyncGenerator[bytearray, None]:
    """The bytes in chunks, from `first` on. Raises UnavailableError when they end early, or go on behind the end."""
    geometry, index, chunk = part.manifest.geometry, first, bytearray()
    rest = memoryview(b"")
    async for piece in body:
        rest = memoryview(piece)
        while rest and index < geometry.chunk_count:
            taken = rest[: geometry.length(index) - len(chunk)]
            chunk += taken
            rest = rest[len(taken) :]
            if len(chunk) == geometry.length(index):
                yield chunk
                index, chunk = index + 1, bytearray()
        if rest:
            break
    if rest or index < geometry.chunk_count:
        raise UnavailableError(f"{part.target.name} has another size than its origin said")


@asynccontextmanager
async def spooled(
    body: AsyncIterator[bytes], folder: Path, free_bytes: int, pool: DiskPool
) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    """All of it in a temporary file: its size, and its bytes once more. For what has no size that is known before.

    Raises NoSpaceError, StorageError.
    """
    with storage_errors("cannot keep what comes"):
        await pool.run(_make, folder)
        descriptor = await pool.acquire(_nameless, folder, undo=os.close)
    try:
        size_bytes = 0
        async for piece in body:
            size_bytes += len(piece)
            if size_bytes > free_bytes:
                raise NoSpaceError("what comes from the origin does not fit here")
            with storage_errors("cannot keep what comes"):
                await pool.run(_write, descriptor, piece)
        yield size_bytes, _pieces(descriptor, size_bytes, pool)
    finally:
        os.close(descriptor)


async def _pieces(descriptor: int, size_bytes: int, pool: DiskPool) -> AsyncIterator[bytes]:
    for start in range(0, size_bytes, SPOOL_BYTES):
        with storage_errors("cannot read what came"):
            yield await pool.run(os.pread, descriptor, min(SPOOL_BYTES, size_bytes - start), start)


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _nameless(folder: Path) -> int:
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        return os.dup(file.fileno())


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
