"""File tables pushed cold through two registries: how fast, and what they cost in memory."""

import asyncio

from bench.directory.fixture import Layout
from bench.directory.network import Network
from bench.directory.pushers import prepare, push
from bench.directory.scenarios.heartbeats import count_peers
from bench.directory.session import Session
from bench.netns import LabError
from bench.results import Outcome
from minga_directory import connect_reader

RATE = 30_000
ENTRY_BYTES = 300
REGISTRIES = 2
PUSHERS = 2
AT_ONCE = 24
"""Pushes of each generator: together below what a registry accepts at once."""


class Tables:
    """Peers whose directory has just been emptied, or that all start at once."""

    name = "tables"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class."""
        scale = session.scale
        entries = scale.table_peers * scale.table_files
        layout = Layout(entries // scale.table_copies, scale.table_copies, scale.table_peers)
        outcome = Outcome(
            self.name,
            f"{layout.peers:,} peers with {layout.files_a_peer:,} files each: {entries:,} entries, {layout.names:,} "
            f"contents with {layout.copies} holders each; {REGISTRIES} registries, {PUSHERS * AT_ONCE} pushes at once",
        )
        async with session.network() as network:
            await network.start_store()
            for _ in range(REGISTRIES):
                await network.start_registry()
            before = await network.store.memory_bytes()
            await self._push(network, layout, outcome)
            await self._check(network, layout)
            each = (await network.store.memory_bytes() - before) / entries
            met = each <= ENTRY_BYTES
            outcome.judge("file tables: memory of Redis", f"≤ {ENTRY_BYTES} bytes an entry", f"{each:.0f} bytes", met)
            kinds = sorted((await network.store.bytes_by_kind()).items(), key=lambda item: -item[1])
            text = ", ".join(f"{kind} {size / entries:.1f}" for kind, size in kinds if size >= entries / 4)
            outcome.inform("file tables: bytes of an entry by kind of key", text)
        return outcome

    async def _push(self, network: Network, layout: Layout, outcome: Outcome) -> None:
        pushers = [network.start_worker(f"pusher-{number + 1}") for number in range(PUSHERS)]
        parts = [list(range(part, layout.peers, PUSHERS)) for part in range(PUSHERS)]
        await asyncio.gather(*(each.run(prepare, layout, part) for each, part in zip(pushers, parts, strict=True)))
        meter = network.meter()
        found = await asyncio.gather(*(each.run(push, network.registries, AT_ONCE) for each in pushers))
        use = meter.read("cold pushes")
        outcome.uses.append(use)
        seconds = max(one["seconds"] for one in found)
        rate = layout.entries / seconds
        refused = sum(one["busy"] for one in found)
        outcome.judge(
            "file tables pushed cold",
            f"≥ {RATE:,} entries/s",
            f"{rate:,.0f} entries/s ({seconds:.1f} s{f', {refused:g} pushes refused' if refused else ''})",
            rate >= RATE,
        )
        registries, store = (use.cpu_seconds(name) / layout.entries * 1e6 for name in ("registry", "store"))
        outcome.inform(
            "file tables: cost of an entry", f"{registries:.1f} µs of registries, {store:.1f} µs of the store"
        )

    async def _check(self, network: Network, layout: Layout) -> None:
        """Raises LabError when not everything is there."""
        reader = connect_reader(network.store.url)
        try:
            stats = await reader.stats()
            living, files = await count_peers(reader)
        finally:
            await reader.aclose()
        # Leases of a long run may have ended: nothing renews them here.
        if stats.names != layout.names or (files != layout.entries and living == layout.peers):
            raise LabError(
                f"{stats.names:,} of {layout.names:,} names and {files:,} of {layout.entries:,} entries came"
            )
