"""The daemon, wired by hand from top to bottom."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from minga_core.clock import Clock, SystemClock
from minga_core.errors import AlreadyRunningError, MingaError
from minga_core.ids import new_generation, parse_address
from minga_engine.swarm.serving_queue import UploadConfig, UploadQueue
from minga_engine.transfer.download import Downloader
from minga_engine.transfer.locating import Directory
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.small_downloads import SmallDownloads
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.messages import PEER_METHODS, PEER_SERVICE
from minga_engine.wire.transport import PeerTransport
from minga_peer.daemon._metrics import PeerMetrics, StateCollector
from minga_peer.daemon.announcer import Announcer
from minga_peer.daemon.control import ControlService, DaemonFacts, TrafficCounts
from minga_peer.daemon.downloads import Downloads, SmallStoreDestination, StoreDestination
from minga_peer.daemon.draining import until_quiet
from minga_peer.daemon.identity import Identity, address_for_others
from minga_peer.daemon.registry import RegistryClient
from minga_peer.daemon.socket_file import claim_socket, restrict
from minga_peer.serve.http_server import HttpServer
from minga_peer.serve.quotas import Quotas
from minga_peer.serve.receiving import UploadReceiver
from minga_peer.serve.service import PeerService, SmallFileServing, Storing
from minga_peer.serve.serving import ChunkServing
from minga_peer.settings import PeerSettings
from minga_peer.share.store import ChunkStore
from minga_peer.share.table import LocalTable
from minga_peer.version import VERSION
from minga_protos.control.v1.control_pb2_grpc import add_ControlServiceServicer_to_server
from minga_protos.peer.v1.peer_pb2_grpc import add_PeerServiceServicer_to_server
from minga_runtime.logs import configure_logging, log_event
from minga_runtime.metrics import RpcMetrics, describe_process, start_metrics_server
from minga_runtime.process import run_process, write_port_file
from minga_runtime.rate_limit import Limits
from minga_runtime.server import GrpcServer
from minga_runtime.settings import effective_settings
from minga_runtime.sockets import listen_tcp
from minga_runtime.tasks import TaskOwner
from minga_runtime.tracing import export_traces

log = logging.getLogger(__name__)

CONTROL_SERVICE = "minga.control.v1.ControlService"
CLOSE_GRACE = timedelta(seconds=1)
"""How long other calls may still take once MINGA_STOP_GRACE is over; whoever makes them hedges, or comes again."""
LOCATOR_RETRY_BUDGET = timedelta(seconds=3)
"""How long a daemon's look-ups are retried while a locator restarts."""


def run_daemon(settings: PeerSettings) -> int:
    """Runs a peer until SIGTERM or Ctrl-C; the exit code (see `minga_runtime.process.run_process`)."""
    configure_logging(settings.log_level, settings.log_format)
    with export_traces(settings.traces, "minga-peer", VERSION, settings.peer_id):
        return run_process(lambda stop: serve(settings, stop))


async def serve(settings: PeerSettings, stop: asyncio.Event) -> None:
    """Runs a peer until `stop`. Raises MingaError when it cannot start, or when another process took its id over."""
    async with running_daemon(settings) as daemon:
        write_port_file(settings.port_file, daemon.identity.address)
        facts = effective_settings(settings) | {"address": daemon.identity.address, "pid": os.getpid()}
        facts |= {"metrics_address": daemon.metrics_address}
        log_event(log, logging.INFO, "peer_started", **facts)
        await daemon.until(stop)
        log_event(log, logging.INFO, "peer_stopping")


@dataclass(slots=True)
class Daemon:
    """A running peer."""

    identity: Identity
    store: ChunkStore
    announcer: Announcer
    failure: "asyncio.Future[Any]"
    metrics_address: str = ""
    """host:port as bound; empty while metrics are off."""

    async def until(self, stop: asyncio.Event) -> None:
        """Returns when asked to stop. Raises what a background task died of."""
        stopping: asyncio.Future[Any] = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait((stopping, self.failure), return_when=asyncio.FIRST_COMPLETED)
            if self.failure.done():
                await self.failure
        finally:
            stopping.cancel()

    def fail(self, error: BaseException) -> None:
        """Ends the daemon with an error."""
        if not self.failure.done():
            self.failure.set_exception(error)


