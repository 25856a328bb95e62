"""Half of all peers die at one instant, power cord style."""

import asyncio
import random
import time
from dataclasses import dataclass, field

from bench.directory import world as made_up
from bench.directory.network import Network
from bench.directory.results import RowOutcome
from bench.directory.rows.fleets import fleet_world, start_fleets
from bench.directory.session import Session
from bench.directory.stats import millis
from bench.directory.world import World
from bench.netns import LabError
from minga_core.errors import FileNotFoundInDirectoryError
from minga_directory import connect_writer
from minga_engine.wire.locator import LocatorClient

NAMED_SECONDS = 15.0
REAPED_SECONDS = 60.0
SLOWEST_SECONDS = 0.050
REGISTRIES = 2
LOAD_RATE = 100
LOAD_CONNECTIONS = 16
LIMIT_SECONDS = 240.0
POLL_SECONDS = 0.25
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
    examples: list[str] = field(default_factory=list)


class Deaths:
    """Two fleets of half the peers each; one is killed."""

    name = "deaths"

    async def measure(self, session: Session) -> RowOutcome:
        """See Row."""
        scale = session.scale
        world = fleet_world(scale.dying_peers, scale.dying_files)
        dead = list(range(world.peers // 2, world.peers))
        living = list(range(world.peers // 2))
        outcome = RowOutcome(
            self.name,
            f"{len(dead)} of {world.peers:,} simulated peers with {world.files_a_peer:,} files each are killed; "
            f"{REGISTRIES} registries, one locator, {LOAD_RATE} look-ups/s meanwhile.",
        )
        async with session.network() as network:
            await network.start_store()
            for _ in range(REGISTRIES):
                await network.start_registry()
            await network.start_locator()
            _, victims = await start_fleets(network, world, [living, dead])
            load = await network.worker("load", "http_load")
            quiet = await _load(network, load, world, 5.0)
            await network.store.slow()
            victims.kill()
            del network.pids[victims.name]
            died_at = time.monotonic()
            meter = network.meter()
            stop = asyncio.Event()
            naming = Naming()
            async with asyncio.TaskGroup() as group:
                group.create_task(_check(network, world, set(dead), died_at, naming, stop))
                loads = group.create_task(_loads(network, load, world, stop))
                reaped_seconds = await _reaped(network, len(dead) * world.files_a_peer, died_at)
                stop.set()
            outcome.uses.append(meter.read("half of the peers are dead"))
            slow = await network.store.slow()
        slowest = max(one["seconds"]["max"] for one in loads.result())
        p99 = max(one["seconds"]["p99"] for one in loads.result())
        outcome.details |= {"quiet": quiet, "loads": loads.result(), "slow": slow[:20], "naming": naming.examples}
        what = f"{len(dead)} of {world.peers:,} peers die"
        outcome.figure(
            f"{what}: named in an answer after {NAMED_SECONDS:g} s",
            "none",
            f"{naming.late} of {naming.asked:,} answers (the last one {naming.last_seconds:.1f} s after)",
            naming.late == 0,
        )
        outcome.figure(
            f"{what}: reaping done",
            f"≤ {REAPED_SECONDS:g} s",
            f"{reaped_seconds:.1f} s",
            reaped_seconds <= REAPED_SECONDS,
        )
        outcome.figure(
            f"{what}: slowest request meanwhile",
            f"≤ {SLOWEST_SECONDS * 1000:g} ms",
            f"{millis(slowest)} (p99 {millis(p99)}; before: {millis(quiet['seconds']['max'])})",
            slowest <= SLOWEST_SECONDS,
        )
        statuses = sorted({status for one in loads.result() for status in one["statuses"]})
        outcome.notes.append(f"Statuses of the look-ups meanwhile: {', '.join(statuses)}.")
        worst = f", worst {slow[0]['micros'] / 1000:.1f} ms: {slow[0]['command'][:40]}" if slow else ""
        outcome.told(f"{what}: commands of Redis over 10 ms", f"{len(slow)}{worst}")
        return outcome


async def _load(network: Network, load, world: World, seconds: float) -> dict:  # type: ignore[no-untyped-def,type-arg]
    """Look-ups at a fixed rate for a while; what they took."""
    host, _, port = network.locators[0].rpartition(":")
    found: dict[str, object] = await load.ask(
        "at_rate",
        host=host,
        port=int(port),
        requests={"kind": "distinct", "of": {"names": world.names}},
        rate=LOAD_RATE,
        connections=LOAD_CONNECTIONS,
        seconds=seconds,
    )
    return found


async def _loads(network: Network, load, world: World, stop: asyncio.Event) -> list[dict]:  # type: ignore[no-untyped-def,type-arg]
    """Such load until `stop`."""
    found = []
    while not stop.is_set():
        found.append(await _load(network, load, world, 5.0))
    return found


async def _check(
    network: Network, world: World, dead: set[int], died_at: float, naming: Naming, stop: asyncio.Event
) -> None:
    """Looks up random names until `stop`, and notes who was named when."""
    ids = {made_up.peer_id(number) for number in dead}
    rng = random.Random(1)
    async with LocatorClient(f"http://{network.locators[0]}") as client:
        while not stop.is_set():
            name = made_up.name(rng.randrange(world.names))
            asked_seconds = time.monotonic() - died_at
            try:
                answer = await client.find_file(name)
            except FileNotFoundInDirectoryError:
                continue
            naming.asked += 1
            named = {source.peer_id for version in answer.versions for source in version.sources} & ids
            if named:
                naming.last_seconds = asked_seconds
            if named and asked_seconds > NAMED_SECONDS:
                naming.late += 1
                naming.examples = [*naming.examples, f"{min(named)} after {asked_seconds:.2f} s"][-10:]
            await asyncio.sleep(ASK_SECONDS)


async def _reaped(network: Network, rows: int, since: float) -> float:
    """Seconds until every row of the dead is unlisted and no ended lease is left. Raises LabError."""
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
    raise LabError(f"reaping was not done within {LIMIT_SECONDS:g} s")
