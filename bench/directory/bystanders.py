"""What other peers and their users notice while one peer does something large."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.directory.heartbeats import measure
from bench.directory.network import Network
from bench.directory.stats import percentile
from bench.directory.worker import Worker
from bench.product import ControlClient, LocatorClient
from minga_core.errors import MingaError
from minga_core.ids import PeerId
from minga_core.names import Name
from minga_directory import keys

LOOK_UP_SECONDS = 0.02
"""Between two look-ups."""
LEASE_SECONDS = 0.1
"""Between two looks at the leases."""
STATUS_SECONDS = 0.02
"""Between two calls to the large peer's control socket."""
HEARTBEAT_WINDOW_SECONDS = 1.0


@dataclass(slots=True)
class Noticed:
    """During one step. Times are in seconds."""

    look_ups: list[float] = field(default_factory=list)
    failed: int = 0
    """Look-ups without the answer."""
    heartbeats: list[dict[str, Any]] = field(default_factory=list)
    """See `heartbeats.measure`."""
    lease_left: float = float("inf")
    """The least that was left of any other peer's lease."""
    leases_lost: int = 0
    """Looks at a lease that found none."""
    statuses: list[float] = field(default_factory=list)
    """Answers of the large peer to its own machine: as long as its event loop was held up."""
    redis_bytes: int = 0
    """Most memory that Redis used."""
    over: bool = False
    """Set at the end, for the watchers: a call to a peer that is going away may not notice that it is cancelled."""

    def heartbeats_that(self, outcome: str) -> int:
        """outcome: `lost` (there was no lease any more) or `failed` (tried again)."""
        return sum(each[outcome] for each in self.heartbeats)

    def heartbeat_millis(self) -> str:
        """The slowest second's p99 of heartbeats, and the worst one."""
        answered = [each["seconds"] for each in self.heartbeats if each["count"]]
        p99, worst = (max((each[name] for each in answered), default=0.0) * 1000 for name in ("p99", "max"))
        return f"{p99:.0f} ms, worst {worst:.0f}"

    def look_up_millis(self) -> str:
        """p50, p99 and the worst look-up."""
        p50, p99 = (percentile(self.look_ups, share) * 1000 for share in (0.5, 0.99))
        return f"{p50:.0f}, {p99:.0f}, {max(self.look_ups, default=0.0) * 1000:.0f} ms"


class Bystanders:
    """Watches. peers: those with leases to watch, beside the simulated ones of `worker`; names: theirs."""

    def __init__(self, network: Network, worker: Worker, peers: list[PeerId], names: list[Name]) -> None:
        self._network = network
        self._worker = worker
        self._peers = peers
        self._names = names

    @asynccontextmanager
    async def watching(self, control: Path) -> AsyncIterator[Noticed]:
        """What is noticed inside the block. control: the large peer's socket."""
        noticed = Noticed()
        watchers = (self._look_up(noticed), self._leases(noticed), self._heartbeats(noticed), _ask(control, noticed))
        async with asyncio.TaskGroup() as group:
            for each in watchers:
                group.create_task(each)
            try:
                yield noticed
            finally:
                noticed.over = True

    async def _look_up(self, noticed: Noticed) -> None:
        rng = random.Random(1)
        async with LocatorClient(f"http://{self._network.locators[0]}") as client:
            while not noticed.over:
                started = time.perf_counter()
                try:
                    await client.find_file(rng.choice(self._names))
                    noticed.look_ups.append(time.perf_counter() - started)
                except MingaError:
                    noticed.failed += 1
                await asyncio.sleep(LOOK_UP_SECONDS)

    async def _leases(self, noticed: Noticed) -> None:
        client = self._network.store.client
        while not noticed.over:
            for peer in self._peers:
                left = await client.pttl(keys.peer(peer)) / 1000
                noticed.leases_lost += left < 0
                noticed.lease_left = min(noticed.lease_left, left)
            noticed.redis_bytes = max(noticed.redis_bytes, await self._network.store.memory_bytes())
            await asyncio.sleep(LEASE_SECONDS)

    async def _heartbeats(self, noticed: Noticed) -> None:
        while not noticed.over:
            noticed.heartbeats.append(await self._worker.run(measure, HEARTBEAT_WINDOW_SECONDS))


async def _ask(control: Path, noticed: Noticed) -> None:
    async with ControlClient(control) as client:
        while not noticed.over:
            started = time.perf_counter()
            # It may be stopped.
            with suppress(MingaError):
                await client.status()
                noticed.statuses.append(time.perf_counter() - started)
            await asyncio.sleep(STATUS_SECONDS)
