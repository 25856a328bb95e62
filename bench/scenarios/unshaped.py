"""Several hosts fetch one file at once, links not shaped: the last of them beside one host with nginx and curl."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.race import even_race
from bench.results import Outcome, RaceRecord
from bench.scenarios.swarm import MIB
from bench.session import Session
from minga_core.units import format_bytes

LIMIT_SECONDS = 120.0
YARDSTICK = "nginx"
"""Serves one host alone; the others serve all of them."""


@dataclass(frozen=True, slots=True)
class Unshaped:
    """Each round measures every system once, so that what the machine does beside hits all alike."""

    name: str = "unshaped"
    peers: int = 4
    size: int = 512 * MIB
    rounds: int = 3
    wanted_ratio: float = 1.5
    systems: Sequence[str] = ("minga", "nginx")

    async def run(self, session: Session) -> Outcome:
        systems, rounds = session.chosen(*self.systems), session.rounds or self.rounds
        work = f"{self.peers} downloaders, not shaped, {format_bytes(self.size)}"
        outcome = Outcome(self.name, f"{work}, {rounds} rounds; {YARDSTICK} with one downloader")
        for _ in range(rounds):
            for system in systems:
                peers = 1 if system == YARDSTICK else self.peers
                race = await even_race(session, system, peers, None, self.size, LIMIT_SECONDS)
                outcome.races.append(RaceRecord.of(race, self.size, 0.0))
        times = {name: median(race.last for race in outcome.races if race.system == name) for name in systems}
        for system, seconds in times.items():
            outcome.inform(f"{work}: {system}", f"{seconds:.2f} s")
        if YARDSTICK in times and "minga" in times:
            ratio, limit = times["minga"] / times[YARDSTICK], f"last ≤ {self.wanted_ratio} × one downloader with curl"
            outcome.judge(f"{work}, against {YARDSTICK}", limit, f"{ratio:.2f} ×", ratio <= self.wanted_ratio)
        return outcome
