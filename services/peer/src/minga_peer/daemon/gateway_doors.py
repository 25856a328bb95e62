"""The gateway of a peer: what it is given, and a TCP port with what its callers must show."""

import asyncio
from dataclasses import replace
from functools import partial

from minga_engine.settings import gateway_socket, read_socket
from minga_engine.transfer.preheat import Preheater
from minga_engine.transfer.upload import Uploader
from minga_peer.daemon.base import Base
from minga_peer.daemon.control import remove_file
from minga_peer.daemon.downloads import Downloads, Job
from minga_peer.daemon.identity import GatewayPort, Identity
from minga_peer.daemon.mirror_doors import make_mirrors, owners_mirrors
from minga_peer.daemon.peer import Peer
from minga_peer.daemon.reading import LocalFiles
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.app import Gateway, GatewayApp
from minga_peer.gateway.catalogue import Catalogue
from minga_peer.gateway.fetching import Fetching
from minga_peer.gateway.files import Reading
from minga_peer.gateway.guard import Guard
from minga_peer.gateway.kept_uploads import KeptUploads
from minga_peer.gateway.local_reads import read_door
from minga_peer.gateway.preheating import Preheating
from minga_peer.gateway.putting import Changing
from minga_peer.gateway.server import door, listen_gateway, listen_unix
from minga_peer.gateway.spool import Spool
from minga_peer.gateway.transfers import Transfer, Transfers
from minga_peer.gateway.uploads import Uploads
from minga_runtime.listening import split_listen
from minga_runtime.server import GrpcServer
from minga_runtime.tasks import TaskOwner
from minga_runtime.trust.origin import Origin
from minga_runtime.trust.rights import NONE
from minga_runtime.web.hosts import own_names


async def start_gateway(peer: Peer, server: GrpcServer) -> None:
    """Open its doors; the TCP port becomes part of the identity. server: that of other peers, whose health it has."""
    base, store, network, origins = peer.base, peer.store, peer.network, peer.origins
    settings, metrics = base.settings, GatewayMetrics(base.series)
    free_bytes, folder = (lambda: store.status().free_bytes), store.state_dir / "uploads"
    spool = Spool(folder, free_bytes, store.folder.disk, metrics, peer.serving.quotas.uploaded)
    await spool.sweep()
    kept = KeptUploads(folder, store.folder.disk, base.clock)
    await kept.load()
    sweeping = TaskOwner()
    base.stack.push_async_callback(sweeping.aclose)
    sweeping.keep(kept.run, "gateway-uploads")
    catalogue = Catalogue(peer.directory, network.locator, LocalFiles(store))
    changing = Changing(
        catalogue,
        Uploader(network.locator, network.connections, base.clock, base.limits.up),
        partial(remove_file, store, peer.announcer),
        spool,
        base.audit,
    )
    reading = Reading(catalogue, peer.streams, metrics)
    gateway = Gateway(
        reading=reading,
        changing=changing,
        uploads=Uploads(changing, kept),
        transfers=_transfers_of(peer.downloads),
        metrics=metrics,
        refusals=base.refusals,
        ready=lambda: server.serving,
        readers={"fetch": Fetching(origins, peer.names, metrics, for_owner=False).get},
        mirrors=make_mirrors(base, origins, peer.hub, metrics),
        preheating=Preheating(Preheater(network.locator, network.connections, base.clock), base.audit),
    )
    owners = replace(
        gateway,
        readers={"fetch": Fetching(origins, peer.names, metrics, for_owner=True).get},
        mirrors=owners_mirrors(gateway.mirrors),
    )
    unix = await asyncio.to_thread(listen_unix, gateway_socket(settings.control))
    base.stack.callback(gateway_socket(settings.control).unlink, missing_ok=True)
    await base.stack.enter_async_context(door(GatewayApp(owners, None), unix, settings.stop_grace))
    reads = await asyncio.to_thread(listen_unix, read_socket(settings.control))
    base.stack.callback(read_socket(settings.control).unlink, missing_ok=True)
    await base.stack.enter_async_context(read_door(reading, reads))
    peer.identity.gateway = await _start_tcp_door(base, gateway, peer.identity)


def _transfers_of(downloads: Downloads) -> Transfers:
    return Transfers(lambda: [_transfer(job) for job in downloads.jobs if job.progress.size_bytes])


async def _start_tcp_door(base: Base, gateway: Gateway, identity: Identity) -> GatewayPort | None:
    """The gateway's TCP port, which the base's stack closes; None when it is off.

    On the loopback it is HTTP, also in a secure network: only programs of this machine reach it, and no browser there
    knows the network's CA.
    """
    settings, credentials = base.settings, base.credentials
    listener = await asyncio.to_thread(listen_gateway, settings.gateway)
    if listener is None:
        return None
    host, port = listener.getsockname()[:2]
    bound, tls = GatewayPort("http", host, port), None
    own: tuple[str, ...] = (host, _host_of(identity.address), _host_of(settings.gateway))
    if credentials is not None and not bound.local:
        bound, own = GatewayPort("https", host, port), own + credentials.current().hosts
        tls = credentials.web_context(partial(gateway.refusals.handshake_failed, origin=Origin("", "unknown")))
    names = await asyncio.to_thread(own_names, *own)
    default = settings.rights_of_members or NONE
    guard = Guard(names, settings.locator, base.callers(), default, both=settings.both, loopback=bound.local)
    if not bound.local:
        mirrors = {root: mirror for root, mirror in gateway.mirrors.items() if not mirror.loopback_only}
        gateway = replace(gateway, mirrors=mirrors)
    app, plain = GatewayApp(gateway, guard), None if tls is None else base.plain
    await base.stack.enter_async_context(door(app, listener, settings.stop_grace, tls, plain))
    return bound


def _host_of(address: str) -> str:
    """The host of host:port; empty for other text."""
    return split_listen(address)[0] if ":" in address else ""


def _transfer(job: Job) -> Transfer:
    progress = job.progress
    return Transfer(
        job.request.name,
        progress.content_id or job.request.content_id,
        progress.size_bytes,
        progress.held_bytes,
        job.rate(),
        len(progress.received_by_source),
    )
