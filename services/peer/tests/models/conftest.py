"""A mirror in front of a hub in memory; what origins do is done in memory too."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from minga_peer.gateway.recent import Recent
from minga_peer.models._metrics import ModelMetrics
from minga_peer.models.hub import Hub
from minga_peer.models.kept import HubOrKept, KeptRevisions
from minga_peer.models.mirror import GIVEN_UP_SECONDS, READ_SECONDS, ModelMirror
from minga_peer.origins.allowed import Allowed
from minga_peer.origins.upstream import Upstream
from minga_runtime.trust.callers import Callers
from services.peer.tests.gateway.support import served
from tests.support.hub import LARGE, Repository, StubHub, stub_hub
from tests.support.memory_origins import Clock, MemoryOrigins

SMALL = b'{"model_type": "bert"}'
WEIGHTS = bytes(range(256)) * (LARGE // 256 * 3)


@dataclass
class Mirrored:
    """A running mirror of a running hub. client: of the mirror."""

    client: httpx.AsyncClient
    hub: StubHub
    origins: MemoryOrigins
    clock: Clock
    series: CollectorRegistry
    asked: HubOrKept
    stop_hub: Callable[[], Awaitable[None]]

    async def ask(
        self, path: str, method: str = "GET", token: str = "", body: bytes | None = None, **headers: str
    ) -> httpx.Response:
        """As the clients ask."""
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        return await self.client.request(method, f"/hf{path}", headers=headers, content=body)

    def outcomes(self, kind: str, outcome: str) -> float | None:
        """What was counted."""
        labels = {"kind": kind, "outcome": outcome}
        return self.series.get_sample_value("minga_peer_model_requests_total", labels)


@asynccontextmanager
async def running_mirror(
    callers: Callers | None = None, read_seconds: float = READ_SECONDS, **options: Any
) -> AsyncIterator[Mirrored]:
    """A mirror and its hub, which has `org/model`. callers: those of a secure network. options: as of `served`."""
    clock = Clock()
    async with AsyncExitStack() as stack:
        running_hub = AsyncExitStack()
        stub = await running_hub.enter_async_context(stub_hub())
        stop_hub = running_hub.aclose
        stack.push_async_callback(stop_hub)
        stub.repositories["org/model"] = Repository({"config.json": SMALL, "a b/w.safetensors": WEIGHTS, "empty": b""})
        upstream = Upstream(Allowed([stub.cdn], [stub.url]))
        hub, origins, series = Hub(stub.url, upstream, clock.monotonic), MemoryOrigins(upstream), CollectorRegistry()
        given_up, metrics = Recent(clock.monotonic, GIVEN_UP_SECONDS), ModelMetrics(series)
        folder = Path(stack.enter_context(TemporaryDirectory())) / "hub"
        asked = HubOrKept(hub, KeptRevisions(folder, clock.monotonic), clock.monotonic)
        mirror = ModelMirror(asked, origins, given_up, metrics, lambda source, count: None, read_seconds)
        gateway = served({}, callers, mirrors={"hf": mirror}, **options)
        async with gateway as running, httpx.AsyncClient(base_url=running.url) as client:
            yield Mirrored(client, stub, origins, clock, series, asked, stop_hub)
        await upstream.aclose()


@pytest.fixture
async def mirrored() -> AsyncIterator[Mirrored]:
    async with running_mirror() as found:
        yield found
