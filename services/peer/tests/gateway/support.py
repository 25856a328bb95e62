"""A gateway over contents in memory, behind a real port."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry

from minga_core.attributes import FileAttributes
from minga_core.clock import Clock, SystemClock
from minga_core.errors import FileNotFoundInDirectoryError, MingaError
from minga_core.ids import ContentId, PeerId, digest
from minga_core.names import Name
from minga_engine.parts.disk import DiskPool
from minga_engine.progress import PutResult
from minga_engine.transfer.locating import Located
from minga_engine.transfer.put_request import PutRequest
from minga_engine.transfer.stream import Streams
from minga_engine.transfer.upload import Uploader
from minga_engine.wire.folders import SubFolder
from minga_engine.wire.locator_answers import ListedFile
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.app import Gateway, GatewayApp, Handler, Mirror
from minga_peer.gateway.catalogue import Catalogue
from minga_peer.gateway.files import Reading
from minga_peer.gateway.guard import Guard
from minga_peer.gateway.kept_uploads import KeptUploads
from minga_peer.gateway.putting import Changing
from minga_peer.gateway.server import door
from minga_peer.gateway.spool import Spool
from minga_peer.gateway.transfers import Transfer, Transfers
from minga_peer.gateway.uploads import Uploads
from minga_runtime.quotas import DailyQuota, Quota
from minga_runtime.sockets import listen_tcp
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.refusals import Refusals
from minga_runtime.trust.rights import NONE, Prefixes, Rights
from minga_runtime.web.hosts import own_names

PUBLISHED_NS = 1_763_871_526_123_456_789
LOCATOR = "http://locator.example:50052"


class MemoryReader:
    """Implements Reader; waits while `stuck`, and raises `failure` beyond `good_bytes`."""

    local = False

    def __init__(self, streams: "MemoryStreams", file: Located) -> None:
        self.content_id, self.size_bytes = file.content_id, file.size_bytes
        self._streams = streams

    async def read(self, offset: int, length: int) -> bytes:
        streams = self._streams
        # As threads that read do.
        await asyncio.sleep(0)
        if streams.stuck:
            await asyncio.Event().wait()
        if streams.failure is not None and offset >= streams.good_bytes:
            raise streams.failure
        streams.read_bytes += length
        return streams.contents[self.content_id][offset : offset + length]


class MemoryStreams:
    """Opens contents of memory."""

    def __init__(self, contents: dict[ContentId, bytes]) -> None:
        self.contents = contents
        self.open_count = 0
        self.options: dict[str, object] = {}
        """Of the reader that was opened last."""
        self.read_bytes = 0
        self.stuck = False
        self.failure: MingaError | None = None
        self.good_bytes = 0

    @asynccontextmanager
    async def open(self, file: Located, **options: object) -> AsyncIterator[MemoryReader]:
        self.open_count += 1
        self.options = options
        try:
            yield MemoryReader(self, file)
        finally:
            self.open_count -= 1


class MemoryCatalogue:
    """As Catalogue."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = {Name(name): located(name, data) for name, data in files.items()}

    async def file(self, name: Name, content_id: ContentId | None) -> Located:
        found = self.files.get(name)
        if found is None or content_id not in (None, found.content_id):
            raise FileNotFoundInDirectoryError(f"nobody shares {name}")
        return found

    async def content(self, content_id: ContentId) -> Located:
        for file in self.files.values():
            if file.content_id == content_id:
                return file
        raise FileNotFoundInDirectoryError("nobody has it")

    async def is_folder(self, name: str) -> bool:
        return any(each.startswith(f"{name}/") for each in self.files)

    async def entries(self, folder: str, read: Prefixes) -> AsyncGenerator[ListedFile | SubFolder, None]:
        last = ""
        for name, file in sorted(self.files.items()):
            if not name.startswith(folder) or name not in read:
                continue
            below, slash, _ = name[len(folder) :].partition("/")
            if not slash:
                yield ListedFile(name, file.content_id, file.size_bytes, file.published_ns, 1, False)
            elif last != (last := f"{folder}{below}/"):
                yield SubFolder(last)


