"""Who this peer is, and where others reach it."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from minga_core.errors import SettingsError
from minga_core.ids import Address, parse_address
from minga_core.records import Lease, PeerInfo
from minga_engine.wire.messages import SourceAddress
from minga_peer.settings import PeerSettings
from minga_peer.share.store import ContentStore
from minga_runtime.channels import split_listen
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

ADDRESS_CHECK_SECONDS = 10.0
"""How often the system is asked for this machine's address, which may change: a lease on the old one helps nobody."""
_ANY_HOSTS = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


class Identity:
    """One start of a peer. It has no address until `reachable_at` is called, once the port is bound."""

    def __init__(self, lease: Lease, zone: str, store: ContentStore, version: str) -> None:
        self.lease = lease
        self.peer_id = lease.peer_id
        self._zone = zone
        self._store = store
        self._version = version
        self._address: Address | None = None
        self.http_port = 0
        """Where chunks are served; 0 before the port is bound."""

    def reachable_at(self, address: Address) -> None:
        """Set the address at which others reach the peer."""
        self._address = address

    @property
    def address(self) -> Address:
        """host:port for others."""
        if self._address is None:
            raise RuntimeError("the port is not bound yet")
        return self._address

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
        )

    def source(self) -> SourceAddress:
        """This peer as a source for others."""
        return SourceAddress(self.peer_id, self.address, http_port=self.http_port)


async def address_for_others(settings: PeerSettings, port: int) -> Address:
    """The address to announce: as set, else the host that is listened on, else the one that faces the registry.

    Where the registry's name does not resolve yet, as in a cluster that is starting, the one that faces the locator: a
    registry that is away must not keep a peer from starting. Raises SettingsError when there is none.
    """
    if settings.advertise is not None:
        return parse_address(settings.advertise)
    host, _ = split_listen(settings.listen)
    if host in _ANY_HOSTS:
        host = await asyncio.to_thread(_facing_directory, settings)
    return _address(host, port)


async def follow_address(settings: PeerSettings, identity: Identity, on_change: Callable[[], None]) -> None:
    """Keep the identity's address that which faces the registry, until cancelled; at once over when it is a set one.

    While the registry's name does not resolve, or there is no way to it, the address stays as it is.
    """
    if settings.advertise is not None or split_listen(settings.listen)[0] not in _ANY_HOSTS:
        return
    port = int(identity.address.rpartition(":")[2])
    while True:
        await asyncio.sleep(ADDRESS_CHECK_SECONDS)
        try:
            address = _address(await asyncio.to_thread(source_towards, *split_listen(settings.registry)), port)
        except OSError:
            continue
        if address != identity.address:
            log_event(log, logging.WARNING, "address_changed", before=identity.address, now=address)
            identity.reachable_at(address)
            on_change()


def _address(host: str, port: int) -> Address:
    return parse_address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _facing_directory(settings: PeerSettings) -> str:
    """The local address towards the registry, or else the locator. Sends nothing; resolves names, so it may block."""
    try:
        return source_towards(*split_listen(settings.registry))
    except OSError as error:
        problem = error
    locator = urlsplit(settings.locator)
    with suppress(OSError, ValueError):
        host = source_towards(locator.hostname or "", locator.port or 80)
        # A locator on this machine says nothing about how others reach it.
        if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            return host
    raise SettingsError(
        f"cannot find out this machine's address towards the registry {settings.registry}: {problem}",
        hint="set MINGA_ADVERTISE to the host:port at which other peers reach this one",
    )


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