@asynccontextmanager
async def running_daemon(settings: PeerSettings) -> AsyncIterator[Daemon]:
    """A peer that serves and is announced inside the block. On the way out it leaves first, then stops serving."""
    clock = SystemClock()
    metrics_registry = CollectorRegistry()
    metrics = PeerMetrics(metrics_registry)
    describe_process(metrics_registry, "peer", VERSION)
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(claim_socket, settings.control)
        store = await _open_store(settings, clock, metrics)
        stack.push_async_callback(store.aclose)
        table = LocalTable(store.rows())
        # From here on no change is missed, whoever makes it first.
        store.on_rows_changed(table.apply)
        identity = Identity(settings, new_generation(clock.wall()), store, VERSION)
        limits = Limits.of(settings.limit_up, settings.limit_down, clock)
        uploads = UploadConfig(max_requests=settings.serving_slots)
        serving = ChunkServing(store, UploadQueue(uploads), clock, metrics, limits.up)
        stack.callback(serving.close)

        transport = PeerTransport(await stack.enter_async_context(PeerConnections(limits.down)))
        locator = await stack.enter_async_context(LocatorClient(settings.locator, retry_budget=LOCATOR_RETRY_BUDGET))
        registry = RegistryClient(parse_address(settings.registry))
        stack.push_async_callback(registry.aclose)
        announcer = Announcer(
            registry, table, identity.info, lambda: serving.active_count, clock, asked_ttl=settings.lease_ttl
        )
        daemon = Daemon(identity, store, announcer, asyncio.get_running_loop().create_future())

        directory = Directory(locator, own_id=identity.peer_id, zone=settings.zone)
        options = TransferOptions(identity.source, metrics=metrics, down=limits.down)
        downloader = Downloader(StoreDestination(store), directory, transport, clock, options)
        small = SmallDownloads(SmallStoreDestination(store), directory, transport, options)
        downloads = Downloads(downloader, directory, clock, metrics, small)
        stack.push_async_callback(downloads.aclose)

        http = HttpServer(serving, threads=uploads.max_turns)
        stack.push_async_callback(http.aclose)
        identity.http_port = http.start(await asyncio.to_thread(_http_listener, settings))
        server = GrpcServer(RpcMetrics(metrics_registry, "peer", PEER_METHODS))
        quotas = Quotas(file_calls=settings.serving_slots)
        service = PeerService(
            store,
            SmallFileServing(store.small, metrics, limits.up),
            Storing(UploadReceiver(store, metrics, down=limits.down), downloads, announcer),
            identity.http_port,
            quotas,
        )
        add_PeerServiceServicer_to_server(service, server.server)
        control = GrpcServer(RpcMetrics(CollectorRegistry(), "peer"))
        traffic = TrafficCounts(
            lambda: metrics.sent_payload_bytes, lambda: metrics.received_payload_bytes, lambda: serving.active_count
        )
        facts = DaemonFacts(
            settings.registry,
            settings.locator,
            clock.monotonic(),
            settings.source_wait_or_forever,
            settings.limit_up,
            settings.limit_down,
        )
        add_ControlServiceServicer_to_server(
            ControlService(store, table, announcer, downloads, identity.info, traffic, facts, clock), control.server
        )
        metrics_registry.register(_state(store, announcer, downloads, serving))

        await _serve(stack, settings, identity, server, control)
        if settings.metrics_listen is not None:
            endpoint = await start_metrics_server(metrics_registry, settings.metrics_listen)
            stack.push_async_callback(endpoint.aclose)
            daemon.metrics_address = endpoint.address

        def under_way() -> int:
            return serving.active_count + serving.waiting_count + quotas.file_calls.taken_count

        stack.push_async_callback(until_quiet, under_way, settings.stop_grace)
        # After the announcer's loop has ended, which would take the lease again.
        stack.push_async_callback(announcer.leave)
        tasks = TaskOwner(daemon.fail)
        stack.push_async_callback(tasks.aclose)
        store.on_rows_changed(lambda _: announcer.table_changed())
        tasks.start(store.run(), "store")
        tasks.start(announcer.run(), "announcer")
        tasks.start(_serving_once_announced(server, announcer), "readiness")
        tasks.start(_greet(locator), "greeting")
        yield daemon


async def _serving_once_announced(server: GrpcServer, announcer: Announcer) -> None:
    """Health checks are told SERVING once others can find what is here: whoever replaces peers one after the other
    goes on with the next one then, and that may be the other holder of a file. A registry that is away later changes
    nothing: what is served goes on being served."""
    await announcer.caught_up()
    await server.set_serving(True)


async def _greet(locator: LocatorClient) -> None:
    """Asks the locator something: says early when it is not there, and takes what a first request costs (80 ms of
    processor for the HTTP client's own modules) off the first download."""
    try:
        await locator.stats()
    except MingaError as error:
        log_event(log, logging.WARNING, "locator_away", error=error)


async def _open_store(settings: PeerSettings, clock: Clock, metrics: PeerMetrics) -> ChunkStore:
    return await ChunkStore.open(
        settings.share_dir,
        state_dir=settings.state_dir,
        capacity_bytes=settings.capacity,
        clock=clock,
        threads=settings.hash_threads,
        quiet_seconds=settings.quiet.total_seconds(),
        rescan_seconds=settings.rescan.total_seconds(),
        metrics=metrics,
    )


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


async def _serve(
    stack: AsyncExitStack, settings: PeerSettings, identity: Identity, server: GrpcServer, control: GrpcServer
) -> None:
    """Starts both servers; the port that comes of it is part of the identity."""
    (port,) = await server.start([settings.listen], [PEER_SERVICE])
    stack.push_async_callback(server.stop, CLOSE_GRACE)
    identity.reachable_at(await address_for_others(settings, port))
    await control.start([f"unix:{settings.control}"], [CONTROL_SERVICE])
    stack.push_async_callback(control.stop, timedelta(seconds=1))
    await asyncio.to_thread(restrict, settings.control)


def _state(store: ChunkStore, announcer: Announcer, downloads: Downloads, serving: ChunkServing) -> StateCollector:
    return StateCollector(
        {
            "minga_peer_shared_files": lambda: store.status().file_count,
            "minga_peer_shared_bytes": lambda: store.status().shared_bytes,
            "minga_peer_capacity_bytes": lambda: store.status().capacity_bytes,
            "minga_peer_free_bytes": lambda: store.status().free_bytes,
            "minga_peer_pending_hashes": lambda: store.status().pending_hash_count,
            "minga_peer_active_serves": lambda: serving.active_count,
            "minga_peer_waiting_serves": lambda: serving.waiting_count,
            "minga_peer_active_downloads": lambda: len(downloads.jobs),
            "minga_peer_registered": lambda: float(announcer.registered),
        }
    )