class MemoryUploader:
    """As Uploader: what is put is in the catalogue. Raises `failure`."""

    def __init__(self, catalogue: MemoryCatalogue, streams: MemoryStreams) -> None:
        self._catalogue = catalogue
        self._streams = streams
        self.failure: MingaError | None = None
        self.published: dict[Name, bytes] = {}
        self.replicas = 0

    async def put(self, request: PutRequest) -> PutResult:
        if self.failure is not None:
            raise self.failure
        name, content_id, self.replicas = request.name, request.file.content_id, request.replicas
        self.published[name] = self._streams.contents[content_id] = data = request.file.path.read_bytes()
        self._catalogue.files[name] = located(name, data, content_id)
        return PutResult(name, content_id, len(data), (PeerId("peer-1"),), already_there=False)


def located(name: str, data: bytes, content_id: ContentId | None = None) -> Located:
    """A file's version."""
    content_id = content_id or ContentId(digest(data))
    return Located(Name(name), content_id, len(data), PUBLISHED_NS, [], FileAttributes(None, False))


class Served:
    """A gateway. url: of its port, once it runs. free_bytes: what uploads may fill."""

    def __init__(
        self,
        files: dict[str, bytes],
        callers: Callers | None = None,
        default: Rights = NONE,
        *,
        uploads: Path = Path("/nowhere"),
        daily_bytes: int | None = None,
        clock: Clock | None = None,
        locator: str = LOCATOR,
        mirrors: Mapping[str, Mirror] | None = None,
        readers: Mapping[str, Handler] | None = None,
        loopback: bool = True,
        max_requests: int = 1000,
    ) -> None:
        """files: what can be read. uploads: where bodies are kept. daily_bytes: the quota of those. locator: whose
        pages it answers. loopback: whether it takes its port to be there."""
        self.url = ""
        self.transfers: list[Transfer] = []
        self.free_bytes = 1 << 30
        self.registry, self.pool = CollectorRegistry(), DiskPool(2)
        metrics, audit = GatewayMetrics(self.registry), Audit(None, "peer", self.registry)
        self.catalogue = MemoryCatalogue(files)
        self.streams = MemoryStreams({located(name, data).content_id: data for name, data in files.items()})
        self.uploader = MemoryUploader(self.catalogue, self.streams)
        quota = DailyQuota("uploads", daily_bytes, "MINGA_UPLOAD_QUOTA")
        spool = Spool(uploads, lambda: self.free_bytes, self.pool, metrics, quota)
        catalogue = cast(Catalogue, self.catalogue)
        changing = Changing(catalogue, cast(Uploader, self.uploader), cast(Any, None), spool, audit)
        self.kept = KeptUploads(uploads, self.pool, clock or SystemClock())
        parts = Gateway(
            reading=Reading(catalogue, cast(Streams, self.streams), metrics),
            changing=changing,
            uploads=Uploads(changing, self.kept),
            transfers=Transfers(lambda: self.transfers),
            metrics=metrics,
            refusals=Refusals(self.registry, "peer", audit),
            ready=lambda: True,
            readers=readers or {},
            mirrors=mirrors or {},
        )
        self.app = GatewayApp(parts, Guard(own_names(), locator, callers, default, loopback=loopback))
        # The tests are one host with many connections.
        self.app._quota = Quota("requests", max_requests, each=max_requests)


@asynccontextmanager
async def served(files: dict[str, bytes], *arguments: Any, **options: Any) -> AsyncIterator[Served]:
    """A gateway that runs; see Served."""
    gateway = Served(files, *arguments, **options)
    await gateway.kept.load()
    listener = listen_tcp("127.0.0.1:0")
    gateway.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with door(gateway.app, listener, timedelta(seconds=1)):
            yield gateway
    finally:
        gateway.pool.close()
