"""Many downloaders against one: how much longer does it take?"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.bounds import swarm_bound
from bench.race import even_race
from bench.results import Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS, even_links
from bench.session import Session
from minga_core.units import format_bytes


@dataclass(frozen=True, slots=True)
class Scale:
    """The same file over the same links to one host and to many, in turn."""

    name: str = "scale"
    peers: int = 32
    rate: float = 25.0
    size: int = 64 * MIB
    wanted_ratio: float = 1.2
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        outcome = Outcome(self.name, f"1 and {even_links(self.peers, self.rate, self.size)}")
        work = f"{self.peers} downloaders against 1, {self.rate:g} Mbit/s each, {format_bytes(self.size)}"
        for system in session.chosen(*self.systems):
            seconds: dict[int, list[float]] = {1: [], self.peers: []}
            for _ in range(session.rounds or 1):
                for peers, measured in seconds.items():
                    outcome.races.append(await self._race(session, system, peers))
                    measured.append(outcome.races[-1].last)
            many, one = median(seconds[self.peers]), median(seconds[1])
            wanted = f"time({self.peers}) ≤ {self.wanted_ratio} × time(1)"
            found = f"{many / one:.2f} × ({many:.1f} s against {one:.1f} s)"
            outcome.judge(work, wanted, found, many / one <= self.wanted_ratio, system)
        return outcome

    async def _race(self, session: Session, system: str, peers: int) -> RaceRecord:
        rates = [self.rate] * peers
        bound = swarm_bound(self.size, self.rate, rates, rates)
        race = await even_race(session, system, peers, self.rate, self.size, SLACK_SECONDS + 4 * bound)
        return RaceRecord.of(race, self.size, bound)
