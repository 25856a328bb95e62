"""Every metric of the locator: there from the start, and moved by its thing, in a whole locator over a real store."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import httpx
import pytest

from minga_directory import connect_writer
from minga_locator.__main__ import serve
from minga_locator.settings import LocatorSettings
from minga_runtime.process import StopSignal
from minga_runtime.settings import load_settings
from services.locator.tests.support import join, row
from tests.support.exposition import LIMIT_SECONDS, Exposition, documented, scraped, until_shown
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis


@dataclass
class Whole:
    """A locator as its process runs it, and its store, in which peer `a` shares `f`."""

    api: httpx.AsyncClient
    store: RedisServer
    address: str
    waiting: list[asyncio.Task[httpx.Response]] = field(default_factory=list)
    """Requests that are not answered yet."""

    async def scrape(self) -> Exposition:
        """What it tells now."""
        return await scraped(self.address)


@pytest.fixture
async def whole(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Whole]:
    """A fresh one."""
    caplog.set_level(logging.INFO)
    own_redis.start()
    async with aclosing(connect_writer(own_redis.url)) as writer:
        await join(writer, "a", row("f"))
    stop = StopSignal()
    settings = load_settings(LocatorSettings, redis_url=own_redis.url, listen="127.0.0.1:0", stop_grace="0")
    serving = asyncio.create_task(serve(settings, stop))
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not (address := _address(caplog)):
                assert not serving.done(), await serving
                await asyncio.sleep(0.005)
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=LIMIT_SECONDS) as api:
            made = Whole(api, own_redis, address)
            yield made
            if made.waiting:
                own_redis.resume()
            await asyncio.gather(*made.waiting)
    finally:
        stop.set()
        await serving


def _address(caplog: pytest.LogCaptureFixture) -> str:
    """Where it serves, once it says so."""
    found = [vars(record)["fields"] for record in caplog.records if record.getMessage() == "locator_started"]
    return str(found[0]["address"]) if found else ""


async def look_up(whole: Whole) -> None:
    """Who has a file?"""
    assert (await whole.api.get("/v1/files/f")).status_code == 200


async def place(whole: Whole) -> None:
    """Where may a file go?"""
    assert (await whole.api.post("/v1/placements", json={"name": "g", "size_bytes": 1})).status_code == 200


async def wait(whole: Whole) -> None:
    """A look-up that the store keeps waiting."""
    whole.store.pause()
    whole.waiting.append(asyncio.create_task(whole.api.get("/v1/files/f")))


Deed = Callable[[Whole], Awaitable[None]]
MOVERS: dict[str, tuple[Deed, dict[str, str]]] = {
    "minga_locator_active_requests": (wait, {}),
    "minga_locator_cache_lookups_total": (look_up, {"result": "miss"}),
    "minga_locator_lookups_total": (look_up, {"result": "hit"}),
    "minga_locator_placements_total": (place, {}),
    "minga_locator_redis_duration_seconds": (look_up, {"operation": "find", "outcome": "ok"}),
    "minga_locator_request_duration_seconds": (look_up, {"route": "/v1/files/{name:any}", "status": "2xx"}),
}
"""What moves it, and the labels of the series that moves."""
CONSTANT = {"minga_locator_build_info", "minga_locator_tasks"}
"""And what `describe_process` is tested for."""


async def test_all_that_is_documented_is_there_from_the_start_and_nothing_else(whole: Whole) -> None:
    """Before anybody has asked. Memory, processor and descriptors of the process too."""
    first = await whole.scrape()
    assert first.names == documented("locator")
    assert first.value("minga_locator_build_info") == 1
    assert first.value("process_resident_memory_bytes") > 1e6
    assert first.value("process_cpu_seconds_total") > 0
    assert first.value("process_open_fds") > 0
    assert set(first.types) - first.names == {name for name in first.types if name.startswith("process_")}


async def test_every_route_has_its_series_from_the_start(whole: Whole) -> None:
    """At 0, and under the name that a request of it is counted by: the first one shows in a rate."""
    first = await whole.scrape()
    name = "minga_locator_request_duration_seconds_count"
    routes = {each.labels["route"] for each in first.samples if each.name == name}
    await look_up(whole)
    await whole.api.get("/v1/peers/a")
    await place(whole)
    now = await whole.scrape()
    assert {each.labels["route"] for each in now.samples if each.name == name} == routes
    assert {"/v1/files", "/v1/placements", "/readyz"} < routes


@pytest.mark.parametrize("name", MOVERS)
async def test_a_metric_moves_when_its_thing_happens(whole: Whole, name: str) -> None:
    """Seen over its own door."""
    deed, labels = MOVERS[name]
    before = (await whole.scrape()).value(name, **labels)
    await deed(whole)
    await until_shown(whole.scrape, lambda now: now.value(name, **labels) != before)


def test_every_metric_has_such_a_test() -> None:
    """Those that are new as well."""
    assert MOVERS.keys() | CONSTANT == documented("locator")


async def test_requests_are_under_way_until_they_are_answered(whole: Whole) -> None:
    """The scrape itself is one of them."""
    assert (await whole.scrape()).value("minga_locator_active_requests") == 1
    await wait(whole)
    await until_shown(whole.scrape, lambda now: now.value("minga_locator_active_requests") == 2)
    whole.store.resume()
    await until_shown(whole.scrape, lambda now: now.value("minga_locator_active_requests") == 1)


async def test_a_store_that_is_away_is_told_by_operation(whole: Whole) -> None:
    """Look-ups and calls to the store end as unavailable, and the request is a 5xx."""
    whole.store.kill()
    assert (await whole.api.get("/v1/files/other")).status_code == 503
    now = await whole.scrape()
    assert now.value("minga_locator_redis_duration_seconds", operation="find", outcome="unavailable") == 1
    assert now.value("minga_locator_lookups_total", result="unavailable") == 1
    assert now.value("minga_locator_request_duration_seconds", status="5xx") == 1
