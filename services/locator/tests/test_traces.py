"""Requests as spans, with the store's part below them."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from minga_core.clock import ManualClock
from minga_locator.app import make_app
from services.locator.tests.support import calling, join, row
from tests.support.memory_directory import MemoryDirectory
from tests.support.spans import KeepingTracer, keeping_spans

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[KeepingTracer]:
    """Traces are on."""
    with keeping_spans() as tracer:
        yield tracer


@pytest.fixture
async def traced(
    spans: KeepingTracer, directory: MemoryDirectory, clock: ManualClock
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a locator that was made with traces on."""
    async with calling(make_app(directory, clock=clock)) as client:
        yield client


async def test_a_lookup_is_a_span_below_its_callers(
    traced: httpx.AsyncClient, spans: KeepingTracer, directory: MemoryDirectory
) -> None:
    """Named after its route; its call to the store is below it, and an answer from the cache has no such call."""
    await join(directory, "a", row("data/set.bin"))
    for _ in range(2):
        assert (await traced.get("/v1/files/data/set.bin", headers={"traceparent": CALLER})).status_code == 200
    first, store, second = spans.spans
    for span in (first, second):
        assert (span.name, span.kind, span.parent) == ("GET /v1/files/{name:any}", "server", CALLER)
        assert span.attributes["http.request.method"] == "GET"
        assert span.attributes["http.response.status_code"] == 200
        assert span.attributes["url.path"] == "/v1/files/data/set.bin"
        assert span.ended
    assert (store.name, store.kind, store.parent) == ("redis find", "client", first.traceparent)
    assert store.attributes["db.system.name"] == "redis"


async def test_only_a_5xx_fails_its_span(
    traced: httpx.AsyncClient, spans: KeepingTracer, directory: MemoryDirectory
) -> None:
    """A 404 does not; 503 does."""
    await traced.get("/v1/files/nothing")
    directory.available = False
    await traced.get("/v1/stats")
    missing, failed = [span for span in spans.spans if span.kind == "server"]
    assert (missing.error, missing.attributes["http.response.status_code"]) == ("", 404)
    assert (failed.error, failed.attributes["http.response.status_code"]) == ("503", 503)
