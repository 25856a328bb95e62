"""The file system of `minga://`: contents as files that are read, written and removed."""

import asyncio
import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fsspec.asyn import _run_coros_in_chunks  # type: ignore[import-untyped]
from fsspec.callbacks import DEFAULT_CALLBACK  # type: ignore[import-untyped]
from fsspec.utils import is_exception, isfilelike  # type: ignore[import-untyped]

from minga.filesystem.files import AsyncReadableFile, AsyncWritableFile, ReadableFile, WritableFile
from minga.filesystem.lookups import CatalogueFileSystem, check_readable
from minga.filesystem.os_errors import os_errors
from minga.filesystem.ranges import read_ranges
from minga.filesystem.transfers import copy_to, show_upload
from minga.forking import grpc_is_lost
from minga.reading import AsyncFile
from minga.writing import AsyncWriter
from minga_core.errors import FileNotFoundInDirectoryError, NameTakenError
from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_core.records import HoldingState
from minga_core.references import NameReference, parse_reference
from minga_engine.wire.locator_answers import FileVersion

GONE_SECONDS = 5.0
GONE_POLL_SECONDS = 0.05


class MingaFileSystem(CatalogueFileSystem):
    """The files of a network for fsspec: `fsspec.open("minga://data/table.csv")`, `fsspec.filesystem("minga")`.

    locator, control: as for `minga.Client`; what is not given comes from the environment. standalone: leave the daemon
    of this machine alone. replicas: peers that shall hold what is written. The rest is fsspec's own.

    Paths are names; `NAME@b3:…` is a certain version and `b3:…` a content, both for reading alone. So are files of
    origins, as `minga://s3://BUCKET/KEY`, or chained as `minga::s3://BUCKET/KEY`: then listings and sizes are those of
    the file system behind, which must be installed, and its options say by which credentials.

    A folder exists as long as a name in it does, and making one does nothing. Files are written whole, as new versions;
    none can be appended to. Removing works where this machine is the only holder. The catalogue is not cached. Errors
    are OSError, as those of Python's own files.

    >>> import fsspec
    >>> fs = fsspec.filesystem("minga")
    >>> fs.ls("models", detail=False)
    ['models/model.bin', 'models/small']
    >>> fs.cat_file("models/model.bin", start=-4)
    b'tion'
    """

    def _open(self, path: str, mode: str = "rb", **options: Any) -> ReadableFile | WritableFile:
        return ReadableFile(self, path, **options) if mode == "rb" else WritableFile(self, path, mode, **options)

    async def open_async(self, path: str, mode: str = "rb", **options: Any) -> AsyncReadableFile | AsyncWritableFile:
        """Open a file in the running event loop: rb, wb, or xb for a new name. Raises OSError, ValueError."""
        path = self._strip_protocol(path)
        if mode == "rb":
            return AsyncReadableFile(self, path, await self.open_content(path))
        return AsyncWritableFile(self, path, mode, await self.create(path, mode))

    async def create(self, path: str, mode: str) -> AsyncWriter:
        """Open a file for writing. Raises OSError, ValueError for another mode than wb and xb."""
        path = self._strip_protocol(path)
        if mode not in ("wb", "xb"):
            raise ValueError(f"invalid mode {mode!r} (rb, wb or xb): files are read, or written whole")
        if mode == "xb":
            await self._check_free(path)
        client = await self._client(path)
        with os_errors(path):
            return await client.create(self._writable(path), replicas=self.replicas, overwrite=mode == "wb")

    async def open_content(self, path: str) -> AsyncFile:
        """Open a file for reading. Raises OSError."""
        path = self._strip_protocol(path)
        client = await self._client(path)
        with os_errors(path):
            if (origin := self.origin_of(path)) is not None:
                return await client.open(origin)
            check_readable(path)
            try:
                return await client.open(path)
            except FileNotFoundInDirectoryError:
                if (await self._info(path))["type"] == "directory":
                    raise IsADirectoryError(errno.EISDIR, "it is a folder", path) from None
                raise

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        (data,) = await self._cat_ranges([path], [start], [end], on_error="raise")
        found: bytes = data
        return found

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """See fsspec. A file is opened once for all of its ranges; max_gap changes nothing."""
        starts = starts if isinstance(starts, Sequence) else [starts] * len(paths)
        ends = ends if isinstance(ends, Sequence) else [ends] * len(paths)
        ranges = list(zip(paths, starts, ends, strict=True))
        found = await read_ranges(self.open_content, ranges, batch_size or self.batch_size)
        if on_error != "return":
            for error in filter(is_exception, found):
                raise error
        return found

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        writer = await self.create(path, "xb" if mode == "create" else "wb")
        with os_errors(path):
            async with writer:
                await writer.write(value)

    async def _put_file(
        self, lpath: str, rpath: str, mode: str = "overwrite", callback: Any = DEFAULT_CALLBACK, **kwargs: Any
    ) -> None:
        path = self._strip_protocol(rpath)
        if await asyncio.to_thread(os.path.isdir, lpath):
            return
        if mode == "create":
            await self._check_free(path)
        client = await self._client(path)
        with os_errors(path):
            await client.put(
                lpath,
                self._writable(path),
                replicas=self.replicas,
                overwrite=mode != "create",
                on_progress=lambda progress: show_upload(callback, progress),
            )

    async def _check_free(self, path: str) -> None:
        if await self._exists(path):
            raise FileExistsError(errno.EEXIST, "a file has that name", path)

    async def _get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **kwargs: Any) -> None:
        path = self._strip_protocol(rpath)
        if self._is_elsewhere(path):
            async with await self.open_content(path) as file:
                callback.set_size(file.size_bytes)
                await copy_to(file, lpath, path, callback)
            return
        info = await self._info(path)
        if info["type"] == "directory":
            await asyncio.to_thread(os.makedirs, lpath, exist_ok=True)
            return
        callback.set_size(info["size"])
        content_id = ContentId.parse(info["content_id"])
        if not await self._download(path, content_id, lpath, callback):
            async with await self.open_content(self.version_path(path, content_id)) as file:
                await copy_to(file, lpath, path, callback)

    async def _download(self, path: str, content_id: ContentId, target: Any, callback: Any) -> bool:
        """Fetch a file as `AsyncClient.get` does, by which this machine becomes a holder and which resumes.

        False where that does not go and it must be read: into what exists already, when the daemon's shared folder has
        another content of that name, for a content without a name, and in a forked child.
        """
        name = parse_reference(path).name
        if name is None or grpc_is_lost() or isfilelike(target) or await asyncio.to_thread(os.path.lexists, target):
            return False
        client = await self._client(path)
        with os_errors(path):
            try:
                await client.get(
                    name,
                    target,
                    content_id=content_id,
                    on_progress=lambda progress: callback.absolute_update(progress.held_bytes),
                )
            except NameTakenError:
                return False
        return True

    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        client = await self._client(path1)
        with os_errors(path1):
            self._check_own(path1)
            check_readable(path1)
            try:
                await client.cp(path1, self._writable(path2), replicas=self.replicas, overwrite=True)
            except FileNotFoundInDirectoryError:
                if (await self._info(path1))["type"] != "directory":
                    raise
                # One of a tree: it exists by its files.

    def _is_elsewhere(self, path: str) -> bool:
        with os_errors(path):
            return self.origin_of(path) is not None

    def _check_own(self, path: str) -> None:
        """Raises OSError for a file of an origin."""
        if self._is_elsewhere(path):
            raise OSError(errno.EROFS, "a file of an origin is only read", path)

    def _writable(self, path: str) -> Name:
        """The name that a path is. Raises InvalidNameError, and OSError for what is only read."""
        self._check_own(path)
        return writable_name(path)

    # Removing.

    async def _rm(
        self,
        path: str | list[str],
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        paths = await self._expand_path(path)
        if recursive:
            trees = [await self._find(one, maxdepth=maxdepth) for one in paths]
            paths = sorted({name for names in trees for name in names})
            if not paths:
                raise FileNotFoundError(errno.ENOENT, "there is nothing to remove", str(path))
        at_once = batch_size or self.batch_size
        await _run_coros_in_chunks([self._remove(one) for one in paths], at_once)
        await _run_coros_in_chunks([self._until_gone(one) for one in paths], at_once)

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        await self._remove(path)
        await self._until_gone(path)

    async def _remove(self, path: str) -> None:
        path = self._strip_protocol(path)
        client = await self._client(path)
        with os_errors(path):
            name = self._writable(path)
            try:
                found = await client.info(name)
            except FileNotFoundInDirectoryError:
                if (await self._info(path))["type"] == "directory":
                    raise IsADirectoryError(errno.EISDIR, "it is a folder", path) from None
                raise
            own = (await client.status()).peer_id if await client.uses_daemon() else None
            if others := count_others(found.versions, own):
                held = "another peer holds it" if others == 1 else f"{others} other peers hold it"
                raise PermissionError(errno.EACCES, f"{held}, and only there it can be removed", path)
            await client.rm(name)

    async def _until_gone(self, path: str) -> None:
        """Wait until looking it up does not find it any more: locators answer from a short cache."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE_SECONDS):
                while await self._isfile(path):  # noqa: ASYNC110 - other processes forget it
                    await asyncio.sleep(GONE_POLL_SECONDS)


def writable_name(path: str) -> Name:
    """The name that a path is. Raises InvalidNameError, and OSError for one version of a name or a content."""
    wanted = parse_reference(path)
    if not isinstance(wanted, NameReference) or wanted.content_id is not None:
        raise OSError(errno.EROFS, "a version never changes: write and remove by the name alone", path)
    return wanted.name


def count_others(versions: Sequence[FileVersion], own: PeerId | None) -> int:
    """How many copies of a name's versions are on other peers than this one."""
    sources = [source for version in versions for source in version.sources if source.state is HoldingState.COMPLETE]
    return sum(version.complete_count for version in versions) - sum(source.peer_id == own for source in sources)
