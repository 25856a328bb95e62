"""Who this peer is, and where others reach it."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from minga_core.ids import Address, parse_address
from minga_core.records import Lease, PeerInfo
from minga_engine.wire.messages import SourceAddress
from minga_peer.settings import PeerSettings
from minga_peer.share.store import ContentStore
from minga_runtime.channels import split_listen
from minga_runtime.listening import is_loopback
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

ADDRESS_CHECK_SECONDS = 10.0
"""How often the system is asked for this machine's address, which may change: a lease on the old one helps nobody."""
NO_ADDRESS_CHECK_SECONDS = 1.0
"""The same while there is none: nobody can find the peer."""
NO_ADDRESS_HINT = "it is announced once there is a network; or set MINGA_ADVERTISE to the host:port for other peers"
_ANY_HOSTS = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class GatewayPort:
    """Where the HTTP gateway listens. scheme: `http` or `https`."""

    scheme: str
    host: str
    port: int

    @property
    def local(self) -> bool:
        """Whether this machine alone reaches it."""
        return is_loopback(f"{url_host(self.host)}:{self.port}")

    def url(self, own_host: str) -> str:
        """Its URL. own_host: where this machine is reached, for one that listens on all its addresses."""
        host = self.host if self.host not in _ANY_HOSTS else own_host or self.host
        return f"{self.scheme}://{url_host(host)}:{self.port}"


class Identity:
    """One start of a peer. It has no address before `find_address`, and while this machine has no network."""

    def __init__(self, lease: Lease, zone: str, store: ContentStore, version: str) -> None:
        self.lease = lease
        self.peer_id = lease.peer_id
        self._zone = zone
        self._store = store
        self._version = version
        self.address = Address("")
        """host:port for others; empty while there is none."""
        self.port = 0
        """The port of calls; 0 before it is bound."""
        self.http_port = 0
        """Where chunks are served; 0 before the port is bound."""
        self.gateway: GatewayPort | None = None
        """None while it is off."""

    def info(self) -> PeerInfo:
        """What the peer announces of itself now."""
        status = self._store.status()
        return PeerInfo(
            peer_id=self.peer_id,
            generation=self.lease.generation,
            address=self.address,
            zone=self._zone,
            capacity_bytes=status.capacity_bytes,
            free_bytes=status.free_bytes,
            software_version=self._version,
            gateway_url="" if self.gateway is None or self.gateway.local else self.gateway_url,
        )

    @property
    def gateway_url(self) -> str:
        """Of the HTTP gateway, as it is reached from this machine and, unless it is local, from others; empty while it
        is off."""
        own_host = split_listen(self.address)[0] if self.address else ""
        return "" if self.gateway is None else self.gateway.url(own_host)

    def source(self) -> SourceAddress | None:
        """This peer as a source for others; None while it has no address."""
        return SourceAddress(self.peer_id, self.address, http_port=self.http_port) if self.address else None


def url_host(host: str) -> str:
    """A host as URLs and addresses have it."""
    return f"[{host}]" if ":" in host else host


async def find_address(settings: PeerSettings, identity: Identity) -> None:
    """Set the address to announce: as set, else the host that is listened on, else the one that faces the registry.

    Where the registry's name does not resolve yet, as in a cluster that is starting, the one that faces the locator. A
    machine without a network has none yet.
    """
    if settings.advertise is not None:
        identity.address = parse_address(settings.advertise)
        return
    host, _ = split_listen(settings.listen)
    try:
        host = await asyncio.to_thread(_facing_directory, settings) if host in _ANY_HOSTS else host
    except OSError as error:
        log_event(log, logging.WARNING, "no_address_yet", registry=settings.registry, error=error, hint=NO_ADDRESS_HINT)
        return
    identity.address = _address(host, identity.port)


async def follow_address(settings: PeerSettings, identity: Identity, on_change: Callable[[], None]) -> None:
    """Keep the identity's address that which faces the registry, until cancelled; at once over when it is a set one.

    While the registry's name does not resolve, or there is no way to it, the address stays as it is; where there is
    none, the one that faces the locator is good enough.
    """
    if settings.advertise is not None or split_listen(settings.listen)[0] not in _ANY_HOSTS:
        return
    while True:
        before = identity.address
        await asyncio.sleep(ADDRESS_CHECK_SECONDS if before else NO_ADDRESS_CHECK_SECONDS)
        with suppress(OSError):
            facing = _facing_registry if before else _facing_directory
            identity.address = _address(await asyncio.to_thread(facing, settings), identity.port)
        if identity.address != before:
            log_event(log, logging.WARNING, "address_changed", before=before, now=identity.address)
            on_change()


def _address(host: str, port: int) -> Address:
    return parse_address(f"{url_host(host)}:{port}")


def _facing_registry(settings: PeerSettings) -> str:
    """The local address towards the registry. Raises OSError. Sends nothing; resolves names, so it may block."""
    return source_towards(*split_listen(settings.registry))


def _facing_directory(settings: PeerSettings) -> str:
    """The local address towards the registry, or else the locator; see `_facing_registry`."""
    try:
        return _facing_registry(settings)
    except OSError as error:
        problem = error
    locator = urlsplit(settings.locator)
    with suppress(OSError, ValueError):
        host = source_towards(locator.hostname or "", locator.port or 80)
        # A locator on this machine says nothing about how others reach it.
        if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            return host
    raise problem


def source_towards(host: str, port: int) -> str:
    """The local address from which `host` would be reached. Raises OSError."""
    problem: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, target in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(target)
                return str(probe.getsockname()[0])
        except OSError as error:
            problem = error
    raise problem
