"""What a client looks up at the locator: the half of `AsyncClient` that moves no files."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import TYPE_CHECKING

from minga.connecting import Connections
from minga_core.errors import InvalidArgumentError
from minga_core.ids import ContentId
from minga_core.names import parse_prefix
from minga_core.references import parse_reference

if TYPE_CHECKING:
    from minga.catalogue import Change, FileInfo, FileStat, Folder
    from minga_engine.wire.locator_answers import DirectoryFigures, ListedFile, ListedPeer

WATCH_INTERVAL = timedelta(seconds=2)


class LookUps:
    """Names, versions, peers and totals of a network. See `AsyncClient`, which connects it."""

    _connections: Connections

    def ls(self, prefix: str = "") -> "AsyncGenerator[ListedFile, None]":
        """List the names that begin with `prefix`, in byte order, page by page. Raises InvalidNameError.

        >>> [file.name async for file in client.ls("models/")]
        ['models/model.bin', 'models/small/model.bin']
        """
        return self._connections.locator().iter_files(prefix=parse_prefix(prefix))

    def find(self, pattern: str) -> "AsyncGenerator[ListedFile, None]":
        """List the names that contain `pattern`, or match it when it is a glob: `*.iso`, `data/*/train?.bin`.

        Raises InvalidArgumentError for an empty pattern, and for one that is not valid UTF-8.

        >>> [file.name async for file in client.find("*/small/*")]
        ['models/small/model.bin']
        """
        if not pattern:
            raise InvalidArgumentError("an empty pattern finds nothing", hint="`minga ls` lists everything")
        if not _is_utf8(pattern):
            raise InvalidArgumentError(f"{pattern!a} is not a pattern: it is not valid UTF-8")
        return self._connections.locator().iter_files(query=pattern)

    async def info(self, name: str | ContentId) -> "FileInfo":
        """Look up the versions of a name, one of them (`NAME@b3:…`), or a content by its id (`b3:…`), with at most 20
        holders of each.

        Raises FileNotFoundInDirectoryError, InvalidNameError.

        >>> (await client.info("models/model.bin")).names
        ('models/model.bin',)
        """
        from minga import catalogue

        return await catalogue.info(self._connections.locator(), parse_reference(name))

    async def stat(self, name: str | ContentId) -> "FileStat":
        """Look up one version of a file: of `NAME` the one that `get` fetches, or `NAME@b3:…`, or `b3:…`.

        Raises FileNotFoundInDirectoryError, also for a folder; InvalidNameError, InvalidArgumentError.

        >>> (await client.stat("models/model.bin")).size_bytes
        14
        """
        from minga import catalogue

        return await catalogue.stat(self._connections.locator(), parse_reference(name))

    def walk(self, folder: str = "") -> "AsyncGenerator[Folder, None]":
        """Go through the folders below `folder` from the top down, as `os.walk`; each with what is directly in it.

        A folder whose name is removed from `folders` meanwhile is left out. The listing of all of it is read first, and
        kept in memory. A folder without names below it does not exist: nothing comes. Raises InvalidNameError.

        >>> [(folder.path, folder.folders) async for folder in client.walk("models")]
        [('models', ['small']), ('models/small', [])]
        """
        from minga import catalogue

        return catalogue.walk(self._connections.locator(), folder)

    def watch(
        self, prefix: str = "", *, interval: timedelta = WATCH_INTERVAL, existing: bool = False
    ) -> "AsyncGenerator[Change, None]":
        """Watch the names that begin with `prefix`: what is added, gets another content, or is removed, as it comes.

        It never ends by itself, and goes on while the locator is away. existing: the names that are there already come
        first, as added. interval: time from one look to the next, at least a second; each look reads the listing of
        that prefix, so choose a narrow one. A change that is undone within an interval is not seen. Raises
        InvalidNameError, InvalidArgumentError.

        >>> async for change in client.watch("models/", existing=True):
        ...     print(change.kind, change.file.name)
        ...     break
        added models/model.bin
        """
        from minga import catalogue

        if interval < catalogue.MIN_WATCH_INTERVAL:
            raise InvalidArgumentError(f"the interval of a watch is at least {catalogue.MIN_WATCH_INTERVAL.seconds} s")
        return catalogue.watch(self._connections.locator(), parse_prefix(prefix), interval, existing=existing)

    def peers(self) -> "AsyncGenerator[ListedPeer, None]":
        """List the living peers in order of their ids, page by page.

        >>> [peer.peer_id async for peer in client.peers()]
        ['peer-1', 'peer-2', 'peer-3']
        """
        return self._connections.locator().iter_peers()

    async def stats(self) -> "DirectoryFigures":
        """Look up the directory's totals: living peers, names, bytes of room in all and free.

        >>> (await client.stats()).live_peers
        3
        """
        return await self._connections.locator().stats()

    async def clock_offset(self) -> timedelta | None:
        """How far this machine's clock is ahead of the locator's, to about a second; None when it does not say.

        >>> abs(await client.clock_offset()) < timedelta(minutes=1)
        True
        """
        return await self._connections.locator().clock_offset()


def _is_utf8(text: str) -> bool:
    """Whether `text` can be sent: arguments that are not UTF-8 have lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
