"""Ten thousand peers that only beat, on one registry process."""

from dataclasses import dataclass

from bench.directory import world
from bench.directory.network import Network
from bench.directory.results import RowOutcome
from bench.directory.session import Session
from bench.directory.stats import millis
from bench.directory.usage import Use
from minga_directory import connect_reader

P99_SECONDS = 0.050
CORE_SHARE = 0.70
INTERVAL_SECONDS = 5.0
JOINING_AT_ONCE = 16
JOINING_SECONDS = 300.0
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """`mode`: how heartbeats travel, see `beats`. The table's row is the one that the peer's own client uses."""

    name: str
    mode: str
    judged: bool
    """Whether it is the table's; else for comparison."""

    async def measure(self, session: Session) -> RowOutcome:
        """See Row."""
        scale = session.scale
        peers, seconds = scale.beat_peers, scale.beat_minutes * 60
        how = "a standing stream each" if self.mode == "stream" else "calls of their own"
        outcome = RowOutcome(
            self.name,
            f"{peers:,} simulated peers, each with a connection of its own, heartbeats every {INTERVAL_SECONDS:g} s "
            f"± 20 % by {how}, one registry, for {seconds / 60:g} minutes.",
        )
        async with session.network() as network:
            await network.start_store()
            await network.start_registry()
            beats = await network.worker("beats", "beats")
            meter = network.meter()
            joined = await beats.ask(
                "start",
                limit_seconds=JOINING_SECONDS,
                addresses=network.registries,
                mode=self.mode,
                first=0,
                count=peers,
                at_once=JOINING_AT_ONCE,
            )
            outcome.uses.append(meter.read(f"{peers:,} peers register and push an empty table"))
            # All of them have beaten once by then: streams are open.
            await beats.ask("measure", seconds=2 * INTERVAL_SECONDS)
            commands = await network.store.commands()
            meter = network.meter()
            found = await beats.ask("measure", limit_seconds=seconds + 60, seconds=seconds)
            use = meter.read(f"heartbeats, {self.mode}")
            outcome.uses.append(use)
            outcome.details |= {"joined": joined, "heartbeats": found}
            outcome.details["store_commands"] = _busiest(commands, await network.store.commands())
            lost = peers - await _living(network)
        self._judge(outcome, found, use, lost, peers)
        return outcome

    def _judge(self, outcome: RowOutcome, found: dict, use: Use, lost: int, peers: int) -> None:  # type: ignore[type-arg]
        times, what = found["seconds"], f"heartbeats of {peers:,} peers ({self.mode})"
        each = use.cpu_seconds("registry-1") / max(1, times["count"])
        # A registry that was kept waiting, for processor time or for anything else, has not done all of its work.
        share = each * peers / INTERVAL_SECONDS
        bad = lost + found["asked_again"] + found["gaps"]
        rate = f"{found['rate']:,.0f}/s of {peers / INTERVAL_SECONDS:,.0f}/s"
        lines = [
            (f"{what}: leases lost", "none", f"{bad} ({rate}, {found['failed']} calls failed)", bad == 0),
            (
                f"{what}: p99",
                f"≤ {P99_SECONDS * 1000:g} ms",
                f"{millis(times['p99'])} (p50 {millis(times['p50'])}, worst {millis(times['max'])})",
                times["p99"] <= P99_SECONDS,
            ),
            (
                f"{what}: registry's share of a core",
                f"< {CORE_SHARE:.0%}",
                f"{share:.0%} at {peers / INTERVAL_SECONDS:,.0f}/s (it had {use.share('registry-1'):.0%} at {rate})",
                share < CORE_SHARE,
            ),
        ]
        for work, wanted, measured, met in lines:
            if self.judged:
                outcome.figure(work, wanted, measured, met)
            else:
                outcome.told(work, measured)
        store = use.cpu_seconds("store") / max(1, times["count"])
        outcome.told(f"{what}: cost of one", f"{each * 1e6:.0f} µs of the registry, {store * 1e6:.0f} µs of the store")
        memory = next(part.memory_bytes for part in use.parts if part.name == "registry-1")
        outcome.told(f"{what}: memory of the registry", f"{memory / 1e6:,.0f} MB")
        outcome.notes.append(
            f"The generator used {found['generator_core_share']:.0%} of a core and sent heartbeats "
            f"{millis(found['late']['p99'])} late at p99; {found['streams_opened']} streams were opened anew meanwhile."
        )


async def _living(network: Network) -> int:
    """Leases that live, as the directory's reader sees them."""
    reader = connect_reader(network.store.url)
    try:
        living, after = 0, ""
        while True:
            peers, after = await reader.list_peers(after=after, limit=_PAGE)
            living += sum(peer.info.peer_id.startswith(world.peer_id(0)[:4]) for peer in peers)
            if not after:
                return living
    finally:
        await reader.aclose()


def _busiest(before: dict[str, tuple[int, float]], after: dict[str, tuple[int, float]]) -> dict[str, dict[str, float]]:
    """What the store's commands cost in between, the most costly first."""
    none = (0, 0.0)
    spent = {name: (calls - before.get(name, none)[0], seconds - before.get(name, none)[1])
             for name, (calls, seconds) in after.items()}  # fmt: skip
    order = sorted(spent, key=lambda name: -spent[name][1])[:12]
    return {name: {"calls": spent[name][0], "seconds": round(spent[name][1], 3)} for name in order}
