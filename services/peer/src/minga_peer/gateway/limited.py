"""Reads that end: with bytes, or soon."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

from minga_core.errors import NoSourcesError
from minga_engine.transfer.stream import Reader
from minga_peer.origins.source import Source

FIRST_BYTES_SECONDS = 12.0
"""For opening a file, and again for its first bytes: above what it takes origins to go from a peer that does not answer
to the registry, and both together below the half minute after which containerd gives up."""
STALL_SECONDS = 20.0
"""In the middle of an answer, which is cut then: containerd never leaves a mirror that only hangs."""


class OpenFile(Reader, Protocol):
    """A file that is here, or on its way."""

    @property
    def source(self) -> Source:
        """Where it comes from."""
        ...


class LimitedFile:
    """A file whose reads end: with bytes, or soon. seconds: for each read; None: those of containerd, which differ for
    the first."""

    def __init__(self, file: OpenFile, seconds: float | None = None) -> None:
        self._file = file
        self._seconds = seconds
        self._limit_seconds = FIRST_BYTES_SECONDS if seconds is None else seconds
        self.content_id = file.content_id
        self.size_bytes = file.size_bytes
        self.local = file.local

    @property
    def source(self) -> Source:
        """Where it comes from."""
        return self._file.source

    async def read(self, offset: int, length: int) -> bytes:
        """As `Reader.read`. Raises NoSourcesError after the limit."""
        async with limit(self._limit_seconds):
            data = await self._file.read(offset, length)
        self._limit_seconds = STALL_SECONDS if self._seconds is None else self._seconds
        return data


def source_of(file: LimitedFile) -> str:
    """Where it comes from, as it is now."""
    return file.source


@asynccontextmanager
async def limit(seconds: float) -> AsyncGenerator[None, None]:
    """Raises NoSourcesError when the block takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise NoSourcesError(f"nothing came for {seconds:g} s") from None
