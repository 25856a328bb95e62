"""Looking files up for fsspec: the catalogue as a tree of folders."""

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.asyn import AsyncFileSystem, get_loop  # type: ignore[import-untyped]
from fsspec.implementations.chained import ChainedFileSystem  # type: ignore[import-untyped]

from minga.async_client import AsyncClient
from minga.filesystem.clients import LoopClients
from minga.filesystem.entries import Info, entry_info, folder_info, origin_info, stat_info, tree
from minga.filesystem.os_errors import os_errors
from minga.filesystem.targets import Target
from minga.origin_urls import OriginUrl, parse_origin
from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, InvalidNameError
from minga_core.ids import CONTENT_ID_PREFIX, ContentId
from minga_core.names import parse_prefix
from minga_core.references import NameReference, parse_reference
from minga_engine.wire.folders import folder_entries, is_folder

AT_ONCE = 32
"""Files that a call for many reads or writes at once, unless `batch_size` says otherwise: each needs connections."""


class CatalogueFileSystem(AsyncFileSystem, ChainedFileSystem):  # type: ignore[misc]
    """The part of MingaFileSystem that looks up what there is: at the locator, or in what it is chained to."""

    protocol = "minga"
    # The first path of a chain: files of one store are one file system's.
    _strip_tokenize_options = ("fo",)

    def __init__(
        self,
        locator: str | None = None,
        control: str | None = None,
        *,
        standalone: bool = False,
        replicas: int = 1,
        batch_size: int | None = None,
        fo: str | None = None,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(batch_size=batch_size or AT_ONCE, **options)
        self._process_id = os.getpid()
        self.replicas = replicas
        self.target: Target | None = None
        if target_protocol is not None:
            with os_errors(fo or target_protocol):
                self.target = Target(target_protocol, target_options or {}, asynchronous=self.asynchronous)
        socket = Path(control) if control is not None else None
        self._clients = LoopClients(lambda: AsyncClient(locator=locator, control=socket, standalone=standalone))
        weakref.finalize(self, self._clients.abandon).atexit = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of calls that block. A forked child gets one of its own."""
        if self._process_id != os.getpid():
            self._process_id = os.getpid()
            self._loop = None if self.asynchronous else get_loop()
        loop: asyncio.AbstractEventLoop | None = self._loop
        return loop

    async def aclose(self) -> None:
        """Close the connections of the running event loop: for programs that use it with `asynchronous=True`."""
        await self._clients.aclose()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        # In chains fsspec has None for a URL that is `minga://` alone.
        stripped = super()._strip_protocol("" if path is None else path)
        return stripped.lstrip("/") if isinstance(stripped, str) else stripped

    @property
    def fsid(self) -> str:
        """Which network this is, for programs that compare file systems."""
        return f"minga_{self.storage_options.get('locator', '')}"

    def origin_of(self, path: str) -> OriginUrl | None:
        """The file elsewhere that a path stands for; None for one of the network. Raises InvalidArgumentError."""
        if path.startswith(CONTENT_ID_PREFIX):
            return None
        return parse_origin(path) if self.target is None else self.target.origin(path)

    def version_path(self, path: str, content_id: ContentId) -> str:
        """The path of one version of the file at `path`."""
        if self.origin_of(path) is not None:
            return str(content_id)
        name = parse_reference(path).name
        return str(content_id if name is None else NameReference(name, content_id))

    async def _client(self, path: str) -> AsyncClient:
        with os_errors(path):
            return await self._clients.current()

    async def _info(self, path: str, **kwargs: Any) -> Info:
        path = self._strip_protocol(path)
        if self.target is not None and not path.startswith(CONTENT_ID_PREFIX):
            described: Info = await self._asked(path, "info", **kwargs)
            return described
        if not path:
            return folder_info(path)
        client = await self._client(path)
        with os_errors(path):
            if (origin := self.origin_of(path)) is not None:
                async with await client.open(origin) as file:
                    return origin_info(path, file.size_bytes, file.content_id)
            check_readable(path)
            try:
                return stat_info(path, await client.stat(path))
            except FileNotFoundInDirectoryError:
                if await is_folder(client._connections.locator(), path):
                    return folder_info(path)
                raise

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if self.target is not None:
            listed: list[Any] = await self._asked(path, "ls", detail=detail, **kwargs)
            return listed
        found = [info async for info in self._entries(path, 1)]
        if path and not found:
            found = [await self._info(path)]
        return found if detail else [info["name"] for info in found]

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        *,
        detail: bool = False,
        prefix: str = "",
        **kwargs: Any,
    ) -> Any:
        """See fsspec. prefix: only what begins so in the folder, as `glob` asks for it."""
        path = self._strip_protocol(path)
        if self.target is not None:
            return await self._asked(path, "find", maxdepth=maxdepth, withdirs=withdirs, detail=detail, **kwargs)
        found = {
            info["name"]: info
            async for info in self._entries(path, maxdepth, prefix)
            if withdirs or info["type"] == "file"
        }
        if path and found and withdirs:
            found[path] = folder_info(path)
        elif path and not found and not prefix and await self._isfile(path):
            found[path] = await self._info(path)
        return {name: found[name] for name in sorted(found)} if detail else sorted(found)

    async def _glob(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> Any:
        if self.target is None:
            return await super()._glob(path, maxdepth, **kwargs)
        return await self._asked(self._strip_protocol(path), "glob", maxdepth=maxdepth, **kwargs)

    async def _asked(self, path: str, method: str, **options: Any) -> Any:
        """What the file system says that this one is chained to."""
        assert self.target is not None  # noqa: S101
        with os_errors(path):
            return await self.target.ask(method, path, **options)

    async def _entries(self, path: str, max_depth: int | None, prefix: str = "") -> AsyncGenerator[Info, None]:
        """Files and folders below a path; nothing below what cannot be a name."""
        client = await self._client(path)
        folder = f"{path}/" if path else ""
        with os_errors(path):
            try:
                parse_prefix(folder + prefix)
            except InvalidNameError:
                return
            if max_depth == 1:
                async with aclosing(folder_entries(client._connections.locator(), folder, prefix)) as entries:
                    async for entry in entries:
                        yield entry_info(entry)
                return
            async with aclosing(client.ls(folder + prefix)) as files:
                async for info in tree(files, folder, max_depth):
                    yield info

    def ukey(self, path: str) -> str:
        """The content id of a file: the same exactly as long as its bytes are."""
        if self.target is not None:
            return str(self.target.fs.ukey(path))
        return str(self.info(path)["content_id"])

    def checksum(self, path: str) -> int:
        """As `ukey`, as a number."""
        if self.target is not None:
            return int(self.target.fs.checksum(path))
        return int.from_bytes(ContentId.parse(self.ukey(path)).raw, "big")

    def created(self, path: str) -> datetime:
        """As `modified`: a version does not change after that."""
        return self.modified(path)

    def modified(self, path: str) -> datetime:
        """When the content of a file got this name."""
        if self.target is not None:
            found: datetime = self.target.fs.modified(path)
            return found
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)


def check_readable(path: str) -> None:
    """Raises FileNotFoundInDirectoryError for what can be no file: programs look for what may not be there."""
    try:
        parse_reference(path)
    except InvalidArgumentError as error:
        raise FileNotFoundInDirectoryError(str(error)) from error
