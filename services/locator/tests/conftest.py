"""Fixtures of the locator's tests."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry

from minga_core.clock import ManualClock
from minga_locator.app import make_app
from services.locator.tests.support import calling
from tests.support.memory_directory import MemoryDirectory
from tests.support.redis_server import RedisServer


@pytest.fixture
def clock() -> ManualClock:
    """The time of directory and cache."""
    return ManualClock()


@pytest.fixture
def directory(clock: ManualClock) -> MemoryDirectory:
    """What the locator reads."""
    return MemoryDirectory(clock)


@pytest.fixture
def registry() -> CollectorRegistry:
    """Where the locator's metrics go."""
    return CollectorRegistry()


@pytest.fixture
async def api(
    directory: MemoryDirectory, clock: ManualClock, registry: CollectorRegistry
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a locator over `directory`."""
    async with calling(make_app(directory, clock=clock, registry=registry)) as client:
        yield client


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that the test may kill and pause. Not started."""
    server = RedisServer()
    yield server
    server.close()
