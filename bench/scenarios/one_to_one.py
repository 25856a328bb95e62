"""One file, one host to another, links not shaped: rate and cost, the systems in turn, several rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.race import even_race
from bench.results import GIB, Outcome, RaceRecord
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
    """The judged system's rate as a multiple of that system's."""
    judged: str = "minga"
    kind: str = ""
    """What the rows of the table say that `judged` is."""
    wanted_cpu: float = 2.5
    wanted_peak: int = 150_000_000

    async def run(self, session: Session) -> Outcome:
        systems, rounds = session.chosen(*self.systems), session.rounds or self.rounds
        outcome = Outcome(self.name, f"one host to another, not shaped, {format_bytes(self.size)}, {rounds} rounds")
        for _ in range(rounds):
            for system in systems:
                race = await even_race(session, system, 1, None, self.size, LIMIT_SECONDS)
                outcome.races.append(RaceRecord.of(race, self.size, 0.0))
        records = {system: [race for race in outcome.races if race.system == system] for system in systems}
        times = {system: median(race.last for race in records[system]) for system in systems}
        for system in systems:
            seconds = " ".join(f"{race.last:.2f}" for race in records[system])
            rate = self.size / times[system] / 1e6
            outcome.inform(f"{format_bytes(self.size)}: {system}", f"{rate:.0f} MB/s ({seconds} s)")
        if self.judged in systems:
            self._judge(outcome, times, records[self.judged])
        return outcome

    def _judge(self, outcome: Outcome, times: Mapping[str, float], records: Sequence[RaceRecord]) -> None:
        size = f"{format_bytes(self.size)}, {self.kind}" if self.kind else format_bytes(self.size)
        for system in times.keys() & (self.wanted_rates or {}).keys():
            ratio, wanted = times[system] / times[self.judged], (self.wanted_rates or {})[system]
            limit = f"≥ {wanted:g} × its rate"
            outcome.judge(f"{size}, one to one, against {system}", limit, f"{ratio:.2f} ×", ratio >= wanted)
        cpu, peak = median(race.cpu_seconds_per_gib for race in records), max(race.peak_bytes for race in records)
        limit = f"≤ {self.wanted_cpu} CPU-s/GiB"
        outcome.judge(f"cost at {size}: both ends", limit, f"{cpu:.2f}", cpu <= self.wanted_cpu)
        limit, measured = f"≤ {self.wanted_peak / 1e6:.0f} MB", f"{peak / 1e6:.0f} MB"
        outcome.judge(f"cost at {size}: peak memory", limit, measured, peak <= self.wanted_peak)
