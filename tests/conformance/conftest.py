"""One suite over every implementation: in memory, a real server, and one in cluster mode that refuses to span slots."""

from collections.abc import AsyncIterator, Iterator

import pytest

from minga_core.clock import ManualClock
from minga_directory import MemoryDirectory
from tests.conformance.harness import Harness, over
from tests.support.redis_server import RedisServer, redis_server, redis_url

__all__ = ["redis_server", "redis_url"]


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[RedisServer]:
    """A server in cluster mode."""
    server = RedisServer(cluster=True)
    server.start()
    yield server
    server.close()


@pytest.fixture(
    params=["memory", pytest.param("redis", marks=pytest.mark.redis), pytest.param("cluster", marks=pytest.mark.redis)]
)
async def directory(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """An empty directory, in each implementation."""
    if request.param == "memory":
        clock = ManualClock()
        memory = MemoryDirectory(clock)
        yield Harness(memory, memory, clock)
        return
    server: RedisServer = request.getfixturevalue(f"{request.param}_server")
    server.flush()
    async with over(server.url) as harness:
        yield harness


@pytest.fixture
async def on_redis(redis_url: str) -> AsyncIterator[Harness]:
    """An empty directory on the real server."""
    async with over(redis_url) as harness:
        yield harness
