"""The locator over a real server that is killed, paused and emptied under it."""

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

PLACE = "/v1/placements"
PATHS = ("/v1/files", "/v1/files/f", f"/v1/contents/{content('f')}", "/v1/peers", "/v1/peers/a", "/v1/stats")
LIMIT_SECONDS = 3.5
"""A request's 3 s, and the machine's breath."""


@pytest.fixture
async def api(own_redis: RedisServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a locator over `own_redis`, which is running and has a peer with a file."""
    own_redis.start()
    await share(own_redis)
    async with aclosing(connect_reader(own_redis.url)) as reader, calling(make_app(reader)) as client:
        yield client


async def share(server: RedisServer) -> None:
    """Peer `a` shares `f`."""
    async with aclosing(connect_writer(server.url)) as writer:
        await join(writer, "a", row("f"))


async def ask_all(api: httpx.AsyncClient) -> list[httpx.Response]:
    """Every route at once."""
    gets = [api.get(path) for path in PATHS]
    return list(await asyncio.gather(*gets, api.post(PLACE, json={"name": "g", "size_bytes": 1})))


async def test_every_route_answers_from_the_real_store(api: httpx.AsyncClient) -> None:
    """The same routes over Redis as over memory."""
    assert [answer.status_code for answer in await ask_all(api)] == [200] * 7
    (version,) = (await api.get("/v1/files/f")).json()["versions"]
    assert version["sources"] == [{"peer_id": "a", "address": "a:50053", "zone": "", "state": "complete"}]
    assert version["published_time"] == "2025-11-23T04:18:46.123456789Z"


async def test_a_killed_store_is_503_at_once_and_passes(api: httpx.AsyncClient, own_redis: RedisServer) -> None:
    """1. The server is killed: 503 everywhere, soon. 2. It comes back empty: answers are back, and empty. 3. Peers say
    it again: the file is back. Nothing is restarted."""
    assert (await api.get("/v1/files/f")).status_code == 200
    own_redis.kill()
    await eventually(lambda: api.get("/v1/files/f"), lambda answer: answer.status_code != 200)
    began = time.monotonic()
    for answer in await ask_all(api):
        assert problem_of(answer) == (503, "store_unavailable")
        assert "retry-after" in answer.headers
    assert time.monotonic() - began < LIMIT_SECONDS
    assert problem_of(await api.get("/readyz")) == (503, "store_unavailable")
    own_redis.start()
    await eventually(lambda: api.get("/readyz"), lambda answer: answer.status_code == 200)
    assert problem_of(await api.get("/v1/files/f")) == (404, "file_not_found")
    await share(own_redis)
    await eventually(lambda: api.get("/v1/files/f"), lambda answer: answer.status_code == 200)


async def test_a_store_that_hangs_is_503_within_the_limit(api: httpx.AsyncClient, own_redis: RedisServer) -> None:
    """A paused server takes connections and says nothing: no request hangs, liveness does not notice, and it passes."""
    assert (await api.get("/readyz")).status_code == 200
    own_redis.pause()
    # Look-ups answered a moment ago still come from the cache; another name is asked for.
    began = time.monotonic()
    waiting = asyncio.gather(ask_all(api), api.get("/v1/files/other"))
    assert problem_of(await api.get("/readyz")) == (503, "store_unavailable")
    assert time.monotonic() - began < 1.5
    assert (await api.get("/livez")).status_code == 200
    answers, other = await waiting
    assert time.monotonic() - began < LIMIT_SECONDS
    assert {problem_of(answer) for answer in (*answers, other)} == {(503, "store_unavailable")}
    own_redis.resume()
    await eventually(lambda: api.get("/readyz"), lambda answer: answer.status_code == 200)
    assert [answer.status_code for answer in await ask_all(api)] == [200] * 7
