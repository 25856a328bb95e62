"""Fixtures of the registry's tests."""

from collections.abc import AsyncIterator

import pytest

from services.registry.tests.support import RememberedDirectory, Running, serving


@pytest.fixture
def directory() -> RememberedDirectory:
    """What the registry writes to."""
    return RememberedDirectory()


@pytest.fixture
async def registry(directory: RememberedDirectory) -> AsyncIterator[Running]:
    """A registry over `directory`."""
    async for running in serving(directory):
        yield running
