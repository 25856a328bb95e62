"""All nodes pull one image at once: what its registry sends, and when the last one has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.bounds import swarm_bound
from bench.lab import Link
from bench.race import even_race
from bench.results import Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS, even_links
from bench.session import Session, peer_links
from bench.systems.images import Images

SYSTEM = Images.name


@dataclass(frozen=True, slots=True)
class ImagePull:
    """One layer, which no peer has when the clock starts."""

    name: str = "image-pull"
    peers: int = 8
    rate: float = 100.0
    size: int = 1024 * MIB
    wanted_ratio: float = 1.25
    wanted_copies: float = 1.1
    misses: int = 100
    wanted_miss: float = 0.100
    """Seconds that the mirror takes to say so: what a pull waits before it asks the registry."""
    systems: Sequence[str] = (SYSTEM,)
    rounds: int = 1

    async def run(self, session: Session) -> Outcome:
        outcome = Outcome(self.name, f"1 registry and {even_links(self.peers, self.rate, self.size)}")
        bound = swarm_bound(self.size, self.rate, [self.rate] * self.peers, [self.rate] * self.peers)
        for _ in range(session.rounds or self.rounds):
            race = await even_race(session, SYSTEM, self.peers, self.rate, self.size, SLACK_SECONDS + 8 * bound)
            outcome.races.append(RaceRecord.of(race, self.size, bound))
            copies, limit = race.sent_bytes["seed"] / self.size, f"≤ {self.wanted_copies} copies"
            good = copies <= self.wanted_copies
            outcome.judge("an image, pulled at once: the registry sends", limit, f"{copies:.2f}", good)
        ratio = outcome.ratio(SYSTEM)
        assert ratio is not None
        limit = f"≤ {self.wanted_ratio} × the bound"
        outcome.judge("an image, pulled at once: the last node", limit, f"{ratio:.2f} ×", ratio <= self.wanted_ratio)
        times = await self._missed(session)
        measured = f"{median(times) * 1e3:.0f} ms in the median, {max(times) * 1e3:.0f} ms at most"
        limit = f"≤ {self.wanted_miss * 1e3:.0f} ms"
        outcome.judge("a manifest that is nowhere: more than without", limit, measured, max(times) <= self.wanted_miss)
        return outcome

    async def _missed(self, session: Session) -> list[float]:
        content = await session.content(MIB)
        with session.arena({"seed": Link.even(self.rate)}, peer_links(1, self.rate), content) as arena:
            async with Images(arena) as running:
                return await running.misses("p01", self.misses)
