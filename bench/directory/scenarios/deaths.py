"""Half of all peers die at one instant, as in a power cut."""

import asyncio
import random
import time
from dataclasses import dataclass

from bench.directory import fixture
from bench.directory.fixture import Layout
from bench.directory.load import Requests, distinct, millis
from bench.directory.network import Network
from bench.directory.scenarios.emptied import COPIES, LIMIT_SECONDS, POLL_SECONDS
from bench.directory.session import Session
from bench.netns import LabError
from bench.product import LocatorClient
from bench.results import Outcome
from minga_core.errors import FileNotFoundInDirectoryError
from minga_core.ids import PeerId
from minga_directory import connect_writer

NAMED_SECONDS = 15.0
REAPED_SECONDS = 60.0
SLOWEST_SECONDS = 0.050
REGISTRIES = 2
LOAD_RATE = 100
LOAD_CONNECTIONS = 16
LOAD_SECONDS = 5.0
ASK_SECONDS = 0.01
"""Between two look-ups of the checker."""


@dataclass(slots=True)
class Naming:
    """When answers named a dead peer."""

    asked: int = 0
    last_seconds: float = 0.0
    """After the deaths: the last answer that named one, by when it was asked for."""
    late: int = 0
    """Answers to look-ups after NAMED_SECONDS that named one."""


class Deaths:
    """Two fleets of half the peers each; one is killed."""

    name = "deaths"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class."""
        scale = session.scale
        layout = Layout(scale.dying_peers * scale.dying_files // COPIES, COPIES, scale.dying_peers)
        living, dead = range(layout.peers // 2), range(layout.peers // 2, layout.peers)
        what = f"{len(dead)} of {layout.peers:,} peers die"
        outcome = Outcome(
            self.name,
            f"{what}, simulated, with {layout.files_a_peer:,} files each; {REGISTRIES} registries, one locator, "
            f"{LOAD_RATE} look-ups/s meanwhile",
        )
        async with session.network() as network:
            await network.start_store()
            for _ in range(REGISTRIES):
                await network.start_registry()
            await network.start_locator()
            _, victims = await network.start_fleets(layout, [living, dead])
            requests = Requests(network.folder, distinct(layout.names))
            load = (network.locators[0], LOAD_SECONDS, LOAD_CONNECTIONS, LOAD_RATE)
            before = await requests.load(*load)
            victims.kill()
            del network.pids["fleet-2"]
            died_at = time.monotonic()
            meter = network.meter()
            naming, loads = Naming(), []
            dead_ids = {fixture.peer_id(number) for number in dead}
            checking = asyncio.create_task(_check(network, layout, dead_ids, died_at, naming))
            reaping = asyncio.create_task(_reaped(network, len(dead) * layout.files_a_peer, died_at))
            while not reaping.done():
                loads.append(await requests.load(*load))
            checking.cancel()
            await asyncio.wait([checking])
            used = sum(each.cpu_seconds for each in loads)
            outcome.uses.append(meter.read("half of the peers are dead", wrk=used))
        if not checking.cancelled():
            checking.result()
        outcome.judge(
            f"{what}: named in an answer after {NAMED_SECONDS:g} s",
            "none",
            f"{naming.late} of {naming.asked:,} answers (the last one {naming.last_seconds:.1f} s after)",
            naming.late == 0,
        )
        seconds = reaping.result()
        met = seconds <= REAPED_SECONDS
        outcome.judge(f"{what}: index entries collected", f"≤ {REAPED_SECONDS:g} s", f"{seconds:.1f} s", met)
        slowest, failed = max(each.worst for each in loads), sum(each.failed for each in loads)
        failures = f", {failed} failed" * bool(failed)
        outcome.judge(
            f"{what}: slowest request meanwhile",
            f"≤ {SLOWEST_SECONDS * 1000:g} ms",
            f"{millis(slowest)}{failures} (before: {millis(before.worst)})",
            slowest <= SLOWEST_SECONDS and not failed,
        )
        return outcome


async def _check(network: Network, layout: Layout, dead: set[PeerId], died_at: float, naming: Naming) -> None:
    """Looks up random names until cancelled, and records which answers name a dead peer."""
    rng = random.Random(1)
    async with LocatorClient(f"http://{network.locators[0]}") as client:
        while True:
            asked_seconds = time.monotonic() - died_at
            try:
                answer = await client.find_file(fixture.name(rng.randrange(layout.names)))
            except FileNotFoundInDirectoryError:
                continue
            naming.asked += 1
            if {source.peer_id for version in answer.versions for source in version.sources} & dead:
                naming.last_seconds = asked_seconds
                naming.late += asked_seconds > NAMED_SECONDS
            await asyncio.sleep(ASK_SECONDS)


async def _reaped(network: Network, rows: int, since: float) -> float:
    """Seconds until every row of the dead is collected and no ended lease is left. Raises LabError."""
    writer = connect_writer(network.store.url)
    try:
        while time.monotonic() < since + LIMIT_SECONDS:
            asked_at = time.monotonic()
            ended = (await writer.lease_counts())[1]
            if not ended and await network.metric("minga_registry_reaped_rows_total") >= rows:
                return asked_at - since
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await writer.aclose()
    raise LabError(f"index entries were not collected within {LIMIT_SECONDS:g} s")
