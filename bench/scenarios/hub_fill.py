"""All nodes fill their caches with one model at once: what its hub sends, and when the last one has it."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.bounds import swarm_bound
from bench.content import require_same
from bench.lab import Link
from bench.race import run_race
from bench.results import Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS, even_links
from bench.session import Session, peer_links
from bench.systems.catalog import SYSTEMS

SYSTEM = "hub"


@dataclass(frozen=True, slots=True)
class HubFill:
    """`minga hf fill` of a model that no peer has when the clock starts. size: of all its files."""

    name: str = "hub-fill"
    peers: int = 8
    rate: float = 100.0
    size: int = 2048 * MIB
    files: int = 40
    wanted_copies: float = 1.05
    systems: Sequence[str] = (SYSTEM,)
    rounds: int = 1

    async def run(self, session: Session) -> Outcome:
        links = even_links(self.peers, self.rate, self.size)
        outcome = Outcome(self.name, f"1 hub and {links} in {self.files} files, the whole command")
        for _ in range(session.rounds or self.rounds):
            outcome.races.append(race := await self._race(session))
            good = race.seed_copies <= self.wanted_copies
            limit, copies = f"≤ {self.wanted_copies} copies", f"{race.seed_copies:.3f}"
            outcome.judge("a model, filled at once: the hub sends", limit, copies, good)
        ratio = outcome.ratio(SYSTEM)
        assert ratio is not None
        outcome.inform("a model, filled at once: the last node", f"{ratio:.2f} × the bound")
        return outcome

    async def _race(self, session: Session) -> RaceRecord:
        file_size = self.size // self.files
        size, rates = file_size * self.files, [self.rate] * self.peers
        bound = swarm_bound(size, self.rate, rates, rates)
        content = await session.content_folder(self.files, file_size)
        with session.arena({"seed": Link.even(self.rate)}, peer_links(self.peers, self.rate), content) as arena:
            async with SYSTEMS[SYSTEM](arena) as running:
                race = await run_race(running, SLACK_SECONDS + 8 * bound)
                for host in arena.peers:
                    require_same(content, running.result(host), host)
        return RaceRecord.of(race, size, bound)
