"""What several kinds of clients are tried against."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.origins.hubs import MODEL, Hubs
from tests.origins.networks import gateways
from tests.support.alone import alone
from tests.support.hub import Repository, stub_hub


@pytest.fixture(name="hubs")
async def _hubs(tmp_path: Path) -> AsyncIterator[Hubs]:
    """Nothing but the loopback is there: neither clients nor peers ask anything else."""
    with alone() as asked_elsewhere:
        async with stub_hub() as hub:
            hub.repositories["org/model"] = Repository(MODEL)
            flags = ("--hub", hub.url, "--fetch-allow", hub.cdn)
            async with gateways(tmp_path / "net", 2, flags) as (net, urls):
                hubs = Hubs(hub, urls, net.peers, net.locator_url)
                yield hubs
        assert hubs.asks_dns or asked_elsewhere() == 0
