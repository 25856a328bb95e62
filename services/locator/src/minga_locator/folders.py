"""One folder of the catalogue. Names are in byte order, so those of a folder in it are one range, which is skipped."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from minga_directory.directory import CatalogEntry, CatalogPage

MAX_READS = 32
"""Reads of the store for one page: a folder with more names than a read has costs one."""
NAMES_A_READ = 64
_LAST = "\U0010ffff"
"""In byte order no character follows it."""


class FolderPage(NamedTuple):
    """A part of what is directly in a folder."""

    files: list[CatalogEntry]
    folders: list[str]
    """The beginnings of names, each with a slash at its end."""
    next_after: str
    """For the next page; empty at the end."""


async def list_folder(
    names_after: Callable[[str, int], Awaitable[CatalogPage]], prefix: str, after: str, limit: int
) -> FolderPage:
    """What stands directly behind `prefix`, in byte order, at most `limit` of it and of what MAX_READS reads find.

    names_after: reads names of that prefix behind a text. after: a file, or a folder, which ends with a slash.
    """
    files: list[CatalogEntry] = []
    folders: list[str] = [after] if after.endswith("/") else []
    known, behind = len(folders), _behind(after)
    for _ in range(MAX_READS):
        page = await names_after(behind, NAMES_A_READ)
        for entry in page.entries:
            if len(files) + len(folders) - known == limit:
                return FolderPage(files, folders[known:], after)
            head, slash, _rest = entry.name[len(prefix) :].partition("/")
            after = prefix + head + slash
            if not slash:
                files.append(entry)
            elif folders[-1:] != [after]:
                folders.append(after)
        if not page.next_after:
            return FolderPage(files, folders[known:], "")
        # Python compares texts in the byte order of UTF-8. A name may begin with all of `_behind`, and more.
        behind = max(_behind(after), page.next_after)
    return FolderPage(files, folders[known:], after if _behind(after) == behind else page.next_after)


def _behind(after: str) -> str:
    return after + _LAST if after.endswith("/") else after
