"""The servers of a peer: for other peers, for commands of this machine, and for Prometheus."""

import asyncio
import logging
import socket
from datetime import timedelta
from functools import partial

from prometheus_client import CollectorRegistry

from minga_core.errors import AlreadyRunningError
from minga_engine.wire.messages import PEER_METHODS, PEER_SERVICE
from minga_peer.daemon._metrics import StateCollector
from minga_peer.daemon.base import Base
from minga_peer.daemon.control import ControlService, DaemonFacts, TrafficCounts
from minga_peer.daemon.identity import find_address
from minga_peer.daemon.peer import Peer
from minga_peer.daemon.preheat_doors import make_preheating
from minga_peer.serve.http_server import HttpServer
from minga_peer.serve.receiving import UploadReceiver
from minga_peer.serve.service import PeerService, Storing
from minga_peer.serve.small_serving import SmallServing
from minga_peer.settings import PeerSettings
from minga_peer.share.conditions import Kind
from minga_protos.control.v1.control_pb2_grpc import add_ControlServiceServicer_to_server
from minga_protos.peer.v1.peer_pb2_grpc import add_PeerServiceServicer_to_server
from minga_runtime.logs import log_event
from minga_runtime.metrics import RpcMetrics, start_metrics_server
from minga_runtime.server import GrpcServer
from minga_runtime.sockets import listen_tcp
from minga_runtime.trust.authorization import Access
from minga_runtime.trust.members import USERS

CONTROL_SERVICE = "minga.control.v1.ControlService"
CLOSE_GRACE = timedelta(seconds=1)
"""Time that calls still have once MINGA_STOP_GRACE is over; their callers hedge or retry."""
log = logging.getLogger(__name__)


async def start_peer_server(peer: Peer) -> GrpcServer:
    """Start both ports for other peers; they become part of the identity."""
    base, store, identity, serving = peer.base, peer.store, peer.identity, peer.serving
    refusals = base.refusals
    small = SmallServing(store.small, base.metrics, base.limits.up, serving.quotas.file_calls)
    http = HttpServer(serving.chunks, small, serving.threads, refusals, base.credentials, base.plain)
    base.stack.push_async_callback(http.aclose)
    identity.http_port = http.start(await asyncio.to_thread(_http_listener, base.settings))
    access = _access(base)
    server = GrpcServer(RpcMetrics(base.series, "peer", PEER_METHODS), access=access, refusals=refusals)
    receiver = UploadReceiver(store, base.metrics, down=base.limits.down)
    service = PeerService(
        store,
        Storing(receiver, peer.downloads, peer.announcer),
        identity.http_port,
        base.audit,
        serving.quotas,
        access,
        peer.origins.digests,
        make_preheating(base, peer.origins, peer.names, peer.hub),
    )
    add_PeerServiceServicer_to_server(service, server.server)
    (port,) = await server.start([base.settings.listen], [PEER_SERVICE])
    base.stack.push_async_callback(server.stop, CLOSE_GRACE)
    identity.port = port
    await find_address(base.settings, identity)
    return server


def _access(base: Base) -> Access | None:
    """Who may call this peer; None in an open network."""
    callers = base.callers()
    if base.credentials is None or callers is None:
        return None
    return Access(base.credentials, callers, {PEER_SERVICE: USERS}, plain=base.plain)


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


async def start_control_server(peer: Peer) -> None:
    """Start what commands of this machine call."""
    base, store, identity = peer.base, peer.store, peer.identity
    settings, metrics = base.settings, base.metrics
    traffic = TrafficCounts(
        lambda: metrics.sent_payload_bytes, lambda: metrics.received_payload_bytes, peer.serving.active_count
    )
    facts = DaemonFacts(
        registry=settings.registry,
        locator=settings.locator,
        started_at=base.clock.monotonic(),
        source_wait=settings.source_wait_or_forever,
        limit_up=settings.limit_up,
        limit_down=settings.limit_down,
    )
    service = ControlService(
        store,
        store.table,
        peer.announcer,
        peer.downloads,
        peer.origins,
        peer.names,
        identity.info,
        lambda: identity.gateway_url,
        traffic,
        facts,
        base.clock,
    )
    server = GrpcServer(RpcMetrics(CollectorRegistry(), "peer"))
    add_ControlServiceServicer_to_server(service, server.server)
    await server.start([f"unix:{settings.control}"], [CONTROL_SERVICE])
    base.stack.push_async_callback(server.stop, timedelta(seconds=1))


async def start_metrics_endpoint(peer: Peer, server: GrpcServer) -> str:
    """Start what Prometheus asks; host:port as bound, empty when metrics are off."""
    base = peer.base
    base.series.register(_state(peer))
    if base.settings.metrics_listen is None:
        return ""
    endpoint = await start_metrics_server(base.series, base.settings.metrics_listen, lambda: server.serving)
    base.stack.push_async_callback(endpoint.aclose)
    return endpoint.address


def _state(peer: Peer) -> StateCollector:
    store, serving = peer.store, peer.serving
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
            "minga_peer_active_downloads": lambda: len(peer.downloads.jobs),
            "minga_peer_registered": lambda: float(peer.announcer.registered),
        },
        {kind.value: partial(store.conditions.count, kind) for kind in Kind},
    )
