"""Ten thousand peers that only keep their leases, on one registry process."""

from typing import Any

from bench.directory.heartbeats import measure, start
from bench.directory.load import millis
from bench.directory.network import Network
from bench.directory.session import Session
from bench.results import Outcome
from bench.usage import Use, memory_bytes
from minga_directory import connect_reader
from minga_directory.reader import RedisDirectoryReader

P99_SECONDS = 0.050
CORE_SHARE = 0.70
INTERVAL_SECONDS = 5.0
JOINING_AT_ONCE = 16
_PAGE = 1_000


class Heartbeats:
    """Peers send heartbeats on streams, as the peer's own client does."""

    name = "heartbeats"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class."""
        scale = session.scale
        peers, seconds = scale.heartbeat_peers, scale.heartbeat_minutes * 60
        outcome = Outcome(
            self.name,
            f"{peers:,} simulated peers, each with a connection of its own, heartbeats every {INTERVAL_SECONDS:g} s "
            f"± 20 % on a standing stream each, one registry, for {seconds / 60:g} minutes",
        )
        async with session.network() as network:
            await network.start_store()
            await network.start_registry()
            worker = network.start_worker("peers")
            meter = network.meter()
            await worker.run(start, network.registries[0], peers, JOINING_AT_ONCE)
            outcome.uses.append(meter.read(f"{peers:,} peers register and push an empty table"))
            # All of them have sent one by then: streams are open.
            await worker.run(measure, 2 * INTERVAL_SECONDS)
            meter = network.meter()
            found = await worker.run(measure, seconds)
            use = meter.read("heartbeats")
            outcome.uses.append(use)
            found["lost"] += peers - await _living(network)
            _judge(outcome, found, use, peers)
            memory = memory_bytes(network.pids["registry-1"])
        outcome.inform("heartbeats: memory of the registry", f"{memory / 1e6:,.0f} MB")
        return outcome


def _judge(outcome: Outcome, found: dict[str, Any], use: Use, peers: int) -> None:
    times, what = found["seconds"], f"heartbeats of {peers:,} peers"
    registry, store = (use.cpu_seconds(name) / max(1, found["count"]) for name in ("registry-1", "store"))
    # By its cost, since a registry that had to wait for a processor has not done all of its work.
    wanted_rate = peers / INTERVAL_SECONDS
    share = registry * wanted_rate
    lost = found["lost"]
    rate = f"{found['rate']:,.0f}/s of {wanted_rate:,.0f}/s"
    outcome.judge(f"{what}: leases lost", "none", f"{lost} ({rate}, {found['failed']} calls failed)", lost == 0)
    outcome.judge(
        f"{what}: p99",
        f"≤ {P99_SECONDS * 1000:g} ms",
        f"{millis(times['p99'])} (p50 {millis(times['p50'])}, worst {millis(times['max'])}; "
        f"sent {millis(found['late']['p99'])} late at p99)",
        times["p99"] <= P99_SECONDS,
    )
    outcome.judge(
        f"{what}: registry's share of a core",
        f"< {CORE_SHARE:.0%}",
        f"{share:.0%} at {wanted_rate:,.0f}/s",
        share < CORE_SHARE,
    )
    outcome.inform(
        f"{what}: cost of one", f"{registry * 1e6:.0f} µs of the registry, {store * 1e6:.0f} µs of the store"
    )


async def _living(network: Network) -> int:
    """Leases that live."""
    reader = connect_reader(network.store.url)
    try:
        return (await count_peers(reader))[0]
    finally:
        await reader.aclose()


async def count_peers(reader: RedisDirectoryReader) -> tuple[int, int]:
    """Peers that live, and their files. Raises StoreUnavailableError."""
    living = files = 0
    after = ""
    while True:
        peers, after = await reader.list_peers(after=after, limit=_PAGE)
        living += len(peers)
        files += sum(peer.file_count for peer in peers)
        if not after:
            return living, files
