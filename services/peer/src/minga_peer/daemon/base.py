"""What all of a daemon is made with."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from minga_core.clock import Clock
from minga_peer.daemon._metrics import PeerMetrics
from minga_peer.settings import PeerSettings
from minga_peer.version import VERSION
from minga_runtime.both import OpenConnections
from minga_runtime.metrics import describe_process
from minga_runtime.rate_limit import Limits
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import Role
from minga_runtime.trust.own_grant import OwnGrant
from minga_runtime.trust.refusals import Refusals


@dataclass(frozen=True, slots=True)
class Base:
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

    @property
    def closed(self) -> bool:
        """Whether callers must show who they are, all of them."""
        return self.credentials is not None and not self.settings.both

    def callers(self) -> Callers | None:
        """Says who calls and what that may do; None in an open network."""
        if self.credentials is None:
            return None
        settings, own = self.settings, self.credentials
        return Callers(own.member, settings.key_sources, settings.rights_of_members, own.revoked)


async def load_credentials(settings: PeerSettings) -> Credentials | None:
    """Those of the settings; None in an open network. Raises SettingsError."""
    if settings.tls is None:
        return None
    return await asyncio.to_thread(
        Credentials, settings.tls, frozenset({Role.PEER}), settings.peer_id, both=settings.both
    )
