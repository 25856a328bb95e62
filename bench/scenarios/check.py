"""The quick check for CI: does the swarm still swarm? Ratios with wide margins, never absolute times."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.bounds import swarm_bound
from bench.race import even_race
from bench.results import Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS, even_links
from bench.session import Session


@dataclass(frozen=True, slots=True)
class Check:
    """Well below what a lone server needs (one bound a downloader), well above what a good day shows."""

    name: str = "check"
    peers: int = 6
    rate: float = 40.0
    size: int = 24 * MIB
    allowed_ratio: float = 2.0
    allowed_copies: float = 3.0
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        rates = [self.rate] * self.peers
        bound = swarm_bound(self.size, self.rate, rates, rates)
        setting = even_links(self.peers, self.rate, self.size)
        outcome = Outcome(self.name, f"{setting}; a server alone would need {self.peers} × the bound")
        race = await even_race(session, "minga", self.peers, self.rate, self.size, SLACK_SECONDS)
        record = RaceRecord.of(race, self.size, bound)
        outcome.races.append(record)
        ratio, copies = record.ratio, record.seed_copies
        limit = f"≤ {self.allowed_ratio} × the bound"
        outcome.judge("the last one finished", limit, f"{ratio:.2f} ×", ratio <= self.allowed_ratio)
        limit = f"≤ {self.allowed_copies} copies"
        outcome.judge("the seed sent", limit, f"{copies:.2f} copies", copies <= self.allowed_copies)
        return outcome
