"""The daemon: a peer, its servers and its tasks, for as long as it runs."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from minga_core.clock import Clock, SystemClock
from minga_engine.transfer.stream import Streams
from minga_peer.daemon.announcer import Announcer
from minga_peer.daemon.base import Base, load_credentials
from minga_peer.daemon.clock_check import check_clock
from minga_peer.daemon.draining import until_idle
from minga_peer.daemon.gateway_doors import start_gateway
from minga_peer.daemon.identity import Identity, follow_address
from minga_peer.daemon.long_lived import LongLived
from minga_peer.daemon.peer import Peer, make_peer
from minga_peer.daemon.servers import start_control_server, start_metrics_endpoint, start_peer_server
from minga_peer.daemon.socket_file import claim_socket
from minga_peer.settings import PeerSettings
from minga_peer.share.store import ContentStore
from minga_peer.version import VERSION
from minga_runtime.allocator import return_large_objects
from minga_runtime.logs import configure_logging, log_event
from minga_runtime.metrics import describe_certificate
from minga_runtime.process import run_process, write_port_file
from minga_runtime.rate_limit import Limits
from minga_runtime.server import GrpcServer
from minga_runtime.settings import effective_settings
from minga_runtime.tasks import TaskOwner
from minga_runtime.tracing import export_traces
from minga_runtime.trust.own_grant import OwnGrant
from minga_runtime.trust.renewal import renewing

log = logging.getLogger(__name__)


def run_daemon(settings: PeerSettings) -> int:
    """Run a peer until SIGTERM or Ctrl-C; the exit code (see `minga_runtime.process.run_process`)."""
    configure_logging(settings.log_level, settings.log_format)
    return_large_objects()
    with export_traces(settings.traces, "minga-peer", VERSION, settings.peer_id):
        return run_process(lambda stop: serve(settings, stop))


async def serve(settings: PeerSettings, stop: asyncio.Event) -> None:
    """Run a peer until `stop`. Raises MingaError when it cannot start, or when another process took its id over."""
    async with running_daemon(settings) as daemon:
        write_port_file(settings.port_file, daemon.identity.address)
        fields = effective_settings(settings) | {"address": daemon.identity.address, "pid": os.getpid()}
        fields |= {"metrics_address": daemon.metrics_address, "gateway_url": daemon.identity.gateway_url}
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


@asynccontextmanager
async def running_daemon(settings: PeerSettings, clock: Clock | None = None) -> AsyncIterator[Daemon]:
    """A peer that serves and is announced inside the block. At the end it leaves first, then stops serving."""
    async with AsyncExitStack() as stack:
        clock = clock or SystemClock()
        limits = Limits.of(settings.limit_up, settings.limit_down, clock)
        grant = None if settings.grant is None else OwnGrant(settings.grant)
        base = Base(settings, stack, limits, clock, await load_credentials(settings), grant)
        if base.credentials is not None:
            describe_certificate(base.series, "peer", base.credentials.expires)
        await stack.enter_async_context(renewing(settings.credentials, base.credentials))
        await asyncio.to_thread(claim_socket, settings.control)
        peer = await make_peer(base)
        server = await start_peer_server(peer)
        await start_gateway(peer, server)
        await start_control_server(peer)
        metrics_address = await start_metrics_endpoint(peer, server)
        failure = asyncio.get_running_loop().create_future()
        daemon = Daemon(peer.identity, peer.store, peer.announcer, peer.streams, failure, metrics_address)

        stack.push_async_callback(until_idle, peer.serving.in_progress, settings.stop_grace)
        # After the announcer's loop has ended, which would take the lease again.
        stack.push_async_callback(peer.announcer.leave)
        tasks = TaskOwner(daemon.fail)
        stack.push_async_callback(tasks.aclose)
        _start_tasks(tasks, peer, server)
        yield daemon


def _start_tasks(tasks: TaskOwner, peer: Peer, server: GrpcServer) -> None:
    """What goes on for as long as the daemon runs."""
    store, identity, announcer = peer.store, peer.identity, peer.announcer
    long_lived = LongLived(store.table)
    store.table.on_change(lambda _: long_lived.table_changed())
    tasks.start(store.run(), "store")
    tasks.start(long_lived.first_scan(store.sync.first_scan_done), "first-scan")
    tasks.start(announcer.run(), "announcer")
    tasks.start(_set_serving_once_announced(server, announcer), "readiness")
    tasks.start(follow_address(peer.base.settings, identity, announcer.address_changed), "address")
    tasks.start(peer.origins.cache.run(), "cache")
    if peer.base.settings.fetch_allow or peer.base.settings.images:
        tasks.keep(peer.origins.upstream.prepare, "upstream-client")
    tasks.start(check_clock(peer.network.locator, store.conditions), "clock")


async def _set_serving_once_announced(server: GrpcServer, announcer: Announcer) -> None:
    """Set the health check to SERVING once others can find what is here: a rollout goes on with the next peer then,
    which may be the other holder of a file. A registry that goes away later changes nothing."""
    await announcer.caught_up()
    await server.set_serving(True)
