"""The part of the catalogue that a caller may read, as the pages of a list.

A folder that may be read is two ranges of the byte order: the name `data` alone, and all that begin with `data/`. Names
such as `data-secret` are between them. Only these ranges are read, and only their names are in page tokens, so that a
page says nothing of other names.
"""

from collections.abc import Sequence
from typing import NamedTuple

from minga_core.names import Name
from minga_directory.directory import CatalogEntry, CatalogPage, DirectoryReader
from minga_directory.search import page_matcher
from minga_runtime.trust.rights import Prefixes


class Range(NamedTuple):
    """Names that begin with `start`, or that name alone."""

    start: str
    alone: bool

    def is_over(self, after: str) -> bool:
        """Whether none of its names is behind `after`. Python compares texts in the byte order of UTF-8."""
        return self.start <= after and (self.alone or not after.startswith(self.start))


def readable_ranges(folders: Sequence[Name], prefix: str) -> list[Range]:
    """The readable names that begin with `prefix`: disjoint ranges in byte order."""
    found = set()
    for folder in folders:
        if any(folder.startswith(f"{other}/") for other in folders):
            continue
        below = f"{folder}/"
        if folder.startswith(prefix):
            found.add(Range(folder, True))
        if below.startswith(prefix):
            found.add(Range(below, False))
        elif prefix.startswith(below):
            found.add(Range(prefix, False))
    return sorted(found)


async def list_readable(
    reader: DirectoryReader, read: Prefixes, *, prefix: str, query: str, after: str, limit: int
) -> CatalogPage:
    """As `DirectoryReader.list_names`, of names that may be read alone."""
    if read.everything:
        return await reader.list_names(prefix=prefix, query=query, after=after, limit=limit)
    entries: list[CatalogEntry] = []
    ranges = [each for each in readable_ranges(read.folders, prefix) if not each.is_over(after)]
    for left, each in zip(range(len(ranges) - 1, -1, -1), ranges, strict=True):
        page = await _page(reader, each, query=query, after=after, limit=limit - len(entries))
        entries += page.entries
        if page.next_after:
            return CatalogPage(entries, page.next_after)
        if left and len(entries) == limit:
            return CatalogPage(entries, entries[-1].name)
    return CatalogPage(entries, "")


async def _page(reader: DirectoryReader, names: Range, *, query: str, after: str, limit: int) -> CatalogPage:
    if not names.alone:
        return await reader.list_names(prefix=names.start, query=query, after=after, limit=limit)
    if not page_matcher(query)([names.start.encode()], 1):
        return CatalogPage([], "")
    # Of all names that begin so it is the first.
    page = await reader.list_names(prefix=names.start, limit=1)
    return CatalogPage([entry for entry in page.entries if entry.name == names.start], "")
