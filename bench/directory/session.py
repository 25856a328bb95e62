"""One run: its folder, its scale, its networks, and one filled store for all scenarios that only read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from bench.directory.fill import fill
from bench.directory.fixture import Layout
from bench.directory.network import Network, running_network
from bench.directory.scale import Scale
from bench.directory.worker import Worker

FILLERS = 2


@dataclass(slots=True)
class Session:
    """What scenarios have in hand."""

    directory: Path
    """On the disk; its owner removes it."""
    scale: Scale
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _filled: Network | None = None
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def network(self) -> AsyncIterator[Network]:
        """A new, empty network."""
        async with running_network(self.directory / f"n{next(self._numbers)}") as network:
            yield network

    async def filled(self) -> Network:
        """A locator and its rival over a filled store whose leases last for hours; the same one each time."""
        if self._filled is None:
            network = await self._stack.enter_async_context(self.network())
            await network.start_store()
            scale = self.scale
            layout = Layout(scale.lookup_names, scale.lookup_holders, scale.lookup_peers)
            rest = scale.catalogue_names - scale.lookup_names
            await _fill(network.store.url, layout)
            await _fill(network.store.url, Layout(rest, 1, _divisor(rest)), scale.lookup_names, scale.lookup_peers)
            await network.start_locator()
            await network.start_rival()
            self._filled = network
        return self._filled


async def _fill(url: str, layout: Layout, first_name: int = 0, first_peer: int = 0) -> None:
    with Worker() as one, Worker() as other:
        parts = [list(range(part, layout.peers, FILLERS)) for part in range(FILLERS)]
        works = [
            worker.run(fill, url, layout, part, first_name, first_peer)
            for worker, part in zip((one, other), parts, strict=True)
        ]
        await asyncio.gather(*works)


def _divisor(names: int) -> int:
    """Peers among whom that many names are divided evenly, about a thousand or more names each."""
    return next(peers for peers in range(max(1, names // 1_000), 0, -1) if names % peers == 0)
