"""What the gateway is given by the daemon: this peer's files, and a TCP port with what its callers must show."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow
from minga_engine.transfer.locating import Located
from minga_peer.daemon.downloads import Downloads, Job
from minga_peer.daemon.identity import Identity
from minga_peer.daemon.reading import located_here
from minga_peer.gateway.app import Gateway, GatewayApp
from minga_peer.gateway.guard import Guard, own_names
from minga_peer.gateway.server import door, listen_gateway
from minga_peer.gateway.transfers import Transfer, Transfers
from minga_peer.settings import PeerSettings
from minga_peer.share.inventory import row_of
from minga_peer.share.store import ContentStore
from minga_runtime.both import OpenConnections
from minga_runtime.listening import is_loopback, split_listen
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.origin import Origin
from minga_runtime.trust.rights import NONE

_ANY_HOSTS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


class LocalFiles:
    """The complete files of this peer. Implements `catalogue.Local`."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store

    def named(self, name: Name) -> Located | None:
        """The file of that name."""
        return _located(self._store.find(name))

    def content(self, content_id: ContentId) -> Located | None:
        """Some file with that content."""
        file = self._store.inventory.file_with(content_id)
        return None if file is None else located_here(row_of(file))


def transfers_of(downloads: Downloads) -> Transfers:
    """What the gateway says of the downloads under way."""
    return Transfers(lambda: [_transfer(job) for job in downloads.jobs if job.progress.size_bytes])


async def start_tcp_door(
    stack: AsyncExitStack,
    gateway: Gateway,
    settings: PeerSettings,
    identity: Identity,
    credentials: Credentials | None,
    callers: Callers | None,
    plain: OpenConnections | None,
) -> str:
    """The URL of the gateway's TCP port, which `stack` closes; empty when it is off.

    On the loopback it is HTTP, also in a secure network: only programs of this machine reach it, and no browser there
    knows the network's CA.
    """
    listener = await asyncio.to_thread(listen_gateway, settings.gateway)
    if listener is None:
        return ""
    host, port = listener.getsockname()[:2]
    tls = None
    if credentials is not None and not is_loopback(_url_host(host) + ":0"):
        tls = credentials.web_context(partial(gateway.refusals.handshake_failed, origin=Origin("", "unknown")))
    own = (host, _host_of(identity.address), _host_of(settings.gateway))
    names = await asyncio.to_thread(own_names, *own)
    guard = Guard(names, settings.locator, callers, settings.rights_of_members or NONE, both=settings.both)
    app, plain = GatewayApp(gateway, guard), None if tls is None else plain
    await stack.enter_async_context(door(app, listener, settings.stop_grace, tls, plain))
    reached = (_host_of(identity.address) or host) if host in _ANY_HOSTS else host
    return f"{'http' if tls is None else 'https'}://{_url_host(reached)}:{port}"


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host_of(address: str) -> str:
    """The host of host:port; empty for other text."""
    return split_listen(address)[0] if ":" in address else ""


def _located(row: FileRow | None) -> Located | None:
    return None if row is None else located_here(row)


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
