"""The locator over a real server that is killed, emptied and paused under it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
import pytest

from minga_directory import connect_reader, connect_writer
from minga_locator.app import make_app
from services.locator.tests.support import calling, content, eventually, join, problem_of, row
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis

PATHS = ("/v1/files", "/v1/files/f", f"/v1/contents/{content('f')}", "/v1/peers", "/v1/peers/a", "/v1/stats")
LIMIT_SECONDS = 3.0 + 3.0
"""A request's, and some time for a busy machine; the store says nothing for as long as the test lasts."""


@pytest.fixture
async def api(own_redis: RedisServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a locator over `own_redis`, in which a peer shares a file."""
    own_redis.start()
    await share(own_redis)
    async with aclosing(connect_reader(own_redis.url)) as reader, calling(make_app(reader)) as client:
        yield client


async def share(server: RedisServer) -> None:
    """Peer `a` shares `f`."""
    async with aclosing(connect_writer(server.url)) as writer:
        await join(writer, "a", row("f"))


async def call_all(api: httpx.AsyncClient) -> list[httpx.Response]:
    """Every operation at once."""
    calls = [api.get(path) for path in PATHS]
    return list(await asyncio.gather(*calls, api.post("/v1/placements", json={"name": "g", "size_bytes": 1})))


async def test_a_killed_store_is_503_until_it_is_back(api: httpx.AsyncClient, own_redis: RedisServer) -> None:
    """1. Everything is answered. 2. The server is killed: 503 everywhere, in time. 3. It comes back empty: so are the
    answers. 4. The peer registers again: its file is back. Nothing is restarted."""
    assert [answer.status_code for answer in await call_all(api)] == [200] * 7
    (version,) = (await api.get("/v1/files/f")).json()["versions"]
    assert version["sources"] == [{"peer_id": "a", "address": "a:50053", "zone": "", "state": "complete"}]
    own_redis.kill()
    # Answers are kept for a moment, each from when it was read.
    await eventually(lambda: call_all(api), lambda answers: 200 not in [each.status_code for each in answers])
    started = time.monotonic()
    for answer in [*await call_all(api), await api.get("/readyz")]:
        assert problem_of(answer) == (503, "store_unavailable")
        assert "retry-after" in answer.headers
    assert time.monotonic() - started < LIMIT_SECONDS
    own_redis.start()
    await eventually(lambda: api.get("/readyz"), lambda answer: answer.status_code == 200)
    assert problem_of(await api.get("/v1/files/f")) == (404, "file_not_found")
    await share(own_redis)
    await eventually(lambda: api.get("/v1/files/f"), lambda answer: answer.status_code == 200)


async def test_a_store_that_hangs_is_503_within_the_limit(api: httpx.AsyncClient, own_redis: RedisServer) -> None:
    """A paused server accepts connections and answers nothing: no request hangs, liveness is not affected."""
    assert (await api.get("/readyz")).status_code == 200
    own_redis.pause()
    started = time.monotonic()
    waiting = asyncio.create_task(call_all(api))
    assert problem_of(await api.get("/readyz")) == (503, "store_unavailable")
    assert (await api.get("/livez")).status_code == 200
    assert {problem_of(answer) for answer in await waiting} == {(503, "store_unavailable")}
    assert time.monotonic() - started < LIMIT_SECONDS
    own_redis.resume()
    await eventually(lambda: api.get("/readyz"), lambda answer: answer.status_code == 200)
    assert [answer.status_code for answer in await call_all(api)] == [200] * 7
