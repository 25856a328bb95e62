"""The daemon, wired by hand from top to bottom."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from minga_core.clock import Clock, SystemClock
from minga_core.errors import AlreadyRunningError
from minga_core.ids import parse_address, parse_peer_id
from minga_engine.settings import gateway_socket
from minga_engine.swarm.serving_queue import ServingConfig, ServingQueue
from minga_engine.transfer.download import Downloader
from minga_engine.transfer.locating import Directory
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.small_downloads import SmallDownloads
from minga_engine.transfer.stream import Streams
from minga_engine.transfer.upload import Uploader
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.messages import PEER_METHODS, PEER_SERVICE
from minga_engine.wire.transport import PeerTransport
from minga_peer.daemon._metrics import PeerMetrics, StateCollector
from minga_peer.daemon.announcer import Announcer
from minga_peer.daemon.clock_check import check_clock
from minga_peer.daemon.control import ControlService, DaemonFacts, TrafficCounts, remove_file
from minga_peer.daemon.downloads import Downloads
from minga_peer.daemon.draining import until_idle
from minga_peer.daemon.gateway_doors import LocalFiles, start_tcp_door, transfers_of
from minga_peer.daemon.identity import Identity, find_address, follow_address
from minga_peer.daemon.lease_file import new_lease
from minga_peer.daemon.long_lived import LongLived
from minga_peer.daemon.reading import make_streams
from minga_peer.daemon.registry_client import RegistryClient
from minga_peer.daemon.socket_file import claim_socket
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.app import Gateway, GatewayApp
from minga_peer.gateway.catalogue import Catalogue
from minga_peer.gateway.files import Reading
from minga_peer.gateway.putting import Changing
from minga_peer.gateway.server import door, listen_unix
from minga_peer.serve.http_server import HttpServer
from minga_peer.serve.quotas import Quotas
from minga_peer.serve.receiving import UploadReceiver
from minga_peer.serve.service import PeerService, SmallFileServing, Storing, claimed_peer
from minga_peer.serve.serving import ChunkServing
from minga_peer.settings import PeerSettings
from minga_peer.share.conditions import Kind
from minga_peer.share.file_clock import FileClock
from minga_peer.share.store import ContentStore
from minga_peer.version import VERSION
from minga_protos.control.v1.control_pb2_grpc import add_ControlServiceServicer_to_server
from minga_protos.peer.v1.peer_pb2_grpc import add_PeerServiceServicer_to_server
from minga_runtime.both import OpenConnections
from minga_runtime.logs import configure_logging, log_event
from minga_runtime.metrics import RpcMetrics, describe_certificate, describe_process, start_metrics_server
from minga_runtime.process import run_process, write_port_file
from minga_runtime.rate_limit import Limits
from minga_runtime.server import GrpcServer
from minga_runtime.settings import effective_settings
from minga_runtime.sockets import listen_tcp
from minga_runtime.tasks import TaskOwner
from minga_runtime.tracing import export_traces
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.authorization import Access
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import USERS, Role
from minga_runtime.trust.own_grant import OwnGrant
from minga_runtime.trust.refusals import Refusals
from minga_runtime.trust.renewal import renewing

log = logging.getLogger(__name__)

CONTROL_SERVICE = "minga.control.v1.ControlService"
CLOSE_GRACE = timedelta(seconds=1)
"""Time that calls still have once MINGA_STOP_GRACE is over; their callers hedge or retry."""
LOCATOR_RETRY_BUDGET = timedelta(seconds=3)
"""Retry budget of a daemon's look-ups while a locator restarts."""


def run_daemon(settings: PeerSettings) -> int:
    """Run a peer until SIGTERM or Ctrl-C; the exit code (see `minga_runtime.process.run_process`)."""
    configure_logging(settings.log_level, settings.log_format)
    with export_traces(settings.traces, "minga-peer", VERSION, settings.peer_id):
        return run_process(lambda stop: serve(settings, stop))


async def serve(settings: PeerSettings, stop: asyncio.Event) -> None:
    """Run a peer until `stop`. Raises MingaError when it cannot start, or when another process took its id over."""
    async with running_daemon(settings) as daemon:
        write_port_file(settings.port_file, daemon.identity.address)
        fields = effective_settings(settings) | {"address": daemon.identity.address, "pid": os.getpid()}
        fields |= {"metrics_address": daemon.metrics_address, "gateway_url": daemon.gateway_url}
        log_event(log, logging.INFO, "peer_started", **fields)
        await daemon.until(stop)
        log_event(log, logging.INFO, "peer_stopping")


