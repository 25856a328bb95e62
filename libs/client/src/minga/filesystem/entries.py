"""Names of the catalogue as fsspec's descriptions of files and folders."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from minga.catalogue import FileStat
from minga_core.ids import ContentId
from minga_engine.wire.folders import SubFolder
from minga_engine.wire.locator_answers import ListedFile

Info = dict[str, Any]
"""What fsspec calls so: name, size and type; of a file also content_id, and mtime: when the content got this name."""


def folder_info(path: str) -> Info:
    """A folder."""
    return {"name": path, "size": 0, "type": "directory"}


def _file_info(path: str, size_bytes: int, content_id: ContentId, published_ns: int) -> Info:
    return {
        "name": path,
        "size": size_bytes,
        "type": "file",
        "content_id": str(content_id),
        "mtime": published_ns / 1e9,
    }


def stat_info(path: str, found: FileStat) -> Info:
    """A file that was looked up by that path, which may name a version."""
    return _file_info(path, found.size_bytes, found.content_id, found.published_ns)


def origin_info(path: str, size_bytes: int, content_id: ContentId) -> Info:
    """A file of an origin, which says nothing of when it changed."""
    return {"name": path, "size": size_bytes, "type": "file", "content_id": str(content_id)}


def entry_info(entry: ListedFile | SubFolder) -> Info:
    """What a listing has."""
    if isinstance(entry, SubFolder):
        return folder_info(entry.name.removesuffix("/"))
    return _file_info(entry.name, entry.size_bytes, entry.content_id, entry.published_ns)


async def tree(files: AsyncIterator[ListedFile], base: str, max_depth: int | None) -> AsyncGenerator[Info, None]:
    """The files below `base`, and the folders they are in, down to a depth; a folder before what is in it."""
    last: list[str] = []
    async for file in files:
        *folders, _ = file.name[len(base) :].split("/")
        for depth in range(1, min(len(folders), max_depth or len(folders)) + 1):
            if folders[:depth] != last[:depth]:
                yield folder_info(base + "/".join(folders[:depth]))
        last = folders
        if max_depth is None or len(folders) < max_depth:
            yield entry_info(file)
