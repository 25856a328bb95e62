"""One seed, N downloaders that start together, even links: time until the last has the file, in lower bounds."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bench.bounds import one_server_bound, swarm_bound
from bench.content import require_same, warm_memory
from bench.lab import Link
from bench.race import Race, run_race
from bench.results import Figure, Outcome, RaceRecord
from bench.session import Session, peer_links
from bench.systems.catalog import SYSTEMS
from minga_core.units import format_bytes

MIB = 1 << 20
SLACK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Swarm:
    """Measured for each system in turn, each in a lab of its own with the same links."""

    name: str = "swarm"
    peers: int = 16
    rate: float = 50.0
    """Of every link, both ways, in Mbit/s."""
    size: int = 128 * MIB
    wanted_ratio: float | None = None
    systems: Sequence[str] = ("minga",)
    rounds: int = 1

    async def run(self, session: Session) -> Outcome:
        outcome = Outcome(
            self.name,
            f"1 seed and {self.peers} downloaders, every link {self.rate:g} Mbit/s each way, {format_bytes(self.size)}",
        )
        systems = session.chosen(*self.systems)
        for number in range(session.rounds or self.rounds):
            # A lone server is no different in the next round, and by far the slowest.
            for system in [name for name in systems if number == 0 or name not in ONE_SERVER]:
                outcome.races.append(await self._race(session, system))
                print(f"  {outcome.races[-1].told()}", flush=True)
        outcome.figures = [self._figure(outcome, system) for system in systems]
        return outcome

    async def _race(self, session: Session, system: str) -> RaceRecord:
        size, rates = self.size_for(system), [self.rate] * self.peers
        bound = swarm_bound(size, self.rate, rates, rates)
        limit = SLACK_SECONDS + 4 * bound
        if system in ONE_SERVER:
            limit += one_server_bound(size, self.rate, rates)
        race = await even_race(session, system, self.peers, self.rate, size, limit)
        return RaceRecord.of(race, size, bound)

    def size_for(self, system: str) -> int:
        """A lone server needs N times as long, which its ratio shows as well with a file that is N/2 times smaller."""
        return max(MIB, self.size * 2 // self.peers // MIB * MIB) if system in ONE_SERVER else self.size

    def _figure(self, outcome: Outcome, system: str) -> Figure:
        ratio = outcome.ratio(system)
        assert ratio is not None
        rounds = [f"{race.ratio:.2f}" for race in outcome.races if race.system == system]
        measured = f"{ratio:.2f} ×" + (f" (median of {', '.join(rounds)})" if len(rounds) > 1 else "")
        work = f"{self.peers} downloaders, {self.rate:g} Mbit/s links, {format_bytes(self.size)}"
        if system == "minga" and self.wanted_ratio is not None:
            return Figure(
                work, f"last finished ≤ {self.wanted_ratio} × the bound", measured, ratio <= self.wanted_ratio
            )
        size = self.size_for(system)
        smaller = f" ({format_bytes(size)})" if size != self.size else ""
        return Figure(f"{work}: {system}{smaller}", "", measured)


ONE_SERVER = ("nginx", "rsync")


async def even_race(
    session: Session, system: str, peers: int, rate: float | None, size_bytes: int, limit_seconds: float
) -> Race:
    """A race on even links, from one seed; every copy is compared afterwards. Raises LabError."""
    content = await session.content(size_bytes)
    with session.arena({"seed": Link.even(rate)}, peer_links(peers, rate), content) as arena:
        async with SYSTEMS[system](arena) as running:
            if rate is None:
                await asyncio.to_thread(warm_memory, content.parent, 3 * size_bytes // 2)
            race = await run_race(running, arena.peers, limit_seconds)
            for host in arena.peers:
                require_same(content, running.result(host), host)
    return race