@dataclass(slots=True)
class Daemon:
    """A running peer."""

    identity: Identity
    store: ContentStore
    announcer: Announcer
    streams: Streams
    failure: "asyncio.Future[Any]"
    metrics_address: str
    """host:port as bound; empty while metrics are off."""
    gateway_url: str
    """Of the HTTP gateway; empty while it is off."""

    async def until(self, stop: asyncio.Event) -> None:
        """Return when asked to stop. Raises the error that ended a background task."""
        stopping: asyncio.Future[Any] = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait((stopping, self.failure), return_when=asyncio.FIRST_COMPLETED)
            if self.failure.done():
                await self.failure
        finally:
            stopping.cancel()

    def fail(self, error: BaseException) -> None:
        """End the daemon with an error."""
        if not self.failure.done():
            self.failure.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Base:
    """What every builder needs. What a builder starts is stopped by `stack`, the last one first."""

    settings: PeerSettings
    stack: AsyncExitStack
    limits: Limits
    clock: Clock
    credentials: Credentials | None
    """None in an open network."""
    grant: OwnGrant | None
    series: CollectorRegistry = field(default_factory=CollectorRegistry)
    metrics: PeerMetrics = field(init=False)
    audit: Audit = field(init=False)
    refusals: Refusals = field(init=False)
    plain: OpenConnections | None = field(init=False)
    """Counts connections without TLS where those are taken beside others."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", PeerMetrics(self.series))
        describe_process(self.series, "peer", VERSION)
        object.__setattr__(self, "audit", Audit(self.settings.audit, "peer", self.series))
        self.stack.push_async_callback(self.audit.aclose)
        object.__setattr__(self, "refusals", Refusals(self.series, "peer", self.audit))
        object.__setattr__(self, "plain", OpenConnections(self.series, "peer") if self.settings.both else None)

    def callers(self) -> Callers | None:
        """Says who calls and what that may do; None in an open network."""
        if self.credentials is None:
            return None
        settings, own = self.settings, self.credentials
        return Callers(own.member, settings.key_sources, settings.rights_of_members, own.revoked)


@dataclass(frozen=True, slots=True)
class _Network:
    """Clients of the other parts."""

    connections: PeerConnections
    transport: PeerTransport
    locator: LocatorClient
    registry: RegistryClient


@dataclass(frozen=True, slots=True)
class _Serving:
    """Chunks and small files for others."""

    chunks: ChunkServing
    quotas: Quotas
    threads: int
    """Chunks sent at a time at most."""

    def active_count(self) -> int:
        """Chunks being sent."""
        return self.chunks.active_count

    def in_progress(self) -> int:
        """Requests being served or waiting."""
        return self.chunks.active_count + self.chunks.waiting_count + self.quotas.file_calls.held_count


@asynccontextmanager
async def running_daemon(settings: PeerSettings, clock: Clock | None = None) -> AsyncIterator[Daemon]:
    """A peer that serves and is announced inside the block. At the end it leaves first, then stops serving."""
    async with AsyncExitStack() as stack:
        clock = clock or SystemClock()
        limits = Limits.of(settings.limit_up, settings.limit_down, clock)
        grant = None if settings.grant is None else OwnGrant(settings.grant)
        base = _Base(settings, stack, limits, clock, await _credentials(settings), grant)
        if base.credentials is not None:
            describe_certificate(base.series, "peer", base.credentials.expires)
        await stack.enter_async_context(renewing(settings.credentials, base.credentials))
        await asyncio.to_thread(claim_socket, settings.control)
        store = await _open_store(base)
        peer_id = parse_peer_id(settings.peer_id)
        lease, not_kept = await asyncio.to_thread(new_lease, store.state_dir, peer_id, clock.wall())
        if not_kept:
            store.conditions.set(Kind.INDEX, not_kept, "lease")
        identity = Identity(lease, settings.zone, store, VERSION)
        serving = _make_serving(base, store)
        network = await _connect(base, store.folder.file_clock)
        announcer = Announcer(
            network.registry,
            store.table,
            identity.lease,
            identity.info,
            serving.active_count,
            base.clock,
            keep_times=store.files.set_published,
            asked_ttl=settings.lease_ttl,
            conditions=store.conditions,
        )
        store.table.on_change(lambda _: announcer.table_changed())
        long_lived = LongLived(store.table)
        store.table.on_change(lambda _: long_lived.table_changed())
        downloads = _make_downloads(base, store, network, identity)
        wait, keep = settings.source_wait_or_forever, settings.keep_read
        streams = make_streams(store, downloads, base.clock, wait=wait, keep=keep)
        stack.push_async_callback(streams.aclose)
        store.scrub.busy = lambda: serving.in_progress() > 0
        server = await _start_peer_server(base, store, identity, serving, announcer, downloads)
        gateway_url = await _start_gateway(base, store, identity, network, streams, announcer, downloads, server)
        await _start_control_server(base, store, identity, serving, announcer, downloads, gateway_url)
        base.series.register(_state(store, announcer, downloads, serving))
        metrics_address = await _start_metrics_server(base, server)
        failure = asyncio.get_running_loop().create_future()
        daemon = Daemon(identity, store, announcer, streams, failure, metrics_address, gateway_url)

        stack.push_async_callback(until_idle, serving.in_progress, settings.stop_grace)
        # After the announcer's loop has ended, which would take the lease again.
        stack.push_async_callback(announcer.leave)
        tasks = TaskOwner(daemon.fail)
        stack.push_async_callback(tasks.aclose)
        tasks.start(store.run(), "store")
        tasks.start(long_lived.first_scan(store.sync.first_scan_done), "first-scan")
        tasks.start(announcer.run(), "announcer")
        tasks.start(_set_serving_once_announced(server, announcer), "readiness")
        tasks.start(follow_address(settings, identity, announcer.address_changed), "address")
        tasks.start(check_clock(network.locator, store.conditions), "clock")
        yield daemon


async def _credentials(settings: PeerSettings) -> Credentials | None:
    if settings.tls is None:
        return None
    return await asyncio.to_thread(
        Credentials, settings.tls, frozenset({Role.PEER}), settings.peer_id, both=settings.both
    )


async def _open_store(base: _Base) -> ContentStore:
    store = await ContentStore.open(base.settings.store, base.clock, base.metrics)
    base.stack.push_async_callback(store.aclose)
    return store


def _make_serving(base: _Base, store: ContentStore) -> _Serving:
    config = ServingConfig(max_requests=base.settings.serving_slots)
    chunks = ChunkServing(store, ServingQueue(config), base.clock, base.metrics, base.limits.up)
    base.stack.callback(chunks.close)
    quotas = Quotas(
        file_calls=base.settings.serving_slots,
        uploads=base.settings.max_uploads,
        replicas=base.settings.max_uploads,
        daily_upload_bytes=base.settings.upload_quota or None,
    )
    return _Serving(chunks, quotas, config.max_served)


async def _connect(base: _Base, file_clock: FileClock) -> _Network:
    settings, stack = base.settings, base.stack
    credentials, grant = base.credentials, base.grant
    connections = await stack.enter_async_context(
        PeerConnections(base.limits.down, credentials=credentials, grant=grant)
    )
    locator = await stack.enter_async_context(
        LocatorClient(settings.locator, retry_budget=LOCATOR_RETRY_BUDGET, credentials=credentials, grant=grant)
    )
    registry = RegistryClient(parse_address(settings.registry), credentials, grant, file_clock.now_ns)
    stack.push_async_callback(registry.aclose)
    return _Network(connections, PeerTransport(connections), locator, registry)


def _make_downloads(base: _Base, store: ContentStore, network: _Network, identity: Identity) -> Downloads:
    directory = Directory(network.locator, own_id=identity.peer_id, zone=base.settings.zone)
    options = TransferOptions(identity.source, metrics=base.metrics, down=base.limits.down)
    downloader = Downloader(store, directory, network.transport, base.clock, options)
    small = SmallDownloads(store.small, directory, network.transport, options)
    downloads = Downloads(downloader, small, directory, base.clock, base.metrics)
    base.stack.push_async_callback(downloads.aclose)
    return downloads


async def _start_peer_server(
    base: _Base, store: ContentStore, identity: Identity, serving: _Serving, announcer: Announcer, downloads: Downloads
) -> GrpcServer:
    """Start both ports for other peers; they become part of the identity."""
    refusals = base.refusals
    http = HttpServer(serving.chunks, serving.threads, refusals, base.credentials, base.plain)
    base.stack.push_async_callback(http.aclose)
    identity.http_port = http.start(await asyncio.to_thread(_http_listener, base.settings))
    access = _access(base)
    server = GrpcServer(RpcMetrics(base.series, "peer", PEER_METHODS), access=access, refusals=refusals)
    receiver = UploadReceiver(store, base.metrics, down=base.limits.down)
    service = PeerService(
        store,
        SmallFileServing(store.small, base.metrics, base.limits.up),
        Storing(receiver, downloads, announcer),
        identity.http_port,
        base.audit,
        serving.quotas,
        access,
    )
    add_PeerServiceServicer_to_server(service, server.server)
    (port,) = await server.start([base.settings.listen], [PEER_SERVICE])
    base.stack.push_async_callback(server.stop, CLOSE_GRACE)
    identity.port = port
    await find_address(base.settings, identity)
    return server


def _access(base: _Base) -> Access | None:
    """Who may call this peer; None in an open network."""
    callers = base.callers()
    if base.credentials is None or callers is None:
        return None
    return Access(base.credentials, callers, {PEER_SERVICE: USERS}, claimed_peer, base.plain)


def _http_listener(settings: PeerSettings) -> socket.socket:
    """The socket of the HTTP server: as set, or one above the gRPC port, or any free one when that is taken."""
    if settings.http_listen != "auto":
        return listen_tcp(settings.http_listen)
    host, colon, port = settings.listen.rpartition(":")
    if 0 < int(port) < 65535:
        try:
            return listen_tcp(f"{host}{colon}{int(port) + 1}")
        except AlreadyRunningError as error:
            log_event(log, logging.WARNING, "http_port_taken", error=error)
    return listen_tcp(f"{host}{colon}0")


async def _start_control_server(
    base: _Base,
    store: ContentStore,
    identity: Identity,
    serving: _Serving,
    announcer: Announcer,
    downloads: Downloads,
    gateway_url: str,
) -> None:
    settings, metrics = base.settings, base.metrics
    traffic = TrafficCounts(
        lambda: metrics.sent_payload_bytes, lambda: metrics.received_payload_bytes, serving.active_count
    )
    facts = DaemonFacts(
        settings.registry,
        settings.locator,
        base.clock.monotonic(),
        settings.source_wait_or_forever,
        settings.limit_up,
        settings.limit_down,
        gateway_url,
    )
    service = ControlService(store, store.table, announcer, downloads, identity.info, traffic, facts, base.clock)
    server = GrpcServer(RpcMetrics(CollectorRegistry(), "peer"))
    add_ControlServiceServicer_to_server(service, server.server)
    await server.start([f"unix:{settings.control}"], [CONTROL_SERVICE])
    base.stack.push_async_callback(server.stop, timedelta(seconds=1))


async def _start_metrics_server(base: _Base, server: GrpcServer) -> str:
    """host:port as bound; empty when metrics are off."""
    if base.settings.metrics_listen is None:
        return ""
    endpoint = await start_metrics_server(base.series, base.settings.metrics_listen, lambda: server.serving)
    base.stack.push_async_callback(endpoint.aclose)
    return endpoint.address


async def _start_gateway(
    base: _Base,
    store: ContentStore,
    identity: Identity,
    network: _Network,
    streams: Streams,
    announcer: Announcer,
    downloads: Downloads,
    server: GrpcServer,
) -> str:
    """Its URL; empty when it is off but for its Unix socket."""
    settings, metrics = base.settings, GatewayMetrics(base.series)
    directory = Directory(network.locator, own_id=identity.peer_id, zone=settings.zone)
    catalogue = Catalogue(directory, network.locator, LocalFiles(store))
    changing = Changing(
        catalogue,
        Uploader(network.locator, network.connections, base.clock, base.limits.up),
        partial(remove_file, store, announcer),
        store.state_dir / "uploads",
        lambda: store.status().free_bytes,
        store.folder.disk,
        metrics,
        base.audit,
    )
    reading = Reading(catalogue, streams, metrics)
    transfers = transfers_of(downloads)
    gateway = Gateway(reading, changing, transfers, metrics, base.refusals, lambda: server.serving)
    unix = await asyncio.to_thread(listen_unix, gateway_socket(settings.control))
    base.stack.callback(gateway_socket(settings.control).unlink, missing_ok=True)
    await base.stack.enter_async_context(door(GatewayApp(gateway, None), unix, settings.stop_grace))
    return await start_tcp_door(base.stack, gateway, settings, identity, base.credentials, base.callers(), base.plain)


async def _set_serving_once_announced(server: GrpcServer, announcer: Announcer) -> None:
    """Set the health check to SERVING once others can find what is here: a rollout goes on with the next peer then,
    which may be the other holder of a file. A registry that goes away later changes nothing."""
    await announcer.caught_up()
    await server.set_serving(True)


def _state(store: ContentStore, announcer: Announcer, downloads: Downloads, serving: _Serving) -> StateCollector:
    return StateCollector(
        {
            "minga_peer_shared_files": lambda: store.status().file_count,
            "minga_peer_shared_bytes": lambda: store.status().shared_bytes,
            "minga_peer_capacity_bytes": lambda: store.status().capacity_bytes,
            "minga_peer_free_bytes": lambda: store.status().free_bytes,
            "minga_peer_pending_hashes": lambda: store.status().pending_hash_count,
            "minga_peer_scrub_end_timestamp_seconds": lambda: store.status().scrub.ended_at,
            "minga_peer_active_serves": serving.active_count,
            "minga_peer_waiting_serves": lambda: serving.chunks.waiting_count,
            "minga_peer_active_downloads": lambda: len(downloads.jobs),
            "minga_peer_registered": lambda: float(announcer.registered),
        },
        {kind.value: partial(store.conditions.count, kind) for kind in Kind},
    )
