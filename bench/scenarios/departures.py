"""Hosts go while others download: the seed once a copy has left it, or a third of the downloaders half way."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.bounds import swarm_bound
from bench.lab import Link
from bench.process import until
from bench.race import RaceTrack, race_on
from bench.results import Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS, even_links
from bench.session import Session, peer_links


@dataclass(frozen=True, slots=True)
class SeedLeaves:
    """The seed is asked to end (SIGTERM) as soon as its link has carried as many bytes as the file has."""

    name: str = "seed-leaves"
    peers: int = 8
    rate: float = 50.0
    size: int = 64 * MIB
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        links = peer_links(self.peers, self.rate)
        bound = swarm_bound(self.size, self.rate, [self.rate] * self.peers, [self.rate] * self.peers)
        limit = SLACK_SECONDS + 2 * bound
        setting = even_links(self.peers, self.rate, self.size)
        outcome = Outcome(self.name, f"{setting}; the seed's daemon gets SIGTERM once it has sent a copy")

        async def leave(track: RaceTrack) -> None:
            await until(lambda: track.sent_by("seed") >= self.size, limit, "the seed has sent a copy")
            await track.system.leave("seed")

        for system in session.chosen(*self.systems):
            seed = {"seed": Link.even(self.rate)}
            race, late = await race_on(session, system, seed, links, self.size, limit, during=leave)
            if race.finished:
                outcome.races.append(RaceRecord.of(race, self.size, bound))
            measured = f"{len(race.finished)} of {self.peers}"
            if not late:
                measured += f", the last after {race.last / bound:.2f} × the bound"
            outcome.judge("the seed leaves after one copy", "everyone still finishes", measured, not late, system)
        return outcome


@dataclass(frozen=True, slots=True)
class ThirdKilled:
    """A third of the downloaders get SIGKILL when the downloaders have half of it on average."""

    name: str = "third-killed"
    peers: int = 12
    rate: float = 50.0
    size: int = 128 * MIB
    wanted_ratio: float = 1.3
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        links = peer_links(self.peers, self.rate)
        victims, rest = list(links)[: self.peers // 3], list(links)[self.peers // 3 :]
        bound = swarm_bound(self.size, self.rate, [self.rate] * self.peers, [self.rate] * self.peers)
        limit = SLACK_SECONDS + 4 * bound
        setting = even_links(self.peers, self.rate, self.size)
        outcome = Outcome(self.name, f"{setting}; {len(victims)} are killed when half of all bytes have arrived")

        async def kill(track: RaceTrack) -> None:
            half = self.peers * self.size / 2
            await until(lambda: track.received_by(list(links)) >= half, limit, "half of all bytes have arrived")
            for victim in victims:
                track.system.kill(victim)

        for system in session.chosen(*self.systems):
            seed = {"seed": Link.even(self.rate)}
            race, late = await race_on(session, system, seed, links, self.size, limit, awaited=rest, during=kill)
            if race.finished:
                outcome.races.append(RaceRecord.of(race, self.size, bound))
            measured = f"{len(late)} of the rest did not" if late else f"{race.last / bound:.2f} ×"
            met = not late and race.last <= self.wanted_ratio * bound
            wanted = f"the rest finish ≤ {self.wanted_ratio} × the bound"
            outcome.judge("a third of the downloaders killed half way", wanted, measured, met, system)
        return outcome
