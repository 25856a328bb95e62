"""Redis loses everything under a thousand peers that go on."""

import asyncio
import os
import time

from bench.directory.network import Network
from bench.directory.results import RowOutcome
from bench.directory.rows.fleets import fleet_world, start_fleets
from bench.directory.session import Session
from bench.directory.stats import millis
from bench.directory.usage import Use
from bench.directory.worker import Worker
from bench.netns import LabError
from minga_core.errors import StoreUnavailableError
from minga_directory import connect_reader
from minga_directory.reader import RedisDirectoryReader

SHARE = 0.99
SECONDS = 10.0
REGISTRIES = 2
FLEETS = 2
POLL_SECONDS = 0.25
LIMIT_SECONDS = 300.0
_PAGE = 1_000


class Emptied:
    """FLUSHALL and no scripts, as after a restart; then every peer says everything again."""

    name = "emptied"

    async def measure(self, session: Session) -> RowOutcome:
        """See Row."""
        scale = session.scale
        world = fleet_world(scale.emptied_peers, scale.emptied_files)
        outcome = RowOutcome(
            self.name,
            f"{world.peers:,} simulated peers (the real announcer) with {world.files_a_peer:,} files each, "
            f"{REGISTRIES} registries.",
        )
        async with session.network() as network:
            await network.start_store()
            for _ in range(REGISTRIES):
                await network.start_registry()
            parts = [list(range(part, world.peers, FLEETS)) for part in range(FLEETS)]
            fleets = await start_fleets(network, world, parts)
            pinger = await network.worker("pinger", "pinger")
            await network.store.slow()
            await pinger.ask("start", host="127.0.0.1", port=network.store.port)
            # What the pinger sees when all is quiet.
            await asyncio.sleep(3.0)
            outcome.details["quiet_ping_seconds"] = await pinger.ask("stop")
            await pinger.ask("start", host="127.0.0.1", port=network.store.port)
            meter = network.meter()
            emptied_at = time.monotonic()
            await network.store.empty()
            back_seconds = await _back(network, world.entries, emptied_at)
            use = meter.read("everything is said again")
            outcome.uses.append(use)
            pings = await pinger.ask("stop")
            outcome.details |= {"ping_seconds": pings, "slow": (await network.store.slow())[:20]}
            await _told(outcome, fleets, emptied_at, back_seconds, world.entries, world.peers)
            _profiled(outcome, use, world.entries)
        return outcome


def _profiled(outcome: RowOutcome, use: Use, entries: int) -> None:
    """Where the processor time went, and what it would allow if nothing else were in the way."""
    spent = {
        part: sum(one.cpu_seconds for one in use.parts if one.name.startswith(part))
        for part in ("store", "registry", "fleet")
    }
    each = {part: seconds / entries * 1e6 for part, seconds in spent.items()}
    here = sum(spent.values()) / (os.cpu_count() or 1)
    apart = max(spent["store"], spent["registry"] / REGISTRIES)
    outcome.told(
        "Redis emptied: processor time of an entry",
        f"{each['store']:.1f} µs of the store, {each['registry']:.1f} µs of registries, {each['fleet']:.1f} µs of the "
        f"simulated peers: at least {here:.1f} s on the {os.cpu_count()} cores that all of them share here, "
        f"{apart:.1f} s where store, registries and peers have cores of their own",
    )


async def _told(
    outcome: RowOutcome, fleets: list[Worker], emptied_at: float, back_seconds: float, entries: int, peers: int
) -> None:
    noticed = sorted([at for fleet in fleets for at in await fleet.ask("noticed", since=emptied_at)])
    if len(noticed) < SHARE * peers:
        raise LabError(f"{len(noticed)} of {peers} peers noticed that the store was empty")
    first, most = noticed[0], noticed[min(len(noticed) - 1, int(SHARE * peers))]
    outcome.details |= {"noticed_first": first, "noticed_most": most, "back": back_seconds}
    outcome.figure(
        f"Redis emptied: {SHARE:.0%} of {entries:,} entries back after the peers notice",
        f"≤ {SECONDS:g} s",
        f"{max(0.0, back_seconds - most):.1f} s after {SHARE:.0%} of the peers had noticed",
        back_seconds - most <= SECONDS,
    )
    outcome.told(
        "Redis emptied: from the loss on",
        f"first peer noticed after {first:.1f} s, {SHARE:.0%} after {most:.1f} s, entries back after "
        f"{back_seconds:.1f} s",
    )
    pings, quiet, slow = outcome.details["ping_seconds"], outcome.details["quiet_ping_seconds"], outcome.details["slow"]
    outcome.told(
        "Redis emptied: latency of Redis meanwhile",
        f"worst {millis(pings['max'])}, p99 {millis(pings['p99'])} (in the seconds before: worst "
        f"{millis(quiet['max'])}, p99 {millis(quiet['p99'])}); {len(slow)} commands over 10 ms",
    )
    if troubles := [text for fleet in fleets for text in await fleet.ask("problems")]:
        outcome.notes.append(f"Peers' problems at the end: {'; '.join(troubles)}")


async def _back(network: Network, entries: int, since: float) -> float:
    """Seconds until that share of the entries is there. Raises LabError."""
    reader = connect_reader(network.store.url)
    try:
        while time.monotonic() < since + LIMIT_SECONDS:
            asked_at = time.monotonic()
            if await _entries(reader) >= SHARE * entries:
                # When it was asked, not when the answer had been put together.
                return asked_at - since
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await reader.aclose()
    raise LabError(f"entries were not back within {LIMIT_SECONDS:g} s")


async def _entries(reader: RedisDirectoryReader) -> int:
    """Rows of all living peers."""
    files, after = 0, ""
    try:
        while True:
            peers, after = await reader.list_peers(after=after, limit=_PAGE)
            files += sum(peer.file_count for peer in peers)
            if not after:
                return files
    except StoreUnavailableError:
        return 0
