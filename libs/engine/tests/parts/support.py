"""Contents without the code under test, parts filled with them, and waiting."""

import asyncio
import random
from collections.abc import Callable

import pytest

from minga_core.chunks import Geometry
from minga_core.ids import digest
from minga_core.manifest import Manifest
from minga_engine.parts.part import Part

LIMIT_SECONDS = 20.0


async def eventually(holds: Callable[[], object], what: str) -> None:
    """Returns once `holds` is true; fails the test after a while."""
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not holds():  # noqa: ASYNC110 - the condition belongs to others
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within {LIMIT_SECONDS} s: {what}")


def noise(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes no two chunks of which are alike."""
    return random.Random(seed).randbytes(size_bytes)


def manifest_of(data: bytes) -> Manifest:
    """The manifest of those bytes, computed without the code under test."""
    step = Geometry(len(data)).chunk_size_bytes
    digests = b"".join(digest(data[start : start + step]) for start in range(0, len(data), step))
    return Manifest.from_digests(len(data), digests)


def chunk_of(data: bytes, index: int) -> bytes:
    """The bytes of one chunk."""
    geometry = Geometry(len(data))
    return data[geometry.offset(index) : geometry.offset(index) + geometry.length(index)]


async def fill(part: Part, data: bytes, indexes: list[int] | None = None) -> None:
    """Writes chunks of `data`: all of them unless given."""
    for index in range(part.manifest.geometry.chunk_count) if indexes is None else indexes:
        await part.write_chunk(index, chunk_of(data, index))
