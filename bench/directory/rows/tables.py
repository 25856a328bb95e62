"""File tables pushed cold through two registries: how fast, and what they cost in memory."""

import asyncio
from dataclasses import asdict
from typing import Any

from bench.directory.network import Network
from bench.directory.results import RowOutcome
from bench.directory.rows.heartbeats import _busiest
from bench.directory.session import Session
from bench.directory.stats import millis
from bench.directory.world import World
from bench.netns import LabError
from minga_directory import connect_reader

RATE = 30_000
ENTRY_BYTES = 300
REGISTRIES = 2
PUSHERS = 2
AT_ONCE = 24
"""Pushes of each generator: together below what a registry takes at once."""
PREPARE_SECONDS = 600.0
PUSH_SECONDS = 3_600.0


class Tables:
    """Peers whose directory has just been emptied, or that all start at once."""

    name = "tables"

    async def measure(self, session: Session) -> RowOutcome:
        """See Row."""
        scale = session.scale
        entries = scale.table_peers * scale.table_files
        world = World(entries // scale.table_copies, scale.table_copies, scale.table_peers)
        outcome = RowOutcome(
            self.name,
            f"{world.peers:,} peers with {world.files_a_peer:,} files each: {entries:,} entries, {world.names:,} "
            f"contents with {world.copies} holders each; {REGISTRIES} registries, "
            f"{PUSHERS * AT_ONCE} pushes at a time.",
        )
        async with session.network() as network:
            await network.start_store()
            for _ in range(REGISTRIES):
                await network.start_registry()
            before = await network.store.memory_bytes()
            await self._push(network, world, outcome)
            await self._check(network, world)
            await self._memory(network, world, before, outcome)
            slow = await network.store.slow()
            outcome.told("file tables: commands over 10 ms", f"{len(slow)}" + (f", worst {slow[0]}" if slow else ""))
        return outcome

    async def _push(self, network: Network, world: World, outcome: RowOutcome) -> None:
        pushers = [await network.worker(f"pusher-{number + 1}", "pushers") for number in range(PUSHERS)]
        shape = {"names": world.names, "copies": world.copies, "peers": world.peers, "parts": PUSHERS}
        await asyncio.gather(
            *(one.ask("prepare", limit_seconds=PREPARE_SECONDS, part=part, **shape) for part, one in enumerate(pushers))
        )
        commands = await network.store.commands()
        meter = network.meter()
        found: list[dict[str, Any]] = await asyncio.gather(
            *(
                one.ask("push", limit_seconds=PUSH_SECONDS, addresses=network.registries, at_once=AT_ONCE)
                for one in pushers
            )
        )
        use = meter.read("cold pushes")
        outcome.uses.append(use)
        outcome.details |= {"pushers": found, "store_commands": _busiest(commands, await network.store.commands())}
        seconds = max(one["seconds"] for one in found)
        rate = world.entries / seconds
        outcome.figure(
            "file tables pushed cold", f"≥ {RATE:,} entries/s", f"{rate:,.0f} entries/s ({seconds:.1f} s)", rate >= RATE
        )
        limiting = max(use.parts, key=lambda part: part.cpu_seconds)
        outcome.told(
            "file tables: what processor time allows where each process has a core",
            f"{world.entries / limiting.cpu_seconds:,.0f} entries/s ({limiting.name} is the one that limits)",
        )
        registries = sum(use.cpu_seconds(f"registry-{number + 1}") for number in range(REGISTRIES))
        micros = 1e6 / world.entries
        outcome.told(
            "file tables: cost of an entry",
            f"{registries * micros:.1f} µs of registries, {use.cpu_seconds('store') * micros:.1f} µs of the store",
        )
        slowest = max(one["push_seconds"]["max"] for one in found)
        share = max(one["generator_core_share"] for one in found)
        busy = sum(one["busy_answers"] for one in found)
        outcome.notes.append(
            f"The slowest push took {millis(slowest)}; {busy} were told to come again. A generator used at most "
            f"{share:.0%} of a core."
        )

    async def _check(self, network: Network, world: World) -> None:
        """All is there. Raises LabError."""
        reader = connect_reader(network.store.url)
        try:
            stats = await reader.stats()
            files = 0
            after = ""
            while True:
                peers, after = await reader.list_peers(after=after, limit=1_000)
                files += sum(peer.file_count for peer in peers)
                if not after:
                    break
        finally:
            await reader.aclose()
        # Leases of a long run may have ended: nobody beats here.
        if stats.names != world.names or (files != world.entries and stats.live_peers == world.peers):
            raise LabError(f"{stats.names:,} of {world.names:,} names and {files:,} of {world.entries:,} entries came")

    async def _memory(self, network: Network, world: World, before: int, outcome: RowOutcome) -> None:
        each = (await network.store.memory_bytes() - before) / world.entries
        outcome.figure(
            "file tables: memory of Redis", f"≤ {ENTRY_BYTES} bytes an entry", f"{each:.0f} bytes", each <= ENTRY_BYTES
        )
        kinds = [
            {**asdict(kind), "bytes_an_entry": kind.bytes_in_all / world.entries}
            for kind in sorted(await network.store.key_kinds(), key=lambda kind: -kind.bytes_in_all)
        ]
        rest = each - sum(kind["bytes_an_entry"] for kind in kinds)
        kinds.append(
            {
                "kind": "the keyspace's own table, and the rest",
                "keys": 0,
                "bytes_in_all": round(rest * world.entries),
                "bytes_an_entry": rest,
            }
        )
        outcome.details["key_kinds"] = kinds
