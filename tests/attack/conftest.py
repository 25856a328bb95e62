"""One network for each module, and a look at it after each attack."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from .network import Network, network


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """A secure network, which each test has to leave as it was: see `unharmed`."""
    async with network(tmp_path_factory.mktemp("secure"), secure=True, rights=True) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """As `secure`, an open network."""
    async with network(tmp_path_factory.mktemp("open"), secure=False) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def unharmed(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Of the honest peers all is as it was before the first test."""
    used = [name for name in ("secure", "opened") if name in request.fixturenames]
    networks: list[Network] = [request.getfixturevalue(name) for name in used]
    yield
    for each in networks:
        await each.is_as_it_was()
