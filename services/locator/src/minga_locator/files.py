"""Handlers that find files: by name, by content, and by listing the catalogue."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from msgspec.structs import replace

from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, StoreUnavailableError
from minga_core.ids import ContentId
from minga_core.names import parse_name, parse_prefix
from minga_directory.directory import CatalogPage
from minga_locator.folders import list_folder
from minga_locator.page_tokens import ListKind, decode_token, encode_token
from minga_locator.readable import list_readable
from minga_locator.schemas import (
    MAX_PAGE_SIZE,
    ContentInfo,
    FileInfo,
    FileList,
    FileVersion,
    FoundFile,
    FoundFileList,
    ListedFile,
    ListFilesQuery,
    LookupRequest,
    VersionQuery,
)
from minga_locator.state import LocatorState
from minga_runtime.trust.callers import Caller

MAX_SOURCES = 20
MAX_SOURCES_OF_EACH = 8
"""Sources of each name when many are looked up at once: enough for small files, and an answer stays near 1 MiB."""

T = TypeVar("T")


async def get_file(state: LocatorState, caller: Caller, name: str, query: VersionQuery) -> FileInfo:
    """A name's versions and the peers that have them.

    The first version is the default: the newest published one that a living peer has completely, or the newest one
    when there is none. An upload under way, or one that was broken off, replaces no complete version.

    The name is percent-encoded UTF-8; its `/` may be encoded or not. It is normalised to NFC.
    """
    wanted = parse_name(name)
    caller.rights.check_read(wanted)
    pinned = ContentId.parse(query.content_id) if query.content_id is not None else None

    async def find() -> FileInfo:
        versions = await state.reader.find(wanted, content_id=pinned, max_holders=MAX_SOURCES)
        newer_incomplete = bool(versions) and versions[0].newer_incomplete
        keys = state.keys()
        return FileInfo(wanted, [FileVersion.of(version, wanted, keys) for version in versions], newer_incomplete)

    file = await _look_up(state, ("name", wanted, pinned), find, found=lambda file: bool(file.versions))
    if not file.versions:
        raise FileNotFoundInDirectoryError(f"nobody shares '{wanted}'" + (f" as {pinned.short}" if pinned else ""))
    for version in file.versions:
        version.shuffle()
    return file


async def look_up_files(state: LocatorState, caller: Caller, body: LookupRequest) -> FoundFileList:
    """The default version of each of many names (see getFile), with at most 8 sources each.

    For fetching folders of small files: one request instead of one for each of at most 1,000 names. A name that nobody
    shares has a null version and is no error. Changes nothing and is safe to retry.
    """
    names = tuple(parse_name(name) for name in body.names)
    for name in names:
        caller.rights.check_read(name)

    async def find() -> list[FoundFile]:
        versions = await state.reader.find_newest(names, max_holders=MAX_SOURCES_OF_EACH)
        keys = state.keys()
        return [FoundFile.of(name, version, keys) for name, version in zip(names, versions, strict=True)]

    files = await _look_up(
        state, ("names", names), find, found=lambda files: all(file.version is not None for file in files)
    )
    for file in files:
        if file.version is not None:
            file.version.shuffle()
    return FoundFileList(files)


async def get_content(state: LocatorState, caller: Caller, content_id: str) -> ContentInfo:
    """A content and the peers that have it, under whatever name.

    Its id is all that is needed to fetch it; the names are those that the caller may read.
    """
    wanted = ContentId.parse(content_id)

    async def find() -> ContentInfo | None:
        version, names = await state.reader.find_content(wanted, max_holders=MAX_SOURCES)
        return None if version is None else ContentInfo.named(version, names)

    content = await _look_up(state, ("content", wanted), find, found=lambda content: content is not None)
    if content is None:
        raise FileNotFoundInDirectoryError(f"nobody has {wanted.short}")
    content.shuffle()
    if caller.rights.read.everything:
        return content
    # The answer in the cache is that of every caller.
    return replace(content, names=[name for name in content.names if name in caller.rights.read])


async def list_files(state: LocatorState, caller: Caller, query: ListFilesQuery) -> FileList:
    """The catalogue, paged, in byte order of the names, as far as the caller may read it.

    A page may have fewer files than `page_size`, or none, and yet not be the last: follow `next_page_token` until it
    is empty. Each is listed with its default version (see getFile). Files are listed from an index: one whose last
    holder ended seconds ago may still be listed.
    """
    limit = min(query.page_size, MAX_PAGE_SIZE)
    prefix = parse_prefix(query.prefix)
    if query.folders:
        return await _list_folder(state, caller, query, prefix, limit)
    after = decode_token(ListKind.FILES, query.page_token, parse_name) or query.after
    page = await list_readable(
        state.reader, caller.rights.read, prefix=prefix, query=query.query, after=after, limit=limit
    )
    return FileList([ListedFile.of(entry) for entry in page.entries], [], encode_token(ListKind.FILES, page.next_after))


async def _list_folder(state: LocatorState, caller: Caller, query: ListFilesQuery, prefix: str, limit: int) -> FileList:
    if query.query:
        raise InvalidArgumentError("folders and query do not go together")
    # A token may end with a folder, and so with a slash.
    after = decode_token(ListKind.FOLDERS, query.page_token, parse_prefix) or ""

    async def names_after(after: str, limit: int) -> CatalogPage:
        return await list_readable(state.reader, caller.rights.read, prefix=prefix, query="", after=after, limit=limit)

    page = await list_folder(names_after, prefix, after, limit)
    files = [ListedFile.of(entry) for entry in page.files]
    return FileList(files, page.folders, encode_token(ListKind.FOLDERS, page.next_after))


async def _look_up(
    state: LocatorState, key: Hashable, find: Callable[[], Awaitable[T]], *, found: Callable[[T], bool]
) -> T:
    """A cached look-up, counted by its outcome. A miss is not cached: a peer may share the file a moment later."""
    try:
        answer = await state.cache.get(key, find, keep=found)
    except (StoreUnavailableError, asyncio.CancelledError):
        state.metrics.count_lookup("unavailable")
        raise
    state.metrics.count_lookup("hit" if found(answer) else "miss")
    return answer
