"""What a command can do without a daemon: download to any path, and upload."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from minga.settings import ClientSettings
from minga_core.clock import Clock, SystemClock
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_engine.parts.content_store import PartFile
from minga_engine.parts.disk import DiskPool, uninterrupted
from minga_engine.parts.files import PARTS_FOLDER, Stamp, fsync_folder
from minga_engine.parts.hashing import hash_file
from minga_engine.parts.part import PartTarget, open_part
from minga_engine.parts.part_files import PartFiles
from minga_engine.parts.placing import SmallFile, place_all, write_all
from minga_engine.progress import Progress, PutPhase, PutProgress, PutResult, SmallDone
from minga_engine.transfer.download import Downloader, DownloadRequest
from minga_engine.transfer.locating import Directory, Located
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.small_downloads import OnDone, SmallDownloads
from minga_engine.transfer.upload import HashedFile, PutRequest, Uploader
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.transport import PeerTransport
from minga_runtime import tracing
from minga_runtime.rate_limit import Limits

CLIENT_THREADS = 4
"""Threads of a command for hashing and writing."""


class TransferClient:
    """Downloads and uploads of one command; an async context manager. Any number of them at once."""

    def __init__(self, locator: LocatorClient, settings: ClientSettings, clock: Clock | None = None) -> None:
        self._locator = locator
        self._settings = settings
        self._clock = clock or SystemClock()
        self._pool = DiskPool(CLIENT_THREADS)
        self._limits = Limits.of(settings.limit_up, settings.limit_down, self._clock)
        self._connections = PeerConnections(self._limits.down)
        self._transport = PeerTransport(self._connections)
        self._options = TransferOptions(down=self._limits.down)
        self._directory = Directory(locator)
        self._uploader = Uploader(locator, self._connections, self._clock, self._limits.up)

    async def __aenter__(self) -> "TransferClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connections.aclose()
        self._pool.close()

    async def get(
        self,
        name: Name,
        target: Path,
        *,
        content_id: ContentId | None = None,
        overwrite: bool = False,
        source_wait: timedelta | None = None,
        on_progress: Callable[[Progress], None],
    ) -> Progress:
        """Downloads a file to `target` and returns once it is whole and in place; resumes an earlier attempt.

        A target that already has that content is left alone. Raises what `Downloader.download` raises.
        """
        destination = _OnePath(target, self._pool)
        downloader = Downloader(destination, self._directory, self._transport, self._clock, self._options)
        request = DownloadRequest(name, content_id, overwrite=overwrite, source_wait=source_wait)
        return (await downloader.download(request, on_progress)).progress

    async def get_small(self, targets: Mapping[Name, Path], on_done: OnDone) -> None:
        """Downloads small files, each to its target, as far as they go without trouble; `on_done` hears of those that
        are in place. The folders of the targets exist. What is not told of is left to `get`. Replaces nothing."""
        destination = _ManyPaths(targets, self._pool)
        small = SmallDownloads(destination, self._directory, self._transport, self._options)
        await small.download(list(targets), on_done)

    async def put(
        self,
        path: Path,
        name: Name,
        *,
        replicas: int = 1,
        overwrite: bool = False,
        on_progress: Callable[[PutProgress], None],
    ) -> PutResult:
        """Uploads a file and returns once `replicas` peers hold it and the locator names them.

        Raises what `Uploader.put` raises, and StorageError when the file cannot be read.
        """
        on_progress(PutProgress(PutPhase.HASHING, replicas_wanted=replicas))
        with tracing.span("hash"):
            manifest = await hash_file(path)
        file = HashedFile(path, manifest, manifest.content_id)
        published_ns = int(self._clock.wall() * 1e9)
        return await self._uploader.put(PutRequest(file, name, replicas, overwrite, published_ns, on_progress))


@dataclass(frozen=True, slots=True)
class _OnePath:
    """A destination that is one path outside of any shared folder."""

    target: Path
    pool: DiskPool

    async def present(self, name: Name, content_id: ContentId) -> Path | None:
        """See Destination. Hashes the target, since nothing is known of it; only when it is a file."""
        if not self.target.is_file():
            return None
        manifest = await hash_file(self.target)
        return self.target if manifest.content_id == content_id else None

    async def begin_part(self, name: Name, manifest: Manifest, *, published_ns: int, overwrite: bool) -> PartFile:
        """See Destination."""
        target = PartTarget(name, manifest, manifest.content_id, published_ns)
        return await open_part(self.target, target, self.pool, overwrite=overwrite)

    def path_of(self, name: Name) -> Path:
        """See Destination."""
        return self.target


@dataclass(frozen=True, slots=True)
class _ManyPaths:
    """A destination that is many paths outside of any shared folder. Implements SmallDestination."""

    targets: Mapping[Name, Path]
    pool: DiskPool

    async def sort(self, located: Sequence[Located]) -> tuple[list[SmallDone], list[Located]]:
        """See SmallDestination. What is there already is left: it would have to be hashed."""
        return [], await self.pool.run(self._free, located)

    def _free(self, located: Sequence[Located]) -> list[Located]:
        return [one for one in located if not os.path.lexists(self.targets[one.name])]

    async def store(self, files: Sequence[SmallFile]) -> list[Path | None]:
        """See SmallDestination."""
        placed = await uninterrupted(
            place_all(files, lambda file: self.targets[file.name].parent, self._place, self.pool)
        )
        there = {file.name for file, _ in placed}
        return [self.targets[file.name] if file.name in there else None for file in files]

    def _place(self, folder: Path, files: Sequence[SmallFile]) -> list[Stamp | None]:
        parts = folder / PARTS_FOLDER
        if parts.exists() and any(PartFiles(parts, _target_of(file)).data_path.exists() for file in files):
            # An earlier attempt goes on where it ended, and tidies up.
            return [None] * len(files)
        try:
            with fsync_folder(folder) as parent:
                return write_all(parent, [(self.targets[file.name].name, file.content.data) for file in files])
        except OSError:
            return [None] * len(files)


def _target_of(file: SmallFile) -> PartTarget:
    return PartTarget(file.name, file.content.manifest, file.content.content_id, file.published_ns)
