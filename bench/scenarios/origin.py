"""A file behind a URL, and N machines that want it at once: what its origin sends, when each has it, and what it costs
when the machine that fetches it for the others is killed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.bounds import bytes_per_second, one_server_bound
from bench.lab import Link
from bench.race import RaceTrack, even_race, race_on, require_all
from bench.results import Outcome, RaceRecord
from bench.scenarios.source_dies import ENOUGH, SAMPLE_SECONDS, seconds_until_back
from bench.scenarios.swarm import MIB, SLACK_SECONDS, even_links
from bench.session import Session, peer_links
from bench.systems.nginx import CONNECTION_BYTES_PER_SECOND
from minga_core.units import format_bytes

SYSTEM, ALONE = "minga-origin", "nginx"
HEAD_START_SECONDS = 0.5
"""So much earlier than the others the machine asks that is killed later: it is the one that fetches."""


@dataclass(frozen=True, slots=True)
class Origin:
    """minga-origin: every peer asks its daemon for the URL. nginx: every machine downloads it for itself.
    one-then-swarm: one machine downloads and shares it, and the others fetch it then.

    Times are compared with those of one machine that downloads it alone.
    """

    name: str = "origin-16"
    peers: int = 16
    rate: float = 100.0
    """Of every link, both ways, in Mbit/s."""
    size: int = 256 * MIB
    wanted_copies: float = 1.05
    wanted_ratio: float = 1.15
    wanted_first_ratio: float = 2.0
    wanted_kill_seconds: float = 2.0
    systems: Sequence[str] = (SYSTEM, "one-then-swarm", ALONE)
    rounds: int = 1

    async def run(self, session: Session) -> Outcome:
        outcome = Outcome(self.name, f"an origin and {even_links(self.peers, self.rate, self.size)}")
        rounds = session.rounds or self.rounds
        direct = await self._direct(session, outcome)
        for system in session.chosen(*self.systems):
            records = [await self._race(session, outcome, system) for _ in range(rounds)]
            self._judge(outcome, system, records, direct)
            if system == SYSTEM:
                lost = [await self._loss(session, outcome) for _ in range(rounds)]
                work = f"the peer that fetches for {self.peers - 1} others is killed half way: the origin's link loses"
                wanted, met = f"≤ {self.wanted_kill_seconds:g} s", max(map(sum, lost)) <= self.wanted_kill_seconds
                idle, again = max(lost, key=sum)
                outcome.judge(work, wanted, f"{idle:.2f} s idle, {again:.2f} s for what it had sent before", met)
        return outcome

    async def _direct(self, session: Session, outcome: Outcome) -> RaceRecord:
        bound = one_server_bound(self.size, self.rate, [self.rate])
        race = await even_race(session, ALONE, 1, self.rate, self.size, SLACK_SECONDS + 4 * bound)
        record = RaceRecord.of(race, self.size, bound)
        first = record.first_byte_seconds[0]
        work = f"one machine downloads {format_bytes(self.size)} at {self.rate:g} Mbit/s alone"
        outcome.inform(work, f"{record.last:.2f} s, its first byte after {1000 * first:.0f} ms")
        return record

    async def _race(self, session: Session, outcome: Outcome, system: str) -> RaceRecord:
        # N downloads of a file that is N/2 times smaller show as well how long N downloads take.
        size = max(MIB, self.size * 2 // self.peers // MIB * MIB) if system == ALONE else self.size
        bound = one_server_bound(size, self.rate, [self.rate])
        limit = SLACK_SECONDS + bound * (2 * self.peers if system == ALONE else 4)
        record = RaceRecord.of(await even_race(session, system, self.peers, self.rate, size, limit), size, bound)
        outcome.races.append(record)
        return record

    def _judge(self, outcome: Outcome, system: str, records: Sequence[RaceRecord], direct: RaceRecord) -> None:
        size = format_bytes(records[0].size_bytes)
        work = f"{self.peers} cold machines, {self.rate:g} Mbit/s links, {size}: {system}"
        copies = median(record.seed_copies for record in records)
        ratio = median(record.last / record.size_bytes for record in records) / (direct.last / direct.size_bytes)
        measured = f"{copies:.2f} copies from the origin, the last one after {ratio:.2f} × one download"
        firsts = [max(record.first_byte_seconds) for record in records if record.first_byte_seconds]
        if system != SYSTEM:
            first = f", its first byte after {1000 * median(firsts):.0f} ms" if firsts else ""
            outcome.inform(work, measured + first)
            return
        wanted = f"≤ {self.wanted_copies} copies, ≤ {self.wanted_ratio} × one download"
        outcome.judge(work, wanted, measured, copies <= self.wanted_copies and ratio <= self.wanted_ratio)
        allowed = self.wanted_first_ratio * direct.first_byte_seconds[0]
        measured, wanted = f"{1000 * median(firsts):.0f} ms", f"≤ {1000 * allowed:.0f} ms"
        outcome.judge(f"{work}, the first byte at the last one", wanted, measured, median(firsts) <= allowed)

    async def _loss(self, session: Session, outcome: Outcome) -> tuple[float, float]:
        """Seconds that the origin's link loses when the peer that fetches is killed half way: for how long less is sent
        than it carries, and how long it takes to send more than one copy.

        It is the link that bounds the race.
        """
        links = peer_links(self.peers, self.rate)
        fetcher, *others = links
        samples: list[tuple[float, int]] = []
        killed_at: list[float] = []

        async def watch_and_kill(track: RaceTrack) -> None:
            while True:
                sent = track.sent_by("seed")
                samples.append((track.seconds, sent))
                if sent >= self.size / 2 and not killed_at:
                    killed_at.append(track.seconds)
                    track.system.kill(fetcher)
                await asyncio.sleep(SAMPLE_SECONDS)

        bound = one_server_bound(self.size, self.rate, [self.rate])
        limit = SLACK_SECONDS + 4 * bound
        seeds, delays = {"seed": Link.even(self.rate)}, dict.fromkeys(others, HEAD_START_SECONDS)
        race, late = await race_on(
            session, SYSTEM, seeds, links, self.size, limit, awaited=others, delays=delays, during=watch_and_kill
        )
        require_all(race, late, limit)
        record = RaceRecord.of(race, self.size, bound)
        outcome.races.append(record)
        idle = seconds_until_back(samples, killed_at[0], ENOUGH * bytes_per_second(self.rate))
        return idle, max(0.0, record.seed_copies - 1) * bound


@dataclass(frozen=True, slots=True)
class LimitedOrigin:
    """One machine, and an origin that limits each connection to much less than the link carries."""

    name: str = "origin-limited"
    rate: float = 400.0
    size: int = 256 * MIB
    wanted_share: float = 0.5
    systems: Sequence[str] = ("nginx-limited", "minga-origin-limited")
    rounds: int = 1

    async def run(self, session: Session) -> Outcome:
        each = f"{CONNECTION_BYTES_PER_SECOND / 1e6:g} MB/s a connection"
        outcome = Outcome(self.name, f"an origin with {each}, {even_links(1, self.rate, self.size)}")
        limit = SLACK_SECONDS + 4 * self.size / CONNECTION_BYTES_PER_SECOND
        bound = one_server_bound(self.size, self.rate, [self.rate])
        seconds: dict[str, float] = {}
        for system in session.chosen(*self.systems):
            for _ in range(session.rounds or self.rounds):
                race = await even_race(session, system, 1, self.rate, self.size, limit)
                outcome.races.append(RaceRecord.of(race, self.size, bound))
                seconds[system] = min(seconds.get(system, limit), race.last)
        work = f"an origin with {each}: {format_bytes(self.size)}"
        curl, ours = (seconds.get(system) for system in self.systems)
        if curl is None or ours is None:
            return outcome
        wanted, measured = f"≤ {self.wanted_share:g} × curl", f"{ours:.1f} s, {ours / curl:.2f} × curl"
        outcome.judge(work, wanted, measured, ours <= self.wanted_share * curl)
        return outcome
