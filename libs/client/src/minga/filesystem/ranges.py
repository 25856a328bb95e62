"""Ranges of many files at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from minga.filesystem.os_errors import os_errors
from minga.reading import AsyncFile

Range = tuple[str, int | None, int | None]
"""Path, start and end, as those of a slice."""


async def read_ranges(
    open_content: Callable[[str], Awaitable[AsyncFile]], ranges: Sequence[Range], at_once: int
) -> list[bytes | BaseException]:
    """What each range has, or why it cannot be read. Each file is opened once; so many files, and ranges, at once."""
    places: dict[str, list[int]] = {}
    for place, (path, _, _) in enumerate(ranges):
        places.setdefault(path, []).append(place)
    file_slots, read_slots = asyncio.Semaphore(at_once), asyncio.Semaphore(at_once)

    async def read(file: AsyncFile, path: str, start: int | None, end: int | None) -> bytes:
        begin, stop, _ = slice(start, end).indices(file.size_bytes)
        with os_errors(path):
            async with read_slots:
                return await file.read_at(begin, max(stop - begin, 0))

    async def read_file(path: str) -> list[bytes | BaseException]:
        async with file_slots, await open_content(path) as file:
            reads = [read(file, *ranges[place]) for place in places[path]]
            return await asyncio.gather(*reads, return_exceptions=True)

    answers = await asyncio.gather(*map(read_file, places), return_exceptions=True)
    results: list[bytes | BaseException] = [b""] * len(ranges)
    for wanted, answer in zip(places.values(), answers, strict=True):
        found = [answer] * len(wanted) if isinstance(answer, BaseException) else answer
        for place, result in zip(wanted, found, strict=True):
            results[place] = result
    return results
