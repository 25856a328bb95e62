"""Fetching without a daemon, straight to the target, and uploading. Nothing is served from here."""

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minga.fetching import (
    ENDING_LIMIT_SECONDS,
    FetchItem,
    FetchOptions,
    OnItemProgress,
    OnProgress,
    after_earlier,
    make_folders_in_thread,
    progress_of,
    with_folders,
)
from minga.settings import ClientSettings
from minga_core.attributes import FileAttributes
from minga_core.clock import SystemClock
from minga_core.errors import DaemonUnavailableError, InvalidArgumentError, NameTakenError, NoSourcesError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.references import Reference
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_engine.parts.files import PARTS_FOLDER, Fingerprint, open_folder
from minga_engine.parts.hashing import hash_file
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PartFiles, PartTarget
from minga_engine.parts.placing import SmallFile, place_all
from minga_engine.parts.standalone_part import open_part
from minga_engine.parts.temporary_parts import TemporaryParts
from minga_engine.progress import DownloadPhase, Progress, PutPhase, PutProgress, PutResult, SmallDone
from minga_engine.transfer.download import Downloader, DownloadRequest, Finished
from minga_engine.transfer.locating import Directory, Located, ManifestFetcher
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.put_file import HashedFile, RemoteFile
from minga_engine.transfer.put_request import PutRequest
from minga_engine.transfer.small_downloads import BATCHES_AT_ONCE, SmallDownloads
from minga_engine.transfer.stream import Streams
from minga_engine.transfer.upload import Uploader
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.transport import PeerTransport
from minga_runtime import tracing
from minga_runtime.rate_limit import Limits
from minga_runtime.tasks import all_of
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.own_grant import OwnGrant

THREADS = 4
"""Threads of a client for hashing and writing."""
OTHER_PROCESS = "another process downloads this file already; waiting for it"


class Engine:
    """What transfers of one client share: connections to peers, disk threads, limits. `aclose` it."""

    def __init__(
        self,
        locator: LocatorClient,
        settings: ClientSettings,
        credentials: Credentials | None = None,
        grant: OwnGrant | None = None,
    ) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.pool = DiskPool(THREADS)
        self.limits = Limits.of(settings.limit_up, settings.limit_down, self.clock)
        self.connections = PeerConnections(self.limits.down, credentials=credentials, grant=grant)
        self.transport = PeerTransport(self.connections)
        self.options = TransferOptions(down=self.limits.down)
        self.directory = Directory(locator)
        self._read_parts = TemporaryParts(self.pool)
        self._streams: Streams | None = None
        self._uploader = Uploader(locator, self.connections, self.clock, self.limits.up)

    async def aclose(self) -> None:
        """End what is read, close the connections and end the threads."""
        if self._streams is not None:
            await self._streams.aclose()
        await self._read_parts.aclose()
        await self.connections.aclose()
        self.pool.close()

    @property
    def streams(self) -> Streams:
        """For reading while it arrives; what was read is deleted soon after its last reader has left."""
        if self._streams is None:
            downloader = Downloader(self._read_parts, self.directory, self.transport, self.clock, self.options)
            wait = self.settings.source_wait_or_forever
            self._streams = Streams(
                self._read_parts, downloader.download, self.options.demands, self.clock, wait=wait, keep=None
            )
        return self._streams

    async def locate(self, wanted: Reference) -> Located:
        """Look a version up. Raises FileNotFoundInDirectoryError."""
        if wanted.name is None:
            return await self.directory.locate_content(wanted.content_id)
        return await self.directory.locate(wanted.name, wanted.content_id)

    async def put(
        self, path: Path, name: Name, replicas: int, on_progress: Callable[[PutProgress], None], *, overwrite: bool
    ) -> PutResult:
        """Hash and upload a file; returns once `replicas` peers hold it and the locator names them."""
        on_progress(PutProgress(PutPhase.HASHING, replicas_wanted=replicas))
        with tracing.span("hash"):
            attributes = await asyncio.to_thread(_attributes_of, path)
            manifest = await hash_file(path)
        file = HashedFile(path, manifest, manifest.content_id, attributes)
        return await self._uploader.put(PutRequest(file, name, replicas, overwrite, on_progress))

    async def copy(
        self,
        source: Located,
        name: Name,
        replicas: int,
        on_progress: Callable[[PutProgress], None],
        *,
        overwrite: bool,
    ) -> PutResult:
        """Give a content another name; its holders copy it, and bytes come through here only where none of them can.

        Raises NoSourcesError when none of them answers, and what `put` raises.
        """
        manifest, _ = await ManifestFetcher(self.transport).fetch(source.content_id, source.sources)
        if manifest is None:
            raise NoSourcesError(f"no source of {source.name} was reachable")
        elsewhere = [SourceAddress(each.peer_id, each.address) for each in source.sources if each.complete]
        async with self.streams.open(source) as reader:
            file = RemoteFile(manifest, source.content_id, source.attributes, reader)
            return await self._uploader.put(PutRequest(file, name, replicas, overwrite, on_progress, elsewhere))


