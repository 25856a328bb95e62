"""Half of the downloaders join when the others are half way: who loses what?"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bench.bounds import swarm_bound
from bench.content import require_same
from bench.lab import Link
from bench.netns import LabError
from bench.race import Race, RaceTrack, take_part
from bench.results import Figure, Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS, even_race
from bench.session import Session, peer_links
from bench.systems.catalog import SYSTEMS
from minga_core.units import format_bytes

NOISE = 1.05
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
        half, rates = self.peers // 2, [self.rate] * (self.peers // 2)
        bound = swarm_bound(self.size, self.rate, rates, rates)
        outcome = Outcome(
            self.name,
            f"{half} downloaders start, {self.peers - half} more when those are half way; every link {self.rate:g} "
            f"Mbit/s each way, {format_bytes(self.size)}; compared with {half} downloaders alone",
        )
        for system in session.chosen(*self.systems):
            alone = await even_race(session, system, half, self.rate, self.size, SLACK_SECONDS + 4 * bound)
            race, joined = await self._race(session, system, alone.last / 2, SLACK_SECONDS + 6 * bound)
            outcome.races += [RaceRecord.of(alone, self.size, bound), RaceRecord.of(race, self.size, bound)]
            there = max(seconds for host, seconds in race.finished.items() if host <= f"p{half:02}") / alone.last
            late = (race.last - joined) / alone.last
            print(
                f"  {system}: {alone.last:.2f} s alone; those there {there:.3f} x, latecomers {late:.3f} x", flush=True
            )
            whose, mine = (f": {system}", False) if system != "minga" else ("", True)
            outcome.figures += [
                Figure(
                    f"latecomers: those who were there{whose}",
                    f"lose nothing (≤ {NOISE} × alone)" if mine else "",
                    f"{there:.2f} ×",
                    there <= NOISE if mine else None,
                ),
                Figure(
                    f"latecomers: those who came late{whose}",
                    f"≤ {self.wanted_ratio} × a fresh start" if mine else "",
                    f"{late:.2f} ×",
                    late <= self.wanted_ratio if mine else None,
                ),
            ]
        return outcome

    async def _race(self, session: Session, system: str, joins_at: float, limit: float) -> tuple[Race, float]:
        """The race, and when the second half joined."""
        content = await session.content(self.size)
        half = self.peers // 2
        with session.arena({"seed": Link.even(self.rate)}, peer_links(self.peers, self.rate), content) as arena:
            async with SYSTEMS[system](arena) as running:
                track = RaceTrack(running)
                track.begin()
                first = asyncio.create_task(take_part(track, arena.peers[:half], arena.peers[:half], limit))
                # The moment is part of what is measured, not a guess at readiness.
                await asyncio.sleep(joins_at)
                joined = track.seconds
                late = await take_part(track, arena.peers[half:], arena.peers[half:], limit) | await first
                race = await track.end()
                if late:
                    raise LabError(f"{system}: {len(late)} not within {limit:.0f} s: {', '.join(sorted(late))}")
                for host in arena.peers:
                    require_same(content, running.result(host), host)
        return race, joined
