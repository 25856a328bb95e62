"""One suite over every implementation: in memory, a real server, and one in cluster mode that refuses to span slots.

Or over a store that somebody else has started (deploy/tests/redis does so with each kind of Redis there is): its URL is
in CONFORMANCE_URL, and in CONFORMANCE_ADMIN are URLs of all its primaries as somebody who may empty them.
"""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from minga_core.clock import ManualClock
from minga_directory import cluster, store
from tests.conformance.harness import Harness, over
from tests.support.memory_directory import MemoryDirectory
from tests.support.redis_server import RedisServer

GIVEN = os.environ.get("CONFORMANCE_URL", "")
REDIS = pytest.mark.redis
STORES = ["given"] if GIVEN else ["memory", pytest.param("redis", marks=REDIS), pytest.param("cluster", marks=REDIS)]


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of calls at once may take longer on a busy machine. How long the directory waits: `test_recovery`."""
    if not request.path.name.startswith("test_recovery"):
        monkeypatch.setattr(store, "ANSWER_SECONDS", 30.0)
        monkeypatch.setattr(cluster, "REDIRECTION_SECONDS", 30.0)
        monkeypatch.setattr(cluster, "MAP_SECONDS", 30.0)


class GivenStore:
    """What somebody else has started."""

    url = GIVEN

    def flush(self) -> None:
        """Forgets all keys and all scripts."""
        for admin in os.environ["CONFORMANCE_ADMIN"].split():
            with redis.Redis.from_url(admin) as client:
                client.flushall()
                client.script_flush()


@pytest.fixture(scope="session")
def given_server() -> GivenStore:
    """The store of CONFORMANCE_URL."""
    return GivenStore()


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer | GivenStore]:
    """One server for the session: the one given, or a process. A test that stops it has to start it again."""
    if GIVEN:
        yield request.getfixturevalue("given_server")
        return
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[RedisServer]:
    """A server in cluster mode."""
    server = RedisServer(cluster=True)
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer | GivenStore) -> str:
    """URL of the session's server, emptied."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(params=STORES)
async def directory(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """An empty directory, in each implementation."""
    if request.param == "memory":
        clock = ManualClock()
        memory = MemoryDirectory(clock)
        yield Harness(memory, memory, clock)
        return
    server: RedisServer | GivenStore = request.getfixturevalue(f"{request.param}_server")
    server.flush()
    async with over(server.url) as harness:
        yield harness


@pytest.fixture
async def on_redis(redis_url: str) -> AsyncIterator[Harness]:
    """An empty directory on the real server."""
    async with over(redis_url) as harness:
        yield harness
