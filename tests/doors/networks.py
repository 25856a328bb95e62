"""A network whose second peer's gateway is tried: what it serves is on the first one."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from minga.control import ControlClient
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig, LocalPeer
from minga_core.names import parse_name
from minga_engine.wire.locator import LocatorClient
from tests.e2e.conftest import eventually

T = TypeVar("T")

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
    """A running network. url: of the second peer's gateway. loop: of the network."""

    net: LocalNetwork
    first: LocalPeer
    second: LocalPeer
    url: str
    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of what another thread has the network do."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


async def gateway_of(peer: LocalPeer) -> str:
    """The URL of a peer's gateway."""
    async with ControlClient(peer.control) as control:
        return (await control.status()).gateway_url


@asynccontextmanager
async def doors(folder: Path, **options: Any) -> AsyncIterator[Doors]:
    """Two peers; the first one has FILES. options: as LocalNetworkConfig has them."""
    config = LocalNetworkConfig(
        peer_count=2,
        directory=folder / "net",
        **({"peer_flags": ("--gateway", "127.0.0.1:0")} | options),
    )
    async with LocalNetwork(config) as net:
        await net.wait_ready()
        first, second = net.peers
        for name, data in FILES.items():
            path = first.share_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        await eventually(lambda: _listed(net.locator_url), "all files are found")
        yield Doors(net, first, second, await gateway_of(second), asyncio.get_running_loop())


@contextmanager
def doors_beside(folder: Path, **options: Any) -> Iterator[Doors]:
    """As `doors`, in a thread of its own: a browser's tests are no coroutines."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    network = doors(folder, **options)
    try:
        found = asyncio.run_coroutine_threadsafe(network.__aenter__(), loop).result(60)
        try:
            yield found
        finally:
            asyncio.run_coroutine_threadsafe(network.__aexit__(None, None, None), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _listed(locator_url: str) -> bool:
    async with LocatorClient(locator_url) as locator:
        found = await locator.find_newest([parse_name(name) for name in FILES])
    return len(found) == len(FILES)
