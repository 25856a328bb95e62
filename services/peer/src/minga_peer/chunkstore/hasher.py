"""From a file to its manifest. Blocking functions for a pool of threads; BLAKE3 releases the GIL."""

import asyncio
import os
from pathlib import Path

from blake3 import blake3

from minga_core.chunks import Geometry
from minga_core.errors import ContentChangedError
from minga_core.manifest import Manifest
from minga_peer.chunkstore.disk import told_as
from minga_peer.chunkstore.root import Stamp

PIECE_BYTES = 1024 * 1024
"""Read and hashed at a time: one buffer of this size for each file being hashed, whatever its chunk size."""


def hash_descriptor(descriptor: int, what: str) -> tuple[Manifest, Stamp]:
    """The manifest of an open file, and the stamp that it is good for.

    Raises ContentChangedError when the file changed meanwhile, OSError when it cannot be read.
    """
    before = Stamp.of(os.fstat(descriptor))
    geometry = Geometry(before.size_bytes)
    buffer = memoryview(bytearray(min(PIECE_BYTES, max(1, before.size_bytes))))
    digests = bytearray()
    for index in range(geometry.chunk_count):
        digests += _hash_chunk(descriptor, geometry.offset(index), geometry.length(index), buffer, what)
    if Stamp.of(os.fstat(descriptor)) != before:
        raise ContentChangedError(f"{what} changed while it was hashed")
    return Manifest.from_digests(before.size_bytes, bytes(digests)), before


def _hash_chunk(descriptor: int, offset: int, length: int, buffer: memoryview, what: str) -> bytes:
    hasher = blake3()
    end = offset + length
    while offset < end:
        count = os.preadv(descriptor, [buffer[: min(len(buffer), end - offset)]], offset)
        if count == 0:
            raise ContentChangedError(f"{what} became shorter while it was hashed")
        hasher.update(buffer[:count])
        offset += count
    return hasher.digest()


def hash_path(path: Path) -> Manifest:
    """The manifest of a file anywhere, symbolic links followed. Blocking.

    Raises ContentChangedError, StorageError when it cannot be read or is not a regular file.
    """
    with told_as(f"cannot read {path}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return hash_descriptor(descriptor, str(path))[0]
        finally:
            os.close(descriptor)


async def hash_file(path: Path) -> Manifest:
    """`hash_path` in a thread."""
    return await asyncio.to_thread(hash_path, path)
