"""A network whose second peer's gateway is tried: what it serves is on the first one."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from minga.control import ControlClient
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig, LocalPeer
from minga_core.names import parse_name
from minga_engine.wire.locator import LocatorClient
from tests.e2e.conftest import eventually

FILES = {
    "data/large.bin": os.urandom(24 * 1024 * 1024 + 17),
    "data/small.txt": b"0123456789" * 20,
    "data/empty": b"",
    "data/sub/ümlaut & 100%#?+;.txt": b"odd",
    "data/sub/a:b.txt": b"colon",
    "data/sub/<b>.html": b"<script>alert(1)</script>",
}


@dataclass(frozen=True, slots=True)
class Doors:
    """A running network. url: of the second peer's gateway."""

    net: LocalNetwork
    first: LocalPeer
    second: LocalPeer
    url: str


@asynccontextmanager
async def doors(folder: Path, **options: object) -> AsyncIterator[Doors]:
    """Two peers; the first one has FILES."""
    config = LocalNetworkConfig(
        peer_count=2,
        directory=folder / "net",
        peer_flags=("--gateway", "127.0.0.1:0"),
        **options,  # type: ignore[arg-type]
    )
    async with LocalNetwork(config) as net:
        await net.wait_ready()
        first, second = net.peers
        for name, data in FILES.items():
            path = first.share_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        await eventually(lambda: _listed(net.locator_url), "all files are found")
        async with ControlClient(second.control) as control:
            url = (await control.status()).gateway_url
        yield Doors(net, first, second, url)


async def _listed(locator_url: str) -> bool:
    async with LocatorClient(locator_url) as locator:
        found = await locator.find_newest([parse_name(name) for name in FILES])
    return len(found) == len(FILES)
