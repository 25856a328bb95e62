"""The locator's metrics: what exists from the start, and what each request changes."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.locator.tests.support import join, row
from tests.support.exposition import Exposition, documented
from tests.support.memory_directory import MemoryDirectory

Scrape = Callable[[], Exposition]


@pytest.fixture
def scrape(api: httpx.AsyncClient, registry: CollectorRegistry) -> Scrape:
    """Reads the metrics of the locator that `api` calls."""
    return lambda: Exposition.of(generate_latest(registry).decode())


async def test_every_documented_metric_exists_from_the_start(scrape: Scrape) -> None:
    """And no other of ours; the process's own metrics are there too."""
    first = scrape()
    assert first.names == documented("locator")
    assert set(first.types) - first.names == {name for name in first.types if name.startswith("process_")}
    assert first.value("minga_locator_build_info") == 1
    assert first.value("process_open_fds") > 0


async def test_metrics_are_served(api: httpx.AsyncClient) -> None:
    """In the Prometheus text format; the scrape itself is an active request."""
    served = Exposition.of((await api.get("/metrics")).text)
    assert served.value("minga_locator_active_requests") == 1


async def test_lookups_are_counted_by_result(
    api: httpx.AsyncClient, directory: MemoryDirectory, scrape: Scrape
) -> None:
    """hit, miss and unavailable, of the look-up and of the cache; and the calls to the store by their outcome."""
    await join(directory, "a", row("f"))
    for name in ("f", "f", "g"):
        await api.get(f"/v1/files/{name}")
    directory.available = False
    await api.get("/v1/files/h")
    now = scrape()
    results = ("hit", "miss", "unavailable")
    assert [now.value("minga_locator_lookups_total", result=result) for result in results] == [2, 1, 1]
    assert [now.value("minga_locator_cache_lookups_total", result=result) for result in results[:2]] == [1, 3]
    outcomes = ("ok", "unavailable")
    calls = [
        now.value("minga_locator_redis_duration_seconds", operation="find", outcome=outcome) for outcome in outcomes
    ]
    assert calls == [2, 1]


async def test_placements_are_counted_by_peer(
    api: httpx.AsyncClient, directory: MemoryDirectory, scrape: Scrape
) -> None:
    """Each peer of an answer counts."""
    await asyncio.gather(join(directory, "a"), join(directory, "b"))
    await api.post("/v1/placements", json={"name": "f", "size_bytes": 1, "replicas": 5})
    assert scrape().value("minga_locator_placements_total") == 2


async def test_requests_are_timed_by_route_and_status_class(api: httpx.AsyncClient, scrape: Scrape) -> None:
    """Labels are templates, never names; every route has its series from the start, so the first request shows."""
    name = "minga_locator_request_duration_seconds_count"
    routes = {sample.labels["route"] for sample in scrape().samples if sample.name == name}
    assert {"/v1/files", "/v1/placements", "/readyz"} < routes
    for path in ("/v1/files/a", "/v1/files/b", "/v1/files", "/nothing", "/nothing/else"):
        await api.get(path)
    counts = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in scrape().samples
        if sample.name == name and sample.value
    }
    assert counts == {("/v1/files/{name:any}", "4xx"): 2, ("/v1/files", "2xx"): 1, ("none", "4xx"): 2}
