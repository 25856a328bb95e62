"""A gateway over contents in memory, behind a real port."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry

from minga_core.attributes import FileAttributes
from minga_core.errors import FileNotFoundInDirectoryError, MingaError
from minga_core.ids import ContentId, digest
from minga_core.names import Name
from minga_engine.transfer.locating import Located
from minga_engine.transfer.stream import Streams
from minga_engine.wire.locator import ListedFile
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.app import Gateway, GatewayApp
from minga_peer.gateway.catalogue import Catalogue, Folder
from minga_peer.gateway.files import Reading
from minga_peer.gateway.guard import Guard, own_names
from minga_peer.gateway.putting import Changing
from minga_peer.gateway.server import door
from minga_peer.gateway.transfers import Transfer, Transfers
from minga_runtime.quotas import Quota
from minga_runtime.sockets import listen_tcp
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.refusals import Refusals
from minga_runtime.trust.rights import NONE, Prefixes, Rights

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
        self.read_bytes = 0
        self.stuck = False
        self.failure: MingaError | None = None
        self.good_bytes = 0

    @asynccontextmanager
    async def open(self, file: Located, **options: object) -> AsyncIterator[MemoryReader]:
        self.open_count += 1
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

    async def entries(self, folder: str, read: Prefixes) -> AsyncGenerator[ListedFile | Folder, None]:
        last = ""
        for name, file in sorted(self.files.items()):
            if not name.startswith(folder) or name not in read:
                continue
            below, slash, _ = name[len(folder) :].partition("/")
            if not slash:
                yield ListedFile(name, file.content_id, file.size_bytes, file.published_ns, 1, False)
            elif last != (last := f"{folder}{below}/"):
                yield Folder(last)


def located(name: str, data: bytes) -> Located:
    """A file's version."""
    content_id = ContentId(digest(data))
    return Located(Name(name), content_id, len(data), PUBLISHED_NS, [], FileAttributes(None, False))


class Served:
    """A gateway that runs. url: of its port."""

    def __init__(self, url: str, streams: MemoryStreams, registry: CollectorRegistry) -> None:
        self.url = url
        self.streams = streams
        self.registry = registry
        self.transfers: list[Transfer] = []


@asynccontextmanager
async def served(
    files: dict[str, bytes], callers: Callers | None = None, default: Rights = NONE
) -> AsyncIterator[Served]:
    """A gateway to those files."""
    streams = MemoryStreams({located(name, data).content_id: data for name, data in files.items()})
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    catalogue = cast(Catalogue, MemoryCatalogue(files))
    reading = Reading(catalogue, cast(Streams, streams), metrics)
    audit, nothing = Audit(None, "peer", registry), cast(Any, None)
    changing = Changing(catalogue, nothing, nothing, Path("/nowhere"), lambda: 0, nothing, metrics, audit)
    transfers = Transfers(lambda: gateway.transfers)
    parts = Gateway(reading, changing, transfers, metrics, Refusals(registry, "peer", audit), lambda: True)
    app = GatewayApp(parts, Guard(own_names(), LOCATOR, callers, default))
    # The tests are one host with many connections.
    app._quota = Quota("requests", 1000, each=1000)
    listener = listen_tcp("127.0.0.1:0")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    gateway = Served(url, streams, registry)
    async with door(app, listener, timedelta(seconds=1)):
        yield gateway
