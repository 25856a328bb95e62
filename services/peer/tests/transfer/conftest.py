"""Peers without a directory: a content store and a gRPC server each, in one process, on free ports."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from minga_core.clock import SystemClock
from minga_core.errors import FileNotFoundInDirectoryError, RegistryUnavailableError
from minga_core.ids import ContentId, PeerId, parse_address, parse_peer_id
from minga_core.names import Name
from minga_core.records import PUBLISH, FetchClaim, Fetcher, FileRow, Published
from minga_engine.parts.disk import DiskPool
from minga_engine.swarm.config import SwarmConfig
from minga_engine.swarm.serving_queue import ServingConfig, ServingQueue
from minga_engine.transfer.download import Downloader, DownloadRequest, OnProgress
from minga_engine.transfer.locating import Located
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.small_downloads import SmallDownloads
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.digests import DigestClient
from minga_engine.wire.messages import PEER_SERVICE, SourceAddress
from minga_engine.wire.transport import PeerTransport
from minga_peer.daemon._metrics import PeerMetrics
from minga_peer.daemon.downloads import Downloads
from minga_peer.origins._metrics import OriginMetrics
from minga_peer.origins.allowed import Allowed
from minga_peer.origins.cache import Cache, Limit
from minga_peer.origins.checking import Checked
from minga_peer.origins.means import Means
from minga_peer.origins.origins import Origins
from minga_peer.origins.upstream import Upstream
from minga_peer.serve.http_server import HttpServer
from minga_peer.serve.quotas import Quotas
from minga_peer.serve.receiving import UploadReceiver
from minga_peer.serve.service import PeerService, Storing
from minga_peer.serve.serving import ChunkServing
from minga_peer.serve.small_serving import SmallServing
from minga_peer.share.store import ContentStore, StoreSettings
from minga_protos.peer.v1.peer_pb2_grpc import add_PeerServiceServicer_to_server
from minga_runtime.metrics import RpcMetrics
from minga_runtime.rate_limit import Limits
from minga_runtime.server import GrpcServer
from minga_runtime.sockets import listen_tcp
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.refusals import Refusals

LIMIT_SECONDS = 20.0


async def eventually(holds: Callable[[], bool], what: str, limit_seconds: float = LIMIT_SECONDS) -> None:
    """Returns once `holds`; fails the test after the limit."""
    try:
        async with asyncio.timeout(limit_seconds):
            while not holds():  # noqa: ASYNC110 - the condition belongs to others
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within {limit_seconds} s: {what}")


@dataclass
class FakeDirectory:
    """Who has what, as the test says. Stands for `transfer.locating.Directory`."""

    located: dict[Name, Located] = field(default_factory=dict)
    peers: dict[ContentId, list[SourceAddress]] = field(default_factory=dict)

    async def locate(self, name: Name, content_id: ContentId | None = None) -> Located:
        found = self.located.get(name)
        if found is None:
            raise FileNotFoundInDirectoryError(f"nobody shares {name}")
        return Located(
            name, found.content_id, found.size_bytes, found.published_ns, await self.sources(found.content_id)
        )

    async def locate_newest(self, names: Sequence[Name]) -> list[Located]:
        return [await self.locate(name) for name in names if name in self.located]

    async def sources(self, content_id: ContentId) -> list[SourceAddress]:
        return list(self.peers.get(content_id, []))

    def holds(self, row: FileRow, source: SourceAddress) -> None:
        """A peer has a file."""
        content_id = row.key.content_id
        self.located[row.key.name] = Located(row.key.name, content_id, row.size_bytes, row.published_ns, [])
        self.peers.setdefault(content_id, []).append(source)


@dataclass
class FakeClaims:
    """Who fetches which file of an origin. Stands for the registry; claims do not end by themselves."""

    claims: dict[Name, Fetcher] = field(default_factory=dict)
    away: bool = False

    def claim(self, source: SourceAddress, claim: FetchClaim) -> Fetcher | None:
        if self.away:
            raise RegistryUnavailableError("the registry is away")
        held = self.claims.get(claim.name)
        own = held is not None and (held.peer_id, held.transfer_id) == (source.peer_id, claim.transfer_id)
        if claim.release:
            if own:
                del self.claims[claim.name]
            return None
        if held is None or own or held.transfer_id == claim.instead_of:
            held = Fetcher(source.peer_id, source.address, claim.http_port, claim.transfer_id)
            self.claims[claim.name] = held
        return held


class OriginsOfPeer:
    """What one peer fetches files of origins with, and what it does not need a daemon for. Implements the ports."""

    def __init__(self, peer_id: PeerId, network: "Network", store: ContentStore, source: list[SourceAddress]) -> None:
        self.gone = False
        self.may_announce = asyncio.Event()
        """Cleared: what is in place is announced later."""
        self.may_announce.set()
        self.may_claim = asyncio.Event()
        """Cleared: its claims take long."""
        self.may_claim.set()
        self.claim_count = 0
        """Claims that it has begun to make."""
        self._network = network
        self._store = store
        self._source = source

    def named(self, name: Name) -> Located | None:
        row = self._store.find(name)
        return None if row is None else Located(name, row.key.content_id, row.size_bytes, row.published_ns, [])

    async def claim_fetch(self, claim: FetchClaim) -> Fetcher | None:
        if self.gone:
            raise RegistryUnavailableError("this peer is dead")
        self.claim_count += 1
        await self.may_claim.wait()
        return self._network.claims.claim(self._source[0], claim)

    async def announced(self, name: Name, timeout: timedelta) -> None:
        await self.may_announce.wait()
        row = self._store.find(name)
        if row is not None and not self.gone:
            await publish_all(self._store)
            self._network.directory.holds(row, self._source[0])


FOUND_TIME = 1
"""What the registry answers for files that were found."""
TIMES = count(FOUND_TIME + 1)
"""Its clock."""


@dataclass
class FakeAnnouncer:
    """Publishes and announces every row at once."""

    store: ContentStore

    async def announced(self, row: FileRow, timeout: timedelta) -> int:
        await publish_all(self.store)
        return 1


async def publish_all(store: ContentStore) -> None:
    """Give a time of publication to every file that has none."""
    rows = store.table.unpublished.first(1000)
    times = [next(TIMES) if row.published_ns == PUBLISH else FOUND_TIME for row in rows]
    await store.files.set_published([(row, Published(time)) for row, time in zip(rows, times, strict=True)])


@dataclass
class TestPeer:
    """One peer of a test."""

    __test__ = False

    peer_id: PeerId
    root: Path
    store: ContentStore
    server: GrpcServer
    source: SourceAddress
    downloads: Downloads
    metrics: PeerMetrics
    service: PeerService
    serving: ChunkServing
    series: CollectorRegistry
    """What `metrics` shows."""
    origins: Origins
    http: HttpServer
    registry: OriginsOfPeer

    def metric(self, name: str, **labels: str) -> float:
        """A series' value now."""
        value = self.series.get_sample_value(name, labels)
        assert value is not None, f"no series {name} {labels}"
        return value

    async def die(self) -> None:
        """As after kill -9: nobody is told."""
        self.registry.gone = True
        await self.server.stop(timedelta(0))
        await self.http.aclose()
        await self.origins.aclose()

    async def shares(self, name: str, data: bytes) -> FileRow:
        """Drops a file and waits until it is hashed."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.store.sync.rescan()

        def found() -> FileRow | None:
            row = self.store.find(Name(name))
            return row if row is not None and row.size_bytes == len(data) else None

        await eventually(lambda: found() is not None, f"{name} is hashed")
        await publish_all(self.store)
        row = found()
        assert row is not None
        return row


class Network:
    """Makes peers that know of each other through one fake directory."""

    def __init__(self, tmp_path: Path, stack: AsyncExitStack) -> None:
        self._tmp_path = tmp_path
        self._stack = stack
        self.directory = FakeDirectory()
        self.claims = FakeClaims()
        self.allowed: list[str] = []
        """Prefixes of URLs that peers made from now on fetch from."""
        self.reached: list[str] = []
        """Those that they ask by themselves."""
        self.cache_limit = Limit(share=1.0)
        self.limits = Limits.of(0, 0)
        """Those of peers made from now on."""
        self.config = SwarmConfig(
            stall_seconds=3.0, unknown_rate_deadline_seconds=0.5, find_sources_interval_seconds=0.2
        )

    async def peer(self, peer_id: str, *, serving_slots: int = 64) -> TestPeer:
        return await self._stack.enter_async_context(self._running(peer_id, serving_slots))

    @asynccontextmanager
    async def _running(self, peer_id: str, serving_slots: int) -> AsyncIterator[TestPeer]:
        root = self._tmp_path / peer_id
        clock = SystemClock()
        series = CollectorRegistry()
        metrics = PeerMetrics(series)
        store = await ContentStore.open(StoreSettings(root, settle_seconds=0.05), clock, metrics)
        loop = asyncio.create_task(store.run())
        await store.sync.first_scan_done()
        limits = self.limits
        connections = PeerConnections(limits.down)
        transport = PeerTransport(connections)
        audit = Audit(None, "peer", series)
        refusals = Refusals(series, "peer", audit)
        server = GrpcServer(RpcMetrics(CollectorRegistry(), "peer"), refusals=refusals)
        source: list[SourceAddress] = []
        directory: Any = self.directory
        options = TransferOptions(lambda: source[0], self.config, metrics, limits.down)
        downloader = Downloader(store, directory, transport, clock, options)
        small = SmallDownloads(store.small, directory, transport, TransferOptions(metrics=metrics))
        downloads = Downloads(downloader, small, directory, clock, metrics)
        # A downloader that reads nothing keeps its slot: tests decide when it ends.
        uploads = ServingConfig(max_requests=serving_slots, unknown_rate_seconds=60.0)
        serving = ChunkServing(store, ServingQueue(uploads), clock, metrics, limits.up)
        quotas = Quotas(file_calls=serving_slots)
        serving_small = SmallServing(store.small, metrics, limits.up, quotas.file_calls)
        http = HttpServer(serving, serving_small, uploads.max_served, refusals)
        http_port = http.start(listen_tcp("127.0.0.1:0"))
        registry = OriginsOfPeer(parse_peer_id(peer_id), self, store, source)

        async def fetch(request: DownloadRequest, on_progress: OnProgress) -> None:
            async with aclosing(downloads.follow(request)) as steps:
                async for progress, _ in steps:
                    on_progress(progress)

        pool, origin_metrics = DiskPool(1), OriginMetrics(series)
        origins = Origins(
            Means(
                store,
                registry,
                directory,
                fetch,
                transport,
                DigestClient(connections),
                options,
                Upstream(Allowed(self.allowed, self.reached)),
                registry,
                registry.announced,
                Checked(),
                pool,
                store.state_dir / "uploads",
                lambda: http_port,
                clock,
                Cache(store, self.cache_limit, clock, pool, origin_metrics),
                origin_metrics,
            )
        )
        service = PeerService(
            store,
            Storing(UploadReceiver(store, metrics), downloads, FakeAnnouncer(store)),
            http_port,
            audit,
            quotas,
            digests=origins.digests,
        )
        add_PeerServiceServicer_to_server(service, server.server)
        (port,) = await server.start(["127.0.0.1:0"], [PEER_SERVICE])
        name = parse_peer_id(peer_id)
        source.append(SourceAddress(name, parse_address(f"127.0.0.1:{port}")))
        try:
            yield TestPeer(
                name,
                root,
                store,
                server,
                source[0],
                downloads,
                metrics,
                service,
                serving,
                series,
                origins,
                http,
                registry,
            )
        finally:
            await origins.aclose()
            await downloads.aclose()
            await server.stop(timedelta(0))
            await http.aclose()
            serving.close()
            await connections.aclose()
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await store.aclose()


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    """An empty network; what is made in it is gone at the end of the test."""
    async with AsyncExitStack() as stack:
        yield Network(tmp_path, stack)


def noise(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes that no chunk of which is like another."""
    return random.Random(seed).randbytes(size_bytes)


RunDownload = Callable[[TestPeer, str], Awaitable[None]]
