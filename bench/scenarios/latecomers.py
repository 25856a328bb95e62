"""Half of the downloaders join when the others are half way: who loses what?"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.bounds import swarm_bound
from bench.lab import Link
from bench.race import even_race, race_on, require_all
from bench.results import Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS, even_links
from bench.session import Session, peer_links

NOISE = 1.03
"""Two runs of the same thing differ by less than this."""


@dataclass(frozen=True, slots=True)
class Latecomers:
    """Against a run of the first half alone, just before: a fresh start."""

    name: str = "latecomers"
    peers: int = 16
    rate: float = 50.0
    size: int = 128 * MIB
    wanted_ratio: float = 1.3
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        half, links = self.peers // 2, peer_links(self.peers, self.rate)
        early = list(links)[:half]
        bound = swarm_bound(self.size, self.rate, [self.rate] * half, [self.rate] * half)
        limit = SLACK_SECONDS + 6 * bound
        setting = even_links(self.peers, self.rate, self.size)
        outcome = Outcome(self.name, f"{setting}; half of them start when the others, alone, would be half way")
        for system in session.chosen(*self.systems):
            alone = await even_race(session, system, half, self.rate, self.size, limit)
            joined = alone.last / 2
            delays = dict.fromkeys(list(links)[half:], joined)
            seed = {"seed": Link.even(self.rate)}
            race, late = await race_on(session, system, seed, links, self.size, limit, delays=delays)
            require_all(race, late, limit)
            outcome.races += [RaceRecord.of(alone, self.size, bound), RaceRecord.of(race, self.size, bound)]
            there = max(race.finished[host] for host in early) / alone.last
            after = (race.last - joined) / alone.last
            lose, fresh = f"lose nothing (≤ {NOISE} × alone)", f"≤ {self.wanted_ratio} × a fresh start"
            outcome.judge("latecomers: those who were there", lose, f"{there:.2f} ×", there <= NOISE, system)
            met = after <= self.wanted_ratio
            outcome.judge("latecomers: those who came late", fresh, f"{after:.2f} ×", met, system)
        return outcome
