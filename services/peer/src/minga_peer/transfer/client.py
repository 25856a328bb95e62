"""What a command can do without a daemon: download to any path, and upload."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from minga_core.clock import Clock, SystemClock
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_peer.chunkstore.disk import DiskPool
from minga_peer.chunkstore.hasher import hash_file
from minga_peer.chunkstore.parts import PartTarget, open_part
from minga_peer.chunkstore.ports import PartFile
from minga_peer.clients.locator import LocatorClient
from minga_peer.clients.peer import PeerConnections
from minga_peer.settings import ClientSettings
from minga_peer.transfer.download import Downloader, DownloadRequest
from minga_peer.transfer.limits import Limits
from minga_peer.transfer.locating import Directory
from minga_peer.transfer.progress import Progress, PutPhase, PutProgress, PutResult
from minga_peer.transfer.upload import HashedFile, PutRequest, Uploader

CLIENT_THREADS = 4
"""Threads of a command for hashing and writing."""


class TransferClient:
    """Downloads and uploads of one command; an async context manager. Any number of them at once."""

    def __init__(self, locator: LocatorClient, settings: ClientSettings, clock: Clock | None = None) -> None:
        self._locator = locator
        self._settings = settings
        self._clock = clock or SystemClock()
        self._pool = DiskPool(CLIENT_THREADS)
        self._connections = PeerConnections()
        self._directory = Directory(locator)
        self._limits = Limits.of(settings.limit_up, settings.limit_down, self._clock)
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
        downloader = Downloader(destination, self._directory, self._connections, self._clock, down=self._limits.down)
        request = DownloadRequest(name, content_id, overwrite=overwrite, source_wait=source_wait)
        return (await downloader.download(request, on_progress)).progress

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
