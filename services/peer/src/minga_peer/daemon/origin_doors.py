"""What files of origins are fetched with in a daemon."""

import os
from datetime import timedelta

from minga_core.names import Name
from minga_core.origin_names import endpoints_of
from minga_core.records import FetchClaim, Fetcher
from minga_engine.parts.disk import DiskPool
from minga_engine.transfer.locating import Directory
from minga_engine.transfer.options import TransferOptions
from minga_engine.wire.digests import DigestClient
from minga_peer.daemon.announcer import Announcer
from minga_peer.daemon.base import Base
from minga_peer.daemon.downloads import Downloads
from minga_peer.daemon.identity import Identity
from minga_peer.daemon.network import Network
from minga_peer.daemon.reading import LocalFiles, fetch_by
from minga_peer.daemon.registry_client import RegistryClient
from minga_peer.images.registries import parse_registries
from minga_peer.models.hub import Hub
from minga_peer.models.kept import HubOrKept, KeptRevisions
from minga_peer.origins._metrics import OriginMetrics
from minga_peer.origins.allowed import Allowed, parse_prefixes
from minga_peer.origins.cache import Cache, parse_limit
from minga_peer.origins.checking import Checked
from minga_peer.origins.means import Means
from minga_peer.origins.naming import OriginNames
from minga_peer.origins.origins import Origins
from minga_peer.origins.upstream import Upstream
from minga_peer.share.store import ContentStore

HASH_THREADS = 2
"""SHA-256 of files that come: apart from those that write and serve."""


class _Claims:
    """Implements `claims.Registry` for one peer."""

    def __init__(self, registry: RegistryClient, identity: Identity) -> None:
        self._registry = registry
        self._identity = identity

    async def claim_fetch(self, claim: FetchClaim) -> Fetcher | None:
        return await self._registry.claim_fetch(self._identity.lease, claim)


def make_origins(
    base: Base,
    store: ContentStore,
    identity: Identity,
    network: Network,
    directory: Directory,
    announcer: Announcer,
    downloads: Downloads,
    options: TransferOptions,
) -> Origins:
    """The origins of a daemon; see Origins."""

    async def announced(name: Name, timeout: timedelta) -> None:
        if (row := store.find(name)) is not None:
            await announcer.announced(row, timeout)

    settings = base.settings
    asked = [registry.url for registry in parse_registries(settings.images)] + ([settings.hub] if settings.hub else [])
    metrics = OriginMetrics(base.series)
    pool = DiskPool(HASH_THREADS, "origins")
    return Origins(
        Means(
            store,
            LocalFiles(store),
            directory,
            fetch_by(downloads),
            network.transport,
            DigestClient(network.connections),
            options,
            Upstream(Allowed(parse_prefixes(settings.fetch_allow), asked, endpoints_of(os.environ, settings.hub))),
            _Claims(network.registry, identity),
            announced,
            Checked(),
            pool,
            store.state_dir / "uploads",
            lambda: identity.http_port,
            base.clock,
            Cache(store, parse_limit(settings.cache), base.clock, pool, metrics),
            metrics,
        )
    )


def make_hub(base: Base, store: ContentStore, origins: Origins) -> HubOrKept | None:
    """The hub of a daemon; None for none."""
    url, now = base.settings.hub, base.clock.monotonic
    if not url:
        return None
    return HubOrKept(Hub(url, origins.upstream, now), KeptRevisions(store.state_dir / "hub", now), now)


def make_names(base: Base, hub: HubOrKept | None) -> OriginNames:
    """What names of files of origins stand for in a daemon."""
    return OriginNames(endpoints_of(os.environ, base.settings.hub), None if hub is None else hub.hub)
