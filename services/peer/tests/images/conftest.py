"""A mirror in front of a registry in memory; what origins do is done in memory too."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from minga_peer.gateway.recent import Recent
from minga_peer.images._metrics import ImageMetrics
from minga_peer.images.mirror import GIVEN_UP_SECONDS, PUBLIC_SECONDS, ImageMirror
from minga_peer.images.registries import Registries, parse_registries
from minga_peer.images.upstream import ImageUpstream
from minga_peer.origins.allowed import Allowed
from minga_peer.origins.upstream import Upstream
from minga_runtime.trust.callers import Callers
from services.peer.tests.gateway.support import served
from services.peer.tests.images.registry import StubRegistry, stub_registry
from tests.support.memory_origins import Clock, MemoryOrigins


@dataclass
class Mirrored:
    """A running mirror of a running registry. client: of the mirror."""

    client: httpx.AsyncClient
    registry: StubRegistry
    origins: MemoryOrigins
    clock: Clock
    series: CollectorRegistry

    @property
    def ns(self) -> str:
        """The registry's name."""
        return self.registry.url.removeprefix("http://")

    async def ask(self, path: str, method: str = "GET", ns: str | None = None, **headers: str) -> httpx.Response:
        """As containerd asks."""
        query = {"ns": self.ns if ns is None else ns}
        return await self.client.request(method, f"/v2/{path}", params=query, headers=headers)


@asynccontextmanager
async def running_mirror(callers: Callers | None = None, **options: Any) -> AsyncIterator[Mirrored]:
    """A mirror and its registry. callers: those of a secure network. options: as of `served`."""
    clock = Clock()
    async with stub_registry() as registry:
        registries = parse_registries(registry.url)
        upstream = Upstream(Allowed(registries=[each.url for each in registries]))
        origins = MemoryOrigins(upstream)
        asking = ImageUpstream(upstream, clock.monotonic)
        given_up, metrics = Recent(clock.monotonic, GIVEN_UP_SECONDS), ImageMetrics(series := CollectorRegistry())
        public = None if callers is None else Recent(clock.monotonic, PUBLIC_SECONDS)
        mirror = ImageMirror(
            Registries(registries), asking, origins, given_up, public, metrics, lambda source, count: None
        )
        gateway = served({}, callers, mirrors={"v2": mirror}, **options)
        async with gateway as running, httpx.AsyncClient(base_url=running.url) as client:
            yield Mirrored(client, registry, origins, clock, series)
        await upstream.aclose()


@pytest.fixture
async def mirrored() -> AsyncIterator[Mirrored]:
    async with running_mirror() as found:
        yield found
