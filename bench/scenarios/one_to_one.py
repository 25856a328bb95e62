"""One file, one host to another, links not shaped: rate and cost, the systems in turn, several rounds."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.results import GIB, Figure, Outcome, RaceRecord
from bench.scenarios.swarm import even_race
from bench.session import Session
from minga_core.units import format_bytes

LIMIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class OneToOne:
    """Each round measures every system once, so that what the machine does beside hits all alike."""

    name: str = "one-to-one"
    size: int = GIB
    rounds: int = 3
    systems: Sequence[str] = ("minga", "rsync", "nginx", "libtorrent")
    wanted_rates: Mapping[str, float] | None = None
    """Minga's rate as a multiple of that system's."""
    wanted_cpu: float = 2.5
    wanted_peak: int = 150_000_000

    async def run(self, session: Session) -> Outcome:
        systems, rounds = session.chosen(*self.systems), session.rounds or self.rounds
        outcome = Outcome(self.name, f"one host to another, not shaped, {format_bytes(self.size)}, {rounds} rounds")
        for _ in range(rounds):
            for system in systems:
                outcome.races.append(await self._race(session, system))
                print(f"  {outcome.races[-1].told()}", flush=True)
        records = {system: [race for race in outcome.races if race.system == system] for system in systems}
        times = {system: median(race.last for race in records[system]) for system in systems}
        for system in systems:
            rate = self.size / times[system] / 1e6
            seconds = " ".join(f"{race.last:.2f}" for race in records[system])
            outcome.figures.append(Figure(f"{format_bytes(self.size)}: {system}", "", f"{rate:.0f} MB/s ({seconds} s)"))
        if "minga" in systems:
            outcome.figures += [*self._against(times), *self._cost(records["minga"])]
        return outcome

    async def _race(self, session: Session, system: str) -> RaceRecord:
        await asyncio.to_thread(os.sync)
        race = await even_race(session, system, 1, None, self.size, LIMIT_SECONDS)
        return RaceRecord.of(race, self.size, 0.0)

    def _against(self, times: Mapping[str, float]) -> list[Figure]:
        figures = []
        for system, wanted in (self.wanted_rates or {}).items():
            if system in times:
                ratio = times[system] / times["minga"]
                work = f"{format_bytes(self.size)}, one to one, against {system}"
                figures.append(Figure(work, f"≥ {wanted:g} × its rate", f"{ratio:.2f} ×", ratio >= wanted))
        return figures

    def _cost(self, records: Sequence[RaceRecord]) -> list[Figure]:
        cpu, peak = median(race.cpu_seconds_per_gib for race in records), max(race.peak_bytes for race in records)
        size = format_bytes(self.size)
        memory = f"≤ {self.wanted_peak / 1e6:.0f} MB"
        return [
            Figure(
                f"cost at {size}: both ends", f"≤ {self.wanted_cpu} CPU-s/GiB", f"{cpu:.2f}", cpu <= self.wanted_cpu
            ),
            Figure(f"cost at {size}: peak memory", memory, f"{peak / 1e6:.0f} MB", peak <= self.wanted_peak),
        ]
