"""Many downloaders against one: how much longer does it take?"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.bounds import swarm_bound
from bench.results import Figure, Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS, even_race
from bench.session import Session
from minga_core.units import format_bytes


@dataclass(frozen=True, slots=True)
class Scale:
    """The same file over the same links to one host and to many, in turn."""

    name: str = "scale"
    peers: int = 32
    rate: float = 25.0
    size: int = 64 * MIB
    wanted_ratio: float = 1.25
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        outcome = Outcome(
            self.name,
            f"1 and {self.peers} downloaders, every link {self.rate:g} Mbit/s each way, {format_bytes(self.size)}",
        )
        for system in session.chosen(*self.systems):
            times: dict[int, list[float]] = {1: [], self.peers: []}
            for _ in range(session.rounds or 1):
                for peers, taken in times.items():
                    record = await self._race(session, system, peers)
                    outcome.races.append(record)
                    taken.append(record.last)
                    print(f"  {peers} downloaders: {record.told()}", flush=True)
            ratio = median(times[self.peers]) / median(times[1])
            outcome.figures.append(
                Figure(
                    f"{self.peers} downloaders against 1, {self.rate:g} Mbit/s each, {format_bytes(self.size)}"
                    + (f": {system}" if system != "minga" else ""),
                    f"time({self.peers}) ≤ {self.wanted_ratio} × time(1)" if system == "minga" else "",
                    f"{ratio:.2f} × ({median(times[self.peers]):.1f} s against {median(times[1]):.1f} s)",
                    ratio <= self.wanted_ratio if system == "minga" else None,
                )
            )
        return outcome

    async def _race(self, session: Session, system: str, peers: int) -> RaceRecord:
        rates = [self.rate] * peers
        bound = swarm_bound(self.size, self.rate, rates, rates)
        race = await even_race(session, system, peers, self.rate, self.size, SLACK_SECONDS + 4 * bound)
        return RaceRecord.of(race, self.size, bound)
