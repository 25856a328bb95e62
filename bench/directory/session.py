"""One run: its folder, its scale, and stores that are filled once for all rows that want the same."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from bench.directory.network import Network, running_network
from bench.directory.scale import Scale
from bench.directory.store import Store
from bench.directory.worker import Worker
from bench.directory.world import World

FILLERS = 2
FILL_SECONDS = 3_600.0


@dataclass(slots=True)
class Session:
    """What rows have in hand."""

    directory: Path
    """On the disk; whoever made it removes it."""
    scale: Scale
    snapshots: Path
    """Where filled stores are kept. May outlive the run."""
    _networks: Any = field(default_factory=lambda: count(1))

    @asynccontextmanager
    async def network(self) -> AsyncIterator[Network]:
        """A new, empty network."""
        async with running_network(self.directory / f"n{next(self._networks)}") as network:
            yield network

    async def filled(self) -> Path:
        """A snapshot of a store for look-ups and the catalogue, whose leases last for hours."""
        scale = self.scale
        world = World(scale.lookup_names, scale.lookup_holders, scale.lookup_peers)
        rest = scale.catalogue_names - scale.lookup_names
        name = f"{scale.lookup_names}x{scale.lookup_holders}-{scale.lookup_peers}+{rest}-{_layout()}.rdb"
        path = self.snapshots / name
        if path.exists():
            return path
        self.snapshots.mkdir(parents=True, exist_ok=True)
        home = self.directory / "filling"
        store = Store(home / "store")
        await store.start()
        try:
            took = await self._fill(store.url, home, names=world.names, copies=world.copies, peers=world.peers)
            print(f"  filled a store with {world.entries:,} entries in {took:.0f} s", flush=True)
            if rest:
                more = {"first_name": scale.lookup_names, "first_peer": scale.lookup_peers}
                await self._fill(store.url, home, names=rest, copies=1, peers=_divisor(rest), **more)
            await store.snapshot(path)
        finally:
            await store.stop()
        return path

    async def _fill(self, url: str, home: Path, **world: int) -> float:
        """Fills with several processes; the seconds it took."""
        async with AsyncExitStack() as stack:
            workers = [
                await stack.enter_async_context(
                    Worker(f"fill-{part}", "bench.directory.fill", home / f"fill-{part}.log")
                )
                for part in range(FILLERS)
            ]
            asked = [
                worker.ask("fill", limit_seconds=FILL_SECONDS, url=url, part=part, parts=FILLERS, **world)
                for part, worker in enumerate(workers)
            ]
            return max(answer["seconds"] for answer in await asyncio.gather(*asked))


def _divisor(names: int) -> int:
    """Peers among whom that many names are shared evenly, about a thousand or more names each."""
    return next(peers for peers in range(max(1, names // 1_000), 0, -1) if names % peers == 0)


def _layout() -> str:
    """Of what the directory writes: a snapshot of another version is none of ours."""
    import minga_directory

    digest = hashlib.sha256()
    for path in sorted(Path(minga_directory.__file__).parent.rglob("*")):
        if path.suffix in (".py", ".lua"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
