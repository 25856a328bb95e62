"""Hosts go while others download: the seed once a copy has left it, or a third of the downloaders half way."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from bench.bounds import swarm_bound
from bench.content import require_same
from bench.lab import Link
from bench.race import Race, RaceTrack, take_part
from bench.results import Figure, Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS
from bench.session import Session, peer_links
from bench.systems.catalog import SYSTEMS
from bench.waiting import until
from minga_core.units import format_bytes

Departure = Callable[[RaceTrack], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class SeedLeaves:
    """The seed is asked to end (SIGTERM) as soon as its link has carried as many bytes as the file has."""

    name: str = "seed-leaves"
    peers: int = 8
    rate: float = 50.0
    size: int = 64 * MIB
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        bound = swarm_bound(self.size, self.rate, [self.rate] * self.peers, [self.rate] * self.peers)
        outcome = Outcome(
            self.name,
            f"{self.peers} downloaders, every link {self.rate:g} Mbit/s each way, {format_bytes(self.size)}; the "
            f"seed's daemon gets SIGTERM once {format_bytes(self.size)} have left its link",
        )
        for system in session.chosen(*self.systems):
            race, late = await self._race(session, system, SLACK_SECONDS + 2 * bound)
            if race.finished:
                outcome.races.append(RaceRecord.of(race, self.size, bound))
                print(f"  {outcome.races[-1].told()}", flush=True)
            done = self.peers - len(late)
            ratio = f", the last after {race.last / bound:.2f} × the bound" if race.finished else ""
            outcome.figures.append(
                Figure(
                    f"the seed leaves after one copy{f': {system}' if system != 'minga' else ''}",
                    "everyone still finishes" if system == "minga" else "",
                    f"{done} of {self.peers}{ratio}",
                    not late if system == "minga" else None,
                )
            )
        return outcome

    async def _race(self, session: Session, system: str, limit: float) -> tuple[Race, set[str]]:
        async def leave(track: RaceTrack) -> None:
            async def one_copy() -> bool:
                return track.sent_by("seed") >= self.size

            await until(one_copy, limit, "the seed has sent a copy")
            await track.system.leave("seed")

        return await _race_with(session, system, self.peers, self.rate, self.size, leave, set(), limit)


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
        bound = swarm_bound(self.size, self.rate, [self.rate] * self.peers, [self.rate] * self.peers)
        outcome = Outcome(
            self.name,
            f"{self.peers} downloaders, every link {self.rate:g} Mbit/s each way, {format_bytes(self.size)}; "
            f"{self.peers // 3} of them are killed when half of all bytes have arrived",
        )
        for system in session.chosen(*self.systems):
            race, late = await self._race(session, system, SLACK_SECONDS + 4 * bound)
            if race.finished:
                outcome.races.append(RaceRecord.of(race, self.size, bound))
                print(f"  {outcome.races[-1].told()}", flush=True)
            good = not late and race.last <= self.wanted_ratio * bound
            said = f"{len(late)} of the rest did not" if late else f"{race.last / bound:.2f} ×"
            outcome.figures.append(
                Figure(
                    f"a third of the downloaders killed half way{f': {system}' if system != 'minga' else ''}",
                    f"the rest finish ≤ {self.wanted_ratio} × the bound" if system == "minga" else "",
                    said,
                    good if system == "minga" else None,
                )
            )
        return outcome

    async def _race(self, session: Session, system: str, limit: float) -> tuple[Race, set[str]]:
        victims = {f"p{index:02}" for index in range(1, self.peers // 3 + 1)}

        async def kill(track: RaceTrack) -> None:
            async def half_way() -> bool:
                received = track.received()
                return sum(received[host] for host in received if host.startswith("p")) >= self.peers * self.size / 2

            await until(half_way, limit, "half of all bytes have arrived")
            for victim in victims:
                track.system.kill(victim)

        return await _race_with(session, system, self.peers, self.rate, self.size, kill, victims, limit)


async def _race_with(
    session: Session,
    system: str,
    peers: int,
    rate: float,
    size_bytes: int,
    departure: Departure,
    victims: set[str],
    limit: float,
) -> tuple[Race, set[str]]:
    """A race on even links on which something happens; and who of those that are left did not finish in time."""
    content = await session.content(size_bytes)
    with session.arena({"seed": Link.even(rate)}, peer_links(peers, rate), content) as arena:
        async with SYSTEMS[system](arena) as running:
            track = RaceTrack(running)
            track.begin()
            happening = asyncio.ensure_future(departure(track))
            late = await take_part(track, arena.peers, [host for host in arena.peers if host not in victims], limit)
            happening.cancel()
            with suppress(asyncio.CancelledError):
                await happening
            race = await track.end()
            for victim in victims:
                race.finished.pop(victim, None)
            for host in race.finished:
                require_same(content, running.result(host), host)
    return race, late
