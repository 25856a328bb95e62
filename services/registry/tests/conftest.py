"""Fixtures of the registry's tests."""

from collections.abc import AsyncIterator

import pytest

from services.registry.tests.support import RememberedDirectory, Running, serving
from tests.support.redis_server import redis_server, redis_url

__all__ = ["redis_server", "redis_url"]


@pytest.fixture
def directory() -> RememberedDirectory:
    """What the registry writes to."""
    return RememberedDirectory()


@pytest.fixture
async def registry(directory: RememberedDirectory) -> AsyncIterator[Running]:
    """A registry over `directory`."""
    async with serving(directory) as running:
        yield running
