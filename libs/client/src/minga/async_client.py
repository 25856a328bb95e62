"""The client for asyncio: look-ups ask the locator, transfers go through the daemon of this machine or without it."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any

from minga.connecting import RETRY_BUDGET, Connections
from minga.look_ups import LookUps
from minga.origin_urls import OriginUrl, parse_origin
from minga.settings import ClientSettings, load_settings
from minga_core.errors import DaemonUnavailableError, InvalidArgumentError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name, parse_prefix
from minga_core.records import MAX_REPLICAS
from minga_core.references import parse_reference

if TYPE_CHECKING:
    from minga.control import CachedFile, DaemonStatus
    from minga.fetching import FetchItem, FetchOptions, Outcome
    from minga.putting import PutItem
    from minga.reading import AsyncFile
    from minga.writing import AsyncWriter, Upload
    from minga_core.references import Reference
    from minga_engine.progress import Progress, PutProgress, PutResult, VerifyProgress
    from minga_engine.transfer.preheated import Preheated

PREHEAT_LIMIT = timedelta(hours=1)


def ignore(*_: Any) -> None:
    """A callback that does nothing."""


class AsyncClient(LookUps):
    """A client of a Minga network. An async context manager; it connects when first used.

    settings: as `load_settings` reads them. locator, control: instead of settings, the locator's URL and the path of
    the daemon's socket; what is not given comes from the environment. standalone: leave the daemon of this machine
    alone. retry_budget: how long look-ups are retried while no locator answers; zero for one try.

    `get` goes through the daemon when one runs on this machine, so that this machine becomes a holder, and downloads by
    itself otherwise. Every method may be called from several tasks at once, is safe to retry, and raises
    LocatorUnavailableError (`rm` and `status`: DaemonUnavailableError) when nobody answers. Constructing raises
    SettingsError.

    >>> async with minga.AsyncClient() as client:
    ...     [file.name async for file in client.ls("models/")]
    ['models/model.bin', 'models/small/model.bin']
    """

    def __init__(
        self,
        settings: ClientSettings | None = None,
        *,
        locator: str | None = None,
        control: Path | None = None,
        standalone: bool = False,
        retry_budget: timedelta = RETRY_BUDGET,
    ) -> None:
        if isinstance(settings, str):
            raise TypeError(f"the locator is given by name: locator={settings!r}")
        chosen = settings or load_settings(locator=locator, control=control)
        self._begin(Connections(chosen, standalone=standalone, retry_budget=retry_budget))

    def _begin(self, connections: Connections) -> None:
        self._connections = connections
        self._files: set[AsyncFile] = set()

    def __getstate__(self) -> Connections:
        return self._connections

    def __setstate__(self, state: Connections) -> None:
        self._begin(state)

    @property
    def settings(self) -> ClientSettings:
        """The settings that hold.

        >>> client.settings.locator == os.environ["MINGA_LOCATOR"]
        True
        """
        return self._connections.settings

    @property
    def other_network(self) -> str:
        """Locator of this machine's daemon, once `uses_daemon` found that it is not the one given; otherwise empty.

        >>> client.other_network
        ''
        """
        return self._connections.other_network

    def copy(self) -> "AsyncClient":
        """A client with the same settings, and no connection yet; for another event loop.

        >>> client.copy().settings == client.settings
        True
        """
        own = self._connections
        return AsyncClient(own.settings, standalone=own.standalone, retry_budget=own.retry_budget)

    async def __aenter__(self) -> "AsyncClient":
        await self._connections.keep_credentials()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End its connections, and close the files that are open for reading. Closing it again does nothing.

        >>> other = minga.AsyncClient()
        >>> await other.aclose()
        """
        for file in list(self._files):
            await file.aclose()
        await self._connections.aclose()

    def credentials_end(self) -> float | None:
        """When this client's certificate ends, as Unix time; None in an open network. Raises SettingsError.

        >>> client.credentials_end() is None
        True
        """
        credentials = self._connections.credentials()
        return None if credentials is None else credentials.expires()

    def grant_end(self) -> float | None:
        """When this client's grant ends, as Unix time; None without one, or when it does not say. Raises
        SettingsError.

        >>> client.grant_end() is None
        True
        """
        grant = self._connections.grant()
        return None if grant is None else grant.expires

    # The daemon of this machine.

    async def available(self) -> bool:
        """Whether a daemon runs on this machine. Within five seconds: one that hangs counts as none.

        >>> await client.available()
        True
        """
        return await self._connections.daemon().available()

    async def status(self) -> "DaemonStatus":
        """What the daemon of this machine is, holds and does. Raises DaemonUnavailableError.

        >>> (await client.status()).peer_id
        'peer-2'
        """
        return await self._connections.daemon().status()

    async def rm(self, name: str) -> None:
        """Delete a file from this machine's shared folder; other holders keep theirs.

        Raises DaemonUnavailableError, FileNotFoundInDirectoryError, StorageError.

        >>> done = await client.get("models/model.bin")
        >>> await client.rm("models/model.bin")
        """
        await self._connections.daemon().remove(parse_name(name))

    async def cached(self) -> "tuple[list[CachedFile], int]":
        """What the daemon of this machine has of files of origins, the last used first; and how many bytes of them it
        keeps in all. Raises DaemonUnavailableError.

        >>> files, kept_bytes = await client.cached()
        >>> files
        []
        """
        return await self._connections.daemon().cached()

    async def pin(self, name: str, *, pinned: bool = True) -> None:
        """Have the daemon keep a file of an origin whatever its limit, or no more.

        Raises DaemonUnavailableError, FileNotFoundInDirectoryError.

        >>> for file in (await client.cached())[0]:
        ...     await client.pin(file.name)
        """
        await self._connections.daemon().pin(parse_name(name), pinned=pinned)

    def verify(self, prefix: str = "") -> "AsyncGenerator[VerifyProgress, None]":
        """Have the daemon read the files of its shared folder whose names begin so, and compare every byte with what
        was hashed; progress at least once a second, with the files that are not what they should be.

        Those are not shared any more. Raises DaemonUnavailableError, AlreadyRunningError, InvalidNameError.

        >>> [progress.bad_files async for progress in client.verify("models/")][-1]
        ()
        """
        return self._connections.daemon().verify(parse_prefix(prefix))

    # Transfers.

    async def uses_daemon(self) -> bool:
        """Whether `get` goes through the daemon: asked once, when first needed.

        False for a standalone client, and when a locator was given that is not the daemon's: see `other_network`.

        >>> await client.uses_daemon()
        True
        """
        return await self._connections.uses_daemon()

    async def open(self, name: str | ContentId | OriginUrl, *, wait: timedelta | None = None) -> "AsyncFile":
        """Open a file for reading: `NAME`, `NAME@b3:…` or `b3:…`. Bytes are fetched as they are read, and verified.
        `https://…`, `s3://…`, `gs://…` and `hf://…` are files of origins, which are fetched whole first, as `get` does.

        Through the daemon when one runs on this machine; what was read stays there as it is set to. What is read is one
        content, whatever happens to the name. wait: a read gives up when no source was usable for this long; zero:
        never; None: as set. Close it, or use it as a context manager. Raises FileNotFoundInDirectoryError,
        InvalidNameError, InvalidArgumentError, DaemonUnavailableError.

        >>> async with await client.open("models/model.bin") as file:
        ...     file.seek(-4, 2)
        ...     await file.read()
        10
        b'tion'
        """
        from minga.reading import AsyncFile

        origin = _origin(name)
        wanted = parse_reference(str(name)) if origin is None else await self._fetched(origin)
        limit = self.settings.source_wait_or_forever if wait is None else wait or None
        file = AsyncFile(await self._connections.source(wanted, limit), limit, self._files.discard)
        self._files.add(file)
        return file

    async def _fetched(self, origin: OriginUrl) -> "Reference":
        """The content of a file of an origin, once all of it is here."""
        found = (await self.get(origin)).content_id
        if found is None:
            raise DaemonUnavailableError("the daemon does not say what it has fetched")
        return parse_reference(found)

    async def create(
        self,
        name: str,
        *,
        replicas: int = 1,
        overwrite: bool = True,
        on_progress: "Callable[[PutProgress], None]" = ignore,
    ) -> "AsyncWriter":
        """Open a file for writing, which is uploaded whole when it is closed, and discarded after an error.

        It is kept in a temporary file until then. Arguments and errors are those of `put`, which closing does.

        >>> async with await client.create("notes/today.txt") as file:
        ...     await file.write(b"all is well")
        11
        """
        from minga.writing import AsyncWriter

        return AsyncWriter(self._upload(name, replicas, on_progress, overwrite=overwrite))

    def _upload(
        self, name: str, replicas: int, on_progress: "Callable[[PutProgress], None]", *, overwrite: bool
    ) -> "Upload":
        _check_replicas(replicas)
        checked = parse_name(name)

        async def upload(path: Path) -> "PutResult":
            return await self.put(path, checked, replicas=replicas, overwrite=overwrite, on_progress=on_progress)

        return upload

    async def get(
        self,
        name: str | OriginUrl,
        target: Path | str | None = None,
        *,
        content_id: ContentId | None = None,
        overwrite: bool = False,
        wait: timedelta | None = None,
        on_progress: "Callable[[Progress], None]" = ignore,
    ) -> "Progress":
        """Fetch a file from all peers that have any part of it; the last progress, with its path and its sources.

        name: or `https://…`, `s3://BUCKET/KEY`, `gs://BUCKET/OBJECT` or `hf://ORG/REPO@REVISION/PATH`, perhaps with
        `#sha256=…`: a file of an origin, which the daemon of this machine fetches by credentials of this user, and
        shares with all others.

        target: path of the file, made with its folders; None: the daemon's shared folder, or, without a daemon, the
        name's last part in the current folder. content_id: that version instead of the newest. overwrite: replace
        another content of that name. wait: give up when no source was reachable for this long; zero: never; None: as
        set. on_progress: called with each change, at least once a second.

        Cancelling keeps what was verified, and the same call resumes. Raises FileNotFoundInDirectoryError,
        NameTakenError, NoSourcesError, NoSpaceError, StorageError, DaemonUnavailableError.

        >>> done = await client.get("models/model.bin", "fetched.bin")
        >>> done.path, done.size_bytes
        (PosixPath('fetched.bin'), 14)
        """
        origin = _origin(name)
        checked = parse_name(str(name)) if origin is None else origin.last_part
        if target is None and not await self.uses_daemon():
            target = PurePosixPath(checked).name
        item = _item(checked, Path(target) if target is not None else None, origin)
        options = _options(content_id, overwrite, wait)
        return await (await self._connections.fetcher(options)).fetch(item, on_progress)

    async def get_many(
        self,
        items: "Sequence[FetchItem] | AsyncIterable[FetchItem]",
        *,
        content_id: ContentId | None = None,
        overwrite: bool = False,
        wait: timedelta | None = None,
        on_progress: "Callable[[FetchItem, Progress], None]" = ignore,
        on_end: "Callable[[FetchItem], None]" = ignore,
    ) -> "list[Outcome[FetchItem, Progress]]":
        """Fetch many files at once, small ones many in a call; an outcome for each, in the order of the items.

        items: of those that are listed while they are iterated over, the first are fetched meanwhile; an error of the
        listing ends it, and is raised.

        A file that fails does not stop the others: its outcome has the error that `get` would raise. on_end: called
        once for each item, done or failed. The rest is as for `get`.

        >>> items = [minga.FetchItem(minga.parse_name(name)) for name in ("models/model.bin", "nothing")]
        >>> [outcome.error is None for outcome in await client.get_many(items)]
        [True, False]
        """
        from minga.fetching import fetch_all

        fetcher = await self._connections.fetcher(_options(content_id, overwrite, wait))
        async with aclosing(_iterated(items)) as iterated:
            return await fetch_all(fetcher, iterated, on_progress, on_end)

    async def put(
        self,
        path: Path | str,
        name: str | None = None,
        *,
        replicas: int = 1,
        overwrite: bool = False,
        on_progress: "Callable[[PutProgress], None]" = ignore,
    ) -> "PutResult":
        """Upload a file; returns once `replicas` peers (1 to 20) hold it and the locator names them.

        name: None: the path's last part. overwrite: replace another content of that name. A content that so many peers
        hold already is not sent again. Raises NameTakenError, NoSpaceError, PeerUnavailableError, ContentChangedError,
        StorageError, InvalidArgumentError, InvalidNameError.

        >>> result = await client.put("model.bin", "copies/model.bin", replicas=2)
        >>> len(result.peers)
        2
        """
        _check_replicas(replicas)
        source = Path(path)
        checked = parse_name(name if name is not None else source.name)
        return await self._connections.engine().put(source, checked, replicas, on_progress, overwrite=overwrite)

    async def cp(
        self,
        name: str | ContentId,
        new_name: str,
        *,
        replicas: int = 1,
        overwrite: bool = False,
        on_progress: "Callable[[PutProgress], None]" = ignore,
    ) -> "PutResult":
        """Publish a file of the network, `NAME`, `NAME@b3:…` or `b3:…`, under another name, with its attributes.

        Those that hold it copy it on their disks; bytes come through here only where none of them has room. What is
        copied is one content, whatever happens to the name. Raises FileNotFoundInDirectoryError, NoSourcesError, and
        what `put` raises.

        >>> (await client.cp("models/model.bin", "copies/5")).size_bytes
        14
        """
        _check_replicas(replicas)
        checked, wanted = parse_name(new_name), parse_reference(name)
        engine = self._connections.engine()
        return await engine.copy(await engine.locate(wanted), checked, replicas, on_progress, overwrite=overwrite)

    async def put_many(
        self,
        items: "Sequence[PutItem]",
        *,
        replicas: int = 1,
        overwrite: bool = False,
        on_progress: "Callable[[PutItem, PutProgress], None]" = ignore,
        on_end: "Callable[[PutItem], None]" = ignore,
    ) -> "list[Outcome[PutItem, PutResult]]":
        """Upload many files at once; an outcome for each, in the order of the items. The rest is as for `put`.

        >>> items = [minga.PutItem(Path("model.bin"), minga.parse_name("copies/of/model.bin"), 14)]
        >>> [outcome.result.size_bytes for outcome in await client.put_many(items)]
        [14]
        """
        from minga.putting import put_all

        _check_replicas(replicas)
        return await put_all(self._connections.engine(), items, replicas, on_progress, on_end, overwrite=overwrite)

    async def preheat(
        self,
        item: str,
        *,
        on: str = "all",
        platform: str = "",
        pin: bool = False,
        overwrite: bool = False,
        limit: timedelta = PREHEAT_LIMIT,
        on_progress: "Callable[[Preheated], None]" = ignore,
    ) -> "Preheated":
        """Have other peers fetch something ahead of time; returns when each of them has it, or has failed.

        item: a name of the network, of which they become holders; `https://…`, perhaps with `#sha256=…`; an image,
        `docker.io/library/alpine:3.20` or `…@sha256:…`; or the large files of a repository of a hub, `hf://org/name`.
        on: `all`, `zone=ZONE`, or a number of peers. platform: of an image, `linux/arm64`; empty: each peer's own. pin:
        what is fetched from elsewhere stays, whatever a peer's limit. overwrite: of a name, replace another content.
        limit: for all of it. on_progress: called with each change, with what is returned at the end.

        Whether a peer failed is in the result and no error. Cancelling ends the fetching; what is whole stays. Raises
        FileNotFoundInDirectoryError for a name that nobody shares, PeerUnavailableError when there is no such peer,
        InvalidArgumentError.

        >>> preheated = await client.preheat("models/model.bin", on="2")
        >>> len(preheated.done), preheated.missing
        (2, 0)
        """
        from minga_engine.transfer.preheat import Preheater, PreheatRequest
        from minga_engine.transfer.preheat_items import parse_choice, parse_item

        if limit <= timedelta(0):
            raise InvalidArgumentError("a limit is more than 0 s")
        request = PreheatRequest(parse_item(item), parse_choice(on), platform, pin, overwrite, limit)
        engine = self._connections.engine()
        return await Preheater(self._connections.locator(), engine.connections, engine.clock).preheat(
            request, on_progress
        )


def _origin(name: "str | ContentId | OriginUrl") -> OriginUrl | None:
    """The file of an origin that a name is, if it is one."""
    if isinstance(name, OriginUrl):
        return name
    return parse_origin(name) if isinstance(name, str) else None


def _item(name: Name, target: Path | None, origin: OriginUrl | None) -> "FetchItem":
    from minga.fetching import FetchItem

    if target is None:
        return FetchItem(name, origin=origin)
    return FetchItem(name, 0, target.parent, PurePosixPath(target.name), origin)


def _options(content_id: ContentId | None, overwrite: bool, wait: timedelta | None) -> "FetchOptions":
    from minga.fetching import FetchOptions

    return FetchOptions(content_id, overwrite, wait)


async def _iterated(
    items: "Sequence[FetchItem] | AsyncIterable[FetchItem]",
) -> "AsyncGenerator[FetchItem, None]":
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _check_replicas(replicas: int) -> None:
    if not 1 <= replicas <= MAX_REPLICAS:
        raise InvalidArgumentError(f"invalid number of replicas {replicas} (1 to {MAX_REPLICAS})")
