"""The client for asyncio: look-ups ask the locator, transfers go through the daemon of this machine or without it."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any

from minga.forking import before_grpc, grpc_is_lost
from minga.origin_urls import OriginUrl, parse_origin
from minga.settings import ClientSettings, load_settings
from minga_core.errors import DaemonUnavailableError, InvalidArgumentError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name, parse_prefix
from minga_core.references import parse_reference
from minga_engine.settings import read_socket

if TYPE_CHECKING:
    from minga.catalogue import Change, FileStat, Folder
    from minga.control import CachedFile, ControlClient, DaemonStatus
    from minga.fetching import Fetcher, FetchItem, FetchOptions, Outcome
    from minga.putting import PutItem
    from minga.reading import AsyncFile, Source
    from minga.standalone import Engine
    from minga.writing import AsyncWriter, Upload
    from minga_core.references import Reference
    from minga_engine.progress import Progress, PutProgress, PutResult, VerifyProgress
    from minga_engine.transfer.preheated import Preheated
    from minga_engine.wire.locator import LocatorClient
    from minga_engine.wire.locator_answers import DirectoryFigures, FileVersion, ListedFile, ListedPeer
    from minga_runtime.trust.credentials import Credentials
    from minga_runtime.trust.own_grant import OwnGrant

WATCH_INTERVAL = timedelta(seconds=2)
RETRY_BUDGET = timedelta(seconds=3)
"""How long look-ups retry while a locator restarts."""
PREHEAT_LIMIT = timedelta(hours=1)
MAX_REPLICAS = 20
"""Peers that one placement names at most (contract: docs/rest.md)."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """All that the directory knows of a file.

    >>> client.info("models/model.bin").names
    ('models/model.bin',)
    """

    names: tuple[Name, ...]
    """One for a name; every name of a content that was looked up by its id."""
    versions: "tuple[FileVersion, ...]"
    """First what `get` fetches: the newest version that somebody has completely."""
    newer_incomplete: bool = False
    """A newer version is not complete anywhere: its upload is under way or was broken off, or its holders are gone."""


def is_utf8(text: str) -> bool:
    """Whether `text` can be sent: arguments that are not UTF-8 have lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def ignore(*_: Any) -> None:
    """A callback that does nothing."""