class StandaloneFetcher:
    """Downloads straight to the targets. Implements Fetcher. Files of origins are a daemon's to fetch."""

    def __init__(self, engine: Engine, options: FetchOptions) -> None:
        self._engine = engine
        self._options = options

    async def fetch_small(self, batches: AsyncIterator[list[FetchItem]], on_done: OnItemProgress) -> None:
        """Fetch small files, each name to the first of its targets in a batch. Replaces nothing."""

        async def work() -> None:
            async for batch in batches:
                await self._fetch_batch(batch, on_done)

        await all_of((work() for _ in range(BATCHES_AT_ONCE)), "small-files")

    async def _fetch_batch(self, items: Sequence[FetchItem], on_done: OnItemProgress) -> None:
        wanted: dict[Name, FetchItem] = {}
        for item in await asyncio.to_thread(with_folders, items):
            wanted.setdefault(item.name, item)

        engine = self._engine
        paths = _Paths({name: item.target for name, item in wanted.items() if item.target}, engine.pool)

        def report(done: list[SmallDone]) -> None:
            for one in done:
                on_done(wanted[one.name], progress_of(one, paths.targets[one.name], DownloadPhase.DONE))

        small = SmallDownloads(paths, engine.directory, engine.transport, engine.options)
        await small.download(list(paths.targets), report)

    async def fetch(self, item: FetchItem, on_progress: OnProgress) -> Progress:
        """Download one file to its target; resumes an earlier attempt, leaves a target that is whole alone.

        Waits for another process that downloads the same to the same folder, as long as for a source.
        """
        if item.origin is not None:
            raise DaemonUnavailableError(
                f"{item.origin.shown} is for the peer on this machine to fetch, and none runs, or it is not used",
                hint="start one with `minga peer --share DIR`",
            )
        if item.target is None:
            raise InvalidArgumentError("without a peer on this machine a file needs a path to go to")
        await make_folders_in_thread(item)
        engine, options = self._engine, self._options
        wait = engine.settings.source_wait_or_forever if options.wait is None else options.wait or None
        request = DownloadRequest(item.name, options.content_id, overwrite=options.overwrite, source_wait=wait)
        paths = _Paths({item.name: item.target}, engine.pool)
        downloader = Downloader(paths, engine.directory, engine.transport, engine.clock, engine.options)
        limit_seconds = wait.total_seconds() if wait is not None else math.inf
        finished = await after_earlier(
            lambda: _download(downloader, request, paths, on_progress),
            max(limit_seconds, ENDING_LIMIT_SECONDS),
            lambda: on_progress(Progress(DownloadPhase.WAITING, message=OTHER_PROCESS)),
        )
        return finished.progress


async def _download(
    downloader: Downloader, request: DownloadRequest, paths: "_Paths", on_progress: OnProgress
) -> Finished:
    target = paths.path_of(request.name)
    was_there = await paths.pool.run(os.path.lexists, target)
    try:
        return await downloader.download(request, on_progress)
    except NameTakenError:
        if was_there:
            raise
    # Another process has put a file there meanwhile, which may be this very content.
    return await downloader.download(request, on_progress)


@dataclass(frozen=True, slots=True)
class _Paths:
    """Paths outside of any shared folder, by name. Implements Destination and SmallDestination."""

    targets: Mapping[Name, Path]
    pool: DiskPool

    def path_of(self, name: Name) -> Path:
        """Path of the finished file."""
        return self.targets[name]

    async def present(self, name: Name, content_id: ContentId) -> Path | None:
        """The target when it has that content already. Hashes it: nothing is known of a file outside the share."""
        target = self.targets[name]
        if not target.is_file() or (await hash_file(target)).content_id != content_id:
            return None
        return target

    async def begin_part(self, target: PartTarget, *, overwrite: bool, reading: bool) -> Part:
        """Open the part of that file, an earlier attempt's when there is one."""
        return await open_part(self.targets[target.name], target, self.pool, overwrite=overwrite)

    async def sort(self, located: Sequence[Located]) -> tuple[list[SmallDone], list[Located]]:
        """Those with a free target. What is there already would have to be hashed: `present` does that."""
        return [], await self.pool.run(self._free, located)

    def _free(self, located: Sequence[Located]) -> list[Located]:
        return [one for one in located if not os.path.lexists(self.targets[one.name])]

    async def store(self, files: Sequence[SmallFile]) -> list[str | None]:
        """Write files to their targets; None for each that was not written."""
        return await self.pool.run(self._place, files)

    def _place(self, files: Sequence[SmallFile]) -> list[str | None]:
        # An earlier attempt is resumed by `fetch`, which also removes its part.
        new = {file.name: self.targets[file.name] for file in files if not self._has_part(file)}
        try:
            found = place_all(
                [(new[file.name].parent, new[file.name].name, file) for file in files if file.name in new], open_folder
            )
        except OSError:
            return [None] * len(files)
        placed = {name for name, fingerprint in zip(new, found, strict=True) if fingerprint is not None}
        return [str(new[file.name]) if file.name in placed else None for file in files]

    def _has_part(self, file: SmallFile) -> bool:
        parts = self.targets[file.name].parent / PARTS_FOLDER
        return parts.exists() and PartFiles(parts, _part_of(file)).data_path.exists()


def _attributes_of(path: Path) -> FileAttributes:
    with storage_errors(f"cannot read {path}"):
        return Fingerprint.of(path.stat()).attributes


def _part_of(file: SmallFile) -> PartTarget:
    return PartTarget(file.name, file.content.manifest, file.content.content_id, file.published_ns)
