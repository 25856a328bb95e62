"""From a file to its manifest. BLAKE3 releases the GIL, so threads hash at once, large files in ranges."""

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from blake3 import blake3

from minga_core.chunks import Geometry
from minga_core.errors import ChunkCorruptError, ContentChangedError
from minga_core.manifest import Manifest
from minga_engine.parts.disk import DiskPool, SharedDescriptor, storage_errors
from minga_engine.parts.files import Fingerprint

PIECE_BYTES = 128 * 1024
"""Bytes read and hashed at a time: each hashing thread's only buffer, which stays in the processor's cache."""
RANGE_BYTES = 64 * 1024 * 1024
"""Bytes hashed in one job; larger files are split, so that several threads work on one, each for a short time."""
MAX_OWN_THREADS = 4

_buffers = threading.local()


def hash_descriptor(descriptor: int, what: str) -> tuple[Manifest, Fingerprint]:
    """The manifest of an open file, and the fingerprint that it belongs to. Blocking.

    Raises ContentChangedError when the file changed meanwhile, OSError when it cannot be read.
    """
    fingerprint = Fingerprint.of(os.fstat(descriptor))
    geometry = Geometry(fingerprint.size_bytes)
    digests = hash_range(descriptor, fingerprint, 0, geometry.chunk_count, what)
    return Manifest.from_digests(fingerprint.size_bytes, digests), fingerprint


async def hash_large(descriptor: SharedDescriptor, pool: DiskPool, what: str) -> tuple[Manifest, Fingerprint]:
    """As `hash_descriptor`, by all threads of the pool at once. Cancelling it takes no longer than a range."""
    with descriptor.used() as number:
        fingerprint = Fingerprint.of(await pool.run(os.fstat, number))
        geometry = Geometry(fingerprint.size_bytes)
        step = max(1, RANGE_BYTES // geometry.chunk_size_bytes)
        digests: dict[int, bytes] = {}
        starts = iter(range(0, geometry.chunk_count, step))

        async def work() -> None:
            for start in starts:
                end = min(start + step, geometry.chunk_count)
                digests[start] = await pool.run(hash_range, number, fingerprint, start, end, what)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(pool.threads):
                    group.create_task(work(), name="hash-range")
        except ExceptionGroup as failures:
            # Every worker fails for the same reason: the file's.
            raise failures.exceptions[0] from failures
    whole = b"".join(digests[start] for start in sorted(digests))
    return Manifest.from_digests(fingerprint.size_bytes, whole), fingerprint


def hash_range(descriptor: int, fingerprint: Fingerprint, start: int, end: int, what: str) -> bytes:
    """Digests of the chunks start to end - 1. Blocking.

    Raises ContentChangedError when the file has another fingerprint, OSError when it cannot be read.
    """
    geometry = Geometry(fingerprint.size_bytes)
    digests = bytearray()
    for index in range(start, end):
        digests += _hash_chunk(descriptor, geometry.offset(index), geometry.length(index), what)
    if Fingerprint.of(os.fstat(descriptor)) != fingerprint:
        raise ContentChangedError(f"{what} changed while it was hashed")
    return bytes(digests)


async def find_wrong_chunks(
    descriptor: SharedDescriptor, manifest: Manifest, chunks: Iterable[int], pool: DiskPool
) -> list[int]:
    """Those of the chunks whose bytes are not the manifest's, or cannot be read. Uses half of the pool's threads.

    It reads and hashes all of them: 0.15 s of processor time for each GiB (measured on two cores, data cached).
    """
    rest, step = iter(chunks), max(1, RANGE_BYTES // manifest.geometry.chunk_size_bytes)
    wrong: list[int] = []

    async def work(number: int) -> None:
        while some := list(islice(rest, step)):
            wrong.extend(await pool.run(_wrong_among, number, manifest, some))

    with descriptor.used() as number:
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, pool.threads // 2)):
                group.create_task(work(number), name="verify-chunks")
    return sorted(wrong)


def _wrong_among(descriptor: int, manifest: Manifest, chunks: list[int]) -> list[int]:
    wrong: list[int] = []
    for index in chunks:
        offset, length = manifest.geometry.offset(index), manifest.geometry.length(index)
        try:
            same = _hash_chunk(descriptor, offset, length, "the part") == manifest.chunk_digest(index)
        except (ContentChangedError, OSError):
            same = False
        if not same:
            wrong.append(index)
    return wrong


def verify_chunks(descriptor: int, manifest: Manifest, chunks: Iterable[int], what: str, *, cached: bool) -> None:
    """Compare chunks of an open file with their digests. Blocking.

    cached: whether somebody will read them soon; else the page cache has the same after as before, and nothing is read
    ahead through this descriptor any more. Raises ChunkCorruptError for the first chunk that is wrong,
    ContentChangedError when the file is shorter, OSError.
    """
    if not cached:
        # What is read ahead would look as if it had been in the cache.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    read = _read if cached else _read_uncached
    for index in chunks:
        offset, length = manifest.geometry.offset(index), manifest.geometry.length(index)
        if _hash_chunk(descriptor, offset, length, what, read) != manifest.chunk_digest(index):
            raise ChunkCorruptError(f"chunk {index} of {what} is not what was hashed")


def _read(descriptor: int, buffer: memoryview, offset: int) -> int:
    return os.preadv(descriptor, [buffer], offset)


def _read_uncached(descriptor: int, buffer: memoryview, offset: int) -> int:
    """As `_read`; what was not in the page cache is not there afterwards: a reader of everything must not evict what
    others use."""
    try:
        return os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        count = os.preadv(descriptor, [buffer], offset)
        os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_DONTNEED)
        return count
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        # A file system that does not say what is cached: nothing is dropped that others may use.
        return os.preadv(descriptor, [buffer], offset)


def _hash_chunk(
    descriptor: int, offset: int, length: int, what: str, read: Callable[[int, memoryview, int], int] = _read
) -> bytes:
    hasher, buffer = blake3(), _buffer()
    end = offset + length
    while offset < end:
        count = read(descriptor, buffer[: min(PIECE_BYTES, end - offset)], offset)
        if count == 0:
            raise ContentChangedError(f"{what} became shorter while it was hashed")
        hasher.update(buffer[:count])
        offset += count
    return hasher.digest()


def _buffer() -> memoryview:
    """This thread's buffer."""
    buffer: memoryview | None = getattr(_buffers, "view", None)
    if buffer is None:
        buffer = _buffers.view = memoryview(bytearray(PIECE_BYTES))
    return buffer


def hash_path(path: Path) -> Manifest:
    """The manifest of a file anywhere, symbolic links followed. Blocking.

    Raises ContentChangedError, StorageError when it cannot be read or is not a regular file.
    """
    with storage_errors(f"cannot read {path}"):
        descriptor = _open_anywhere(path)
        try:
            return hash_descriptor(descriptor, str(path))[0]
        finally:
            os.close(descriptor)


def _open_anywhere(path: Path) -> int:
    # Not blocking: opening a pipe would wait for its writer for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


async def hash_file(path: Path) -> Manifest:
    """As `hash_path`, in threads of its own: several at once on a large file. Cancelling it is quick."""
    pool = DiskPool(min(MAX_OWN_THREADS, os.cpu_count() or 1), "hash")
    try:
        with storage_errors(f"cannot read {path}"):
            number = await pool.acquire(_open_anywhere, path, undo=os.close)
            descriptor = SharedDescriptor(number)
            try:
                manifest, _ = await hash_large(descriptor, pool, str(path))
            finally:
                descriptor.close()
    finally:
        pool.close()
    return manifest