class AsyncClient:
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
        self.settings = settings or load_settings(locator=locator, control=control)
        self._retry_budget = retry_budget
        self._standalone = standalone
        self._begin()

    def _begin(self) -> None:
        self._uses_daemon = False if self._standalone else None
        self.other_network = ""
        """Locator of this machine's daemon, once `uses_daemon` found that it is not the one given; otherwise empty."""
        self._credentials: Credentials | None = None
        self._grant: OwnGrant | None = None
        self._directory: LocatorClient | None = None
        self._control: ControlClient | None = None
        self._engine: Engine | None = None
        self._files: set[AsyncFile] = set()
        self._stack = AsyncExitStack()

    def __getstate__(self) -> tuple[ClientSettings, bool, timedelta]:
        return self.settings, self._standalone, self._retry_budget

    def __setstate__(self, state: tuple[ClientSettings, bool, timedelta]) -> None:
        self.settings, self._standalone, self._retry_budget = state
        self._begin()

    def copy(self) -> "AsyncClient":
        """A client with the same settings, and no connection yet; for another event loop.

        >>> client.copy().settings == client.settings
        True
        """
        return AsyncClient(self.settings, standalone=self._standalone, retry_budget=self._retry_budget)

    async def __aenter__(self) -> "AsyncClient":
        await self._keep_credentials()
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
        self._directory = self._control = self._engine = None
        await self._stack.aclose()

    # Look-ups.

    def ls(self, prefix: str = "") -> "AsyncGenerator[ListedFile, None]":
        """List the names that begin with `prefix`, in byte order, page by page. Raises InvalidNameError.

        >>> [file.name async for file in client.ls("models/")]
        ['models/model.bin', 'models/small/model.bin']
        """
        return self._locator().iter_files(prefix=parse_prefix(prefix))

    def find(self, pattern: str) -> "AsyncGenerator[ListedFile, None]":
        """List the names that contain `pattern`, or match it when it is a glob: `*.iso`, `data/*/train?.bin`.

        Raises InvalidArgumentError for an empty pattern, and for one that is not valid UTF-8.

        >>> [file.name async for file in client.find("*/small/*")]
        ['models/small/model.bin']
        """
        if not pattern:
            raise InvalidArgumentError("an empty pattern finds nothing", hint="`minga ls` lists everything")
        if not is_utf8(pattern):
            raise InvalidArgumentError(f"{pattern!a} is not a pattern: it is not valid UTF-8")
        return self._locator().iter_files(query=pattern)

    async def info(self, name: str | ContentId) -> FileInfo:
        """Look up the versions of a name, one of them (`NAME@b3:…`), or a content by its id (`b3:…`), with at most 20
        holders of each.

        Raises FileNotFoundInDirectoryError, InvalidNameError.

        >>> (await client.info("models/model.bin")).names
        ('models/model.bin',)
        """
        wanted = parse_reference(name)
        if wanted.name is None:
            content = await self._locator().find_content(wanted.content_id)
            return FileInfo(content.names, (content.version,))
        answer = await self._locator().find_file(wanted.name, wanted.content_id)
        return FileInfo((answer.name,), answer.versions, answer.newer_incomplete)

    async def stat(self, name: str | ContentId) -> "FileStat":
        """Look up one version of a file: of `NAME` the one that `get` fetches, or `NAME@b3:…`, or `b3:…`.

        Raises FileNotFoundInDirectoryError, also for a folder; InvalidNameError, InvalidArgumentError.

        >>> (await client.stat("models/model.bin")).size_bytes
        14
        """
        from minga import catalogue

        return await catalogue.stat(self._locator(), parse_reference(name))

    def walk(self, folder: str = "") -> "AsyncGenerator[Folder, None]":
        """Go through the folders below `folder` from the top down, as `os.walk`; each with what is directly in it.

        A folder whose name is removed from `folders` meanwhile is left out. The listing of all of it is read first, and
        kept in memory. A folder without names below it does not exist: nothing comes. Raises InvalidNameError.

        >>> [(folder.path, folder.folders) async for folder in client.walk("models")]
        [('models', ['small']), ('models/small', [])]
        """
        from minga import catalogue

        return catalogue.walk(self._locator(), folder)

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
        return catalogue.watch(self._locator(), parse_prefix(prefix), interval, existing=existing)

    def peers(self) -> "AsyncGenerator[ListedPeer, None]":
        """List the living peers in order of their ids, page by page.

        >>> [peer.peer_id async for peer in client.peers()]
        ['peer-1', 'peer-2', 'peer-3']
        """
        return self._locator().iter_peers()

    async def stats(self) -> "DirectoryFigures":
        """Look up the directory's totals: living peers, names, bytes of room in all and free.

        >>> (await client.stats()).live_peers
        3
        """
        return await self._locator().stats()

    async def clock_offset(self) -> timedelta | None:
        """How far this machine's clock is ahead of the locator's, to about a second; None when it does not say.

        >>> abs(await client.clock_offset()) < timedelta(minutes=1)
        True
        """
        return await self._locator().clock_offset()

    def credentials_end(self) -> float | None:
        """When this client's certificate ends, as Unix time; None in an open network. Raises SettingsError.

        >>> client.credentials_end() is None
        True
        """
        credentials = self._own_credentials()
        return None if credentials is None else credentials.expires()

    def grant_end(self) -> float | None:
        """When this client's grant ends, as Unix time; None without one, or when it does not say. Raises
        SettingsError.

        >>> client.grant_end() is None
        True
        """
        grant = self._own_grant()
        return None if grant is None else grant.expires

    # The daemon of this machine.

    async def available(self) -> bool:
        """Whether a daemon runs on this machine. Within five seconds: one that hangs counts as none.

        >>> await client.available()
        True
        """
        return await self._daemon().available()

    async def status(self) -> "DaemonStatus":
        """What the daemon of this machine is, holds and does. Raises DaemonUnavailableError.

        >>> (await client.status()).peer_id
        'peer-2'
        """
        return await self._daemon().status()

    async def rm(self, name: str) -> None:
        """Delete a file from this machine's shared folder; other holders keep theirs.

        Raises DaemonUnavailableError, FileNotFoundInDirectoryError, StorageError.

        >>> done = await client.get("models/model.bin")
        >>> await client.rm("models/model.bin")
        """
        await self._daemon().remove(parse_name(name))

    async def cached(self) -> "tuple[list[CachedFile], int]":
        """What the daemon of this machine has of files of origins, the last used first; and how many bytes of them it
        keeps in all. Raises DaemonUnavailableError.

        >>> files, kept_bytes = await client.cached()
        >>> files
        []
        """
        return await self._daemon().cached()

    async def pin(self, name: str, *, pinned: bool = True) -> None:
        """Have the daemon keep a file of an origin whatever its limit, or no more.

        Raises DaemonUnavailableError, FileNotFoundInDirectoryError.

        >>> for file in (await client.cached())[0]:
        ...     await client.pin(file.name)
        """
        await self._daemon().pin(parse_name(name), pinned=pinned)

    def verify(self, prefix: str = "") -> "AsyncGenerator[VerifyProgress, None]":
        """Have the daemon read the files of its shared folder whose names begin so, and compare every byte with what
        was hashed; progress at least once a second, with the files that are not what they should be.

        Those are not shared any more. Raises DaemonUnavailableError, AlreadyRunningError, InvalidNameError.

        >>> [progress.bad_files async for progress in client.verify("models/")][-1]
        ()
        """
        return self._daemon().verify(parse_prefix(prefix))

    # Transfers.

    async def uses_daemon(self) -> bool:
        """Whether `get` goes through the daemon: asked once, when first needed.

        False for a standalone client, and when a locator was given that is not the daemon's: see `other_network`.

        >>> await client.uses_daemon()
        True
        """
        if self._uses_daemon is None:
            found = await self._daemon().answer()
            # A locator that nobody chose is a default, and the daemon's own counts.
            if found is not None and "locator" in self.settings.model_fields_set:
                same = found.locator.rstrip("/") == self.settings.locator.rstrip("/")
                self.other_network = "" if same else found.locator
            self._uses_daemon = found is not None and not self.other_network
        return self._uses_daemon

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
        file = AsyncFile(await self._source(wanted, limit), limit, self._files.discard)
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
        return await (await self._fetcher(options)).fetch(item, on_progress)

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

        fetcher = await self._fetcher(_options(content_id, overwrite, wait))
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
        return await self._own_engine().put(source, checked, replicas, on_progress, overwrite=overwrite)

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
        engine = self._own_engine()
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
        return await put_all(self._own_engine(), items, replicas, on_progress, on_end, overwrite=overwrite)

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
        engine = self._own_engine()
        return await Preheater(self._locator(), engine.connections, engine.clock).preheat(request, on_progress)

    # Parts, made when first needed: a look-up needs neither gRPC nor the engine.

    async def _fetcher(self, options: "FetchOptions") -> "Fetcher":
        """The way to fetch. The only place that chooses between the daemon and this process."""
        if await self.uses_daemon():
            from minga.daemon_fetcher import DaemonFetcher

            return DaemonFetcher(self._daemon(), options)
        from minga.standalone import StandaloneFetcher

        return StandaloneFetcher(self._own_engine(), options)

    async def _source(self, wanted: "Reference", wait: timedelta | None) -> "Source":
        from minga.sources import DaemonSource, OwnSource

        if await self._reads_by_daemon():
            return await DaemonSource.open(read_socket(self.settings.control), wanted, wait)
        engine = self._own_engine()
        return await OwnSource.open(engine.streams, await engine.locate(wanted), wait)

    async def _reads_by_daemon(self) -> bool:
        """As `uses_daemon`; in a forked child, where gRPC may not be asked, whether the socket for it is there."""
        if self._uses_daemon is None and grpc_is_lost():
            return read_socket(self.settings.control).is_socket()
        return await self.uses_daemon()

    def _locator(self) -> "LocatorClient":
        if self._directory is None:
            from minga_engine.wire.locator import LocatorClient

            self._directory = LocatorClient(
                self.settings.locator,
                retry_budget=self._retry_budget,
                credentials=self._own_credentials(),
                grant=self._own_grant(),
            )
            self._stack.push_async_exit(self._directory)
        return self._directory

    def _own_credentials(self) -> "Credentials | None":
        """Raises SettingsError."""
        if self._credentials is None and self.settings.tls is not None:
            from minga_runtime.trust.credentials import Credentials
            from minga_runtime.trust.members import USERS

            self._credentials = Credentials(self.settings.tls, USERS, both=self.settings.both)
        return self._credentials

    def _own_grant(self) -> "OwnGrant | None":
        """Raises SettingsError."""
        if self._grant is None and self.settings.grant is not None:
            from minga_runtime.trust.own_grant import OwnGrant

            self._grant = OwnGrant(self.settings.grant)
        return self._grant

    async def _keep_credentials(self) -> None:
        """Renew them now when that is due, and then as long as this client is used. Raises MingaError when they have
        ended."""
        if self.settings.credentials is None or (own := self._own_credentials()) is None:
            return
        from minga_runtime.trust.renewal import renew_if_due, renewing

        await renew_if_due(self.settings.credentials, own)
        await self._stack.enter_async_context(renewing(self.settings.credentials, own, at_once=False))

    def _daemon(self) -> "ControlClient":
        before_grpc()
        if self._control is None:
            from minga.control import ControlClient

            self._control = ControlClient(self.settings.control)
            self._stack.push_async_exit(self._control)
        return self._control

    def _own_engine(self) -> "Engine":
        before_grpc()
        if self._engine is None:
            from minga.standalone import Engine

            self._engine = Engine(self._locator(), self.settings, self._own_credentials(), self._own_grant())
            self._stack.push_async_callback(self._engine.aclose)
        return self._engine


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
