"""What a daemon reaches other parts by."""

from dataclasses import dataclass
from datetime import timedelta

from minga_core.ids import parse_address
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.transport import PeerTransport
from minga_peer.daemon.base import Base
from minga_peer.daemon.registry_client import RegistryClient
from minga_peer.share.file_clock import FileClock

LOCATOR_RETRY_BUDGET = timedelta(seconds=3)
"""Retry budget of a daemon's look-ups while a locator restarts."""


@dataclass(frozen=True, slots=True)
class Network:
    """Clients of the other parts."""

    connections: PeerConnections
    transport: PeerTransport
    locator: LocatorClient
    registry: RegistryClient


async def connect(base: Base, file_clock: FileClock) -> Network:
    """The clients of a daemon, which `base.stack` closes. file_clock: for times of publication."""
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
    return Network(connections, PeerTransport(connections), locator, registry)
