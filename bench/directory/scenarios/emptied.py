"""Redis loses everything under a thousand peers that go on."""

import asyncio
import random
import time
from contextlib import suppress

from bench.directory import fixture
from bench.directory.fixture import Layout
from bench.directory.fleet import noticed
from bench.directory.network import Network
from bench.directory.scenarios.heartbeats import count_peers
from bench.directory.session import Session
from bench.directory.worker import Worker
from bench.netns import LabError
from bench.results import Outcome
from minga_core.errors import StoreUnavailableError
from minga_directory import connect_reader

SHARE = 0.99
SECONDS = 10.0
COPIES = 10
REGISTRIES = 2
FLEETS = 2
SETTLE_SECONDS = 3.0
POLL_SECONDS = 0.25
LIMIT_SECONDS = 300.0
IN_USE_NAMES = 100


class Emptied:
    """FLUSHALL and no scripts, as after a restart; then every peer registers and pushes again."""

    name = "emptied"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class."""
        scale = session.scale
        layout = Layout(scale.emptied_peers * scale.emptied_files // COPIES, COPIES, scale.emptied_peers)
        outcome = Outcome(
            self.name,
            f"{layout.peers:,} simulated peers (the real announcer) with {layout.files_a_peer:,} files each, "
            f"{REGISTRIES} registries",
        )
        async with session.network() as network:
            await network.start_store()
            for _ in range(REGISTRIES):
                await network.start_registry()
            fleets = await network.start_fleets(layout, [range(part, layout.peers, FLEETS) for part in range(FLEETS)])
            await asyncio.sleep(SETTLE_SECONDS)
            await network.store.slow()
            meter = network.meter()
            emptied_at = time.monotonic()
            await network.store.empty()
            in_use_seconds, back_seconds = await asyncio.gather(
                _in_use_back(network, layout, emptied_at), _back(network, layout.entries, emptied_at)
            )
            use = meter.read("peers announce everything again")
            outcome.uses.append(use)
            await _judge(outcome, fleets, emptied_at, back_seconds, layout)
            outcome.inform(
                "Redis emptied: names that others request, a tenth of all, found again",
                f"{in_use_seconds:.1f} s after the loss ({back_seconds:.1f} s for all)",
            )
            outcome.inform("Redis emptied: commands over 10 ms meanwhile", await network.store.slow() or "none")
        store, registries, peers = (
            use.cpu_seconds(name) / layout.entries * 1e6 for name in ("store", "registry", "fleet")
        )
        outcome.inform(
            "Redis emptied: processor time of an entry",
            f"{store:.1f} µs of the store, {registries:.1f} µs of registries, {peers:.1f} µs of the simulated peers",
        )
        return outcome


async def _judge(outcome: Outcome, fleets: list[Worker], emptied_at: float, back: float, layout: Layout) -> None:
    times = sorted([at for fleet in fleets for at in await fleet.run(noticed, emptied_at)])
    if len(times) < SHARE * layout.peers:
        raise LabError(f"{len(times)} of {layout.peers} peers noticed that the store was empty")
    most = times[min(len(times) - 1, int(SHARE * layout.peers))]
    outcome.judge(
        f"Redis emptied: {SHARE:.0%} of {layout.entries:,} entries back after the peers notice",
        f"≤ {SECONDS:g} s",
        f"{max(0.0, back - most):.1f} s after {SHARE:.0%} of the peers had noticed",
        back - most <= SECONDS,
    )
    outcome.inform(
        "Redis emptied: from the loss on",
        f"first peer noticed after {times[0]:.1f} s, {SHARE:.0%} after {most:.1f} s, entries back after {back:.1f} s",
    )


async def _in_use_back(network: Network, layout: Layout, since: float) -> float:
    """Seconds until some names that are in use are found, of whichever holder. Raises LabError."""
    numbers = [number for number in range(layout.names) if fixture.is_in_use(number)]
    wanted = [fixture.name(number) for number in random.Random(1).sample(numbers, min(IN_USE_NAMES, len(numbers)))]
    reader = connect_reader(network.store.url)
    try:
        while time.monotonic() < since + LIMIT_SECONDS:
            asked_at = time.monotonic()
            with suppress(StoreUnavailableError):
                if all(await reader.find_newest(wanted, max_holders=1)):
                    return asked_at - since
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await reader.aclose()
    raise LabError(f"names in use were not back within {LIMIT_SECONDS:g} s")


async def _back(network: Network, entries: int, since: float) -> float:
    """Seconds until that share of the entries is there. Raises LabError."""
    reader = connect_reader(network.store.url)
    try:
        while time.monotonic() < since + LIMIT_SECONDS:
            asked_at = time.monotonic()
            try:
                if (await count_peers(reader))[1] >= SHARE * entries:
                    # When it was asked, not when the answer had been put together.
                    return asked_at - since
            except StoreUnavailableError:
                pass
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await reader.aclose()
    raise LabError(f"entries were not back within {LIMIT_SECONDS:g} s")
