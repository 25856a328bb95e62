"""The catalogue as a tree of folders, one version of a file, and what changes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from minga_core.errors import FileNotFoundInDirectoryError, LocatorUnavailableError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_prefix
from minga_core.references import Reference
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import FileVersion, ListedFile

MIN_WATCH_INTERVAL = timedelta(seconds=1)
"""Each look of a watch reads the whole listing below its prefix."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """One version of a file.

    >>> client.stat("models/model.bin").size_bytes
    14
    """

    name: Name | None
    """None for a content that was looked up by its id and that nobody has under a readable name."""
    content_id: ContentId
    size_bytes: int
    published_ns: int
    """Unix time in nanoseconds at which this version got this name."""
    modified_ns: int
    """Unix time in nanoseconds of the file that was published."""
    executable: bool
    complete_count: int
    """Living peers that have all of it."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """All that the directory knows of a file.

    >>> client.info("models/model.bin").names
    ('models/model.bin',)
    """

    names: tuple[Name, ...]
    """One for a name; every name of a content that was looked up by its id."""
    versions: tuple[FileVersion, ...]
    """First what `get` fetches: the newest version that somebody has completely."""
    newer_incomplete: bool = False
    """A newer version is not complete anywhere: its upload is under way or was broken off, or its holders are gone."""


class Folder(NamedTuple):
    """What is directly in one folder.

    >>> folder = next(client.walk("models"))
    >>> folder.folders, [file.name for file in folder.files]
    (['small'], ['models/model.bin'])
    """

    path: str
    """Without a slash at its end; empty for the root."""
    folders: list[str]
    """Last parts of the paths of its folders, in byte order."""
    files: list[ListedFile]


class ChangeKind(StrEnum):
    """What happened to a name.

    >>> next(client.watch("models/", existing=True)).kind
    <ChangeKind.ADDED: 'added'>
    """

    ADDED = "added"
    CHANGED = "changed"
    """Another content is its default version now."""
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one name.

    >>> next(client.watch("models/", existing=True)).file.name
    'models/model.bin'
    """

    kind: ChangeKind
    file: ListedFile
    """As listed now; when it was removed, as it was listed last."""


async def info(locator: LocatorClient, wanted: Reference) -> FileInfo:
    """All versions of a name, or the one that is wanted. Raises FileNotFoundInDirectoryError."""
    if wanted.name is None:
        content = await locator.find_content(wanted.content_id)
        return FileInfo(content.names, (content.version,))
    answer = await locator.find_file(wanted.name, wanted.content_id)
    return FileInfo((answer.name,), answer.versions, answer.newer_incomplete)


async def stat(locator: LocatorClient, wanted: Reference) -> FileStat:
    """The default version, or the one that is wanted. Raises FileNotFoundInDirectoryError."""
    if wanted.name is None:
        content = await locator.find_content(wanted.content_id)
        return _stat_of(content.names[0] if content.names else None, content.version)
    answer = await locator.find_file(wanted.name, wanted.content_id)
    if not answer.versions:
        raise FileNotFoundInDirectoryError(f"nobody shares {wanted}")
    return _stat_of(answer.name, answer.versions[0])


def _stat_of(name: Name | None, version: FileVersion) -> FileStat:
    return FileStat(
        name,
        version.content_id,
        version.size_bytes,
        version.published_ns,
        version.modified_ns,
        version.executable,
        version.complete_count,
    )


def folder_prefix(path: str) -> str:
    """With what the names in a folder begin. Raises InvalidNameError."""
    path = path.strip("/")
    return parse_prefix(path) + "/" if path else ""


async def walk(locator: LocatorClient, path: str) -> AsyncGenerator[Folder, None]:
    """Folders from the top down; a folder whose name is removed from `folders` meanwhile is left out."""
    tree = await _read_tree(locator, folder_prefix(path))
    waiting = [path.strip("/")] if tree else []
    while waiting:
        folder = tree[waiting.pop()]
        yield folder
        waiting += [f"{folder.path}/{name}".lstrip("/") for name in reversed(folder.folders)]


async def _read_tree(locator: LocatorClient, prefix: str) -> dict[str, Folder]:
    """Every folder below a prefix by its path."""
    root = prefix.removesuffix("/")
    tree: dict[str, Folder] = {}
    async with aclosing(locator.iter_files(prefix=prefix)) as files:
        async for file in files:
            parent = file.name.rpartition("/")[0]
            _add_folder(tree, parent, root)
            tree[parent].files.append(file)
    return tree


def _add_folder(tree: dict[str, Folder], path: str, root: str) -> None:
    """Add a folder with those above it, up to the root."""
    while path not in tree:
        tree[path] = Folder(path, [], [])
        if path == root:
            return
        parent, _, name = path.rpartition("/")
        _add_folder(tree, parent, root)
        tree[parent].folders.append(name)


async def watch(
    locator: LocatorClient, prefix: str, interval: timedelta, *, existing: bool
) -> AsyncGenerator[Change, None]:
    """The differences of one listing to the next, for as long as it is iterated."""
    known = None if existing else await _listing(locator, prefix)
    while True:
        if known is not None:
            await asyncio.sleep(interval.total_seconds())
        try:
            found = await _listing(locator, prefix)
        except LocatorUnavailableError:
            if known is None:
                raise
            continue
        for change in _changes(known or {}, found):
            yield change
        known = found


async def _listing(locator: LocatorClient, prefix: str) -> dict[Name, ListedFile]:
    return {file.name: file async for file in locator.iter_files(prefix=prefix)}


def _changes(before: dict[Name, ListedFile], now: dict[Name, ListedFile]) -> list[Change]:
    gone = [Change(ChangeKind.REMOVED, file) for name, file in before.items() if name not in now]
    added = [Change(ChangeKind.ADDED, file) for name, file in now.items() if name not in before]
    changed = [
        Change(ChangeKind.CHANGED, file)
        for name, file in now.items()
        if name in before and before[name].content_id != file.content_id
    ]
    return gone + added + changed
