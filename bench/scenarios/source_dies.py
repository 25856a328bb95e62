"""One of several sources is killed in the middle of a chunk: how long until the download is as fast as it can be?

The downloader's link is faster than all sources' together, so its rate is the sum of theirs. The source dies when
half of the file has arrived; all sources are sending then, so each is in the middle of a chunk. The rate is back once
no half second that begins later has a mean below 80 % of what the remaining sources' links carry; a lull that begins
more than three seconds after the kill has another cause.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bench.bounds import bytes_per_second
from bench.lab import Link
from bench.race import RaceTrack, race_on
from bench.results import Outcome, RaceRecord
from bench.scenarios.swarm import MIB, SLACK_SECONDS
from bench.session import Session
from minga_core.units import format_bytes

SAMPLE_SECONDS = 0.02
WINDOW_SECONDS = 0.5
ENOUGH = 0.8
LOOK_SECONDS = 3.0
KILL, CUT = "kill -9", "a pulled cable"
MANNERS = (KILL, CUT)


@dataclass(frozen=True, slots=True)
class SourceDies:
    """SIGKILL to one of three complete sources, so that its kernel still ends the connections; then, in another round,
    its cable is pulled before, so that no host is notified.
    """

    name: str = "source-dies"
    sources: int = 3
    rate: float = 50.0
    """Of each source's link; the downloader's is as fast as all together and a third more."""
    size: int = 256 * MIB
    wanted_seconds: float = 2.0
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        outcome = Outcome(
            self.name,
            f"{self.sources} sources with {self.rate:g} Mbit/s each, 1 downloader, {format_bytes(self.size)}; one "
            f"source dies half way; back: half a second at {ENOUGH:.0%} of what the other links carry",
        )
        for system in session.chosen(*self.systems):
            for manner in MANNERS:
                waits = [await self._round(session, system, outcome, manner) for _ in range(session.rounds or 1)]
                work, wanted = f"a source dies mid-chunk, by {manner}", f"rate back within {self.wanted_seconds:g} s"
                met = max(waits) <= self.wanted_seconds
                outcome.judge(work, wanted, f"{max(waits):.2f} s", met, system)
        return outcome

    async def _round(self, session: Session, system: str, outcome: Outcome, manner: str) -> float:
        seeds = {"seed": Link.even(self.rate)} | {f"seed{i}": Link.even(self.rate) for i in range(2, self.sources + 1)}
        downloader = {"p01": Link.even(self.rate * self.sources * 4 / 3)}
        # One half at the rate of all, the other at the rate of all but one.
        rates = [bytes_per_second(self.rate * count) for count in (self.sources, self.sources - 1)]
        bound = sum(self.size / 2 / rate for rate in rates)
        samples: list[tuple[float, int]] = []
        died_at: list[float] = []

        async def watch_and_kill(track: RaceTrack) -> None:
            while True:
                received = track.received_by(["p01"])
                samples.append((track.seconds, received))
                if received >= self.size / 2 and not died_at:
                    died_at.append(track.seconds)
                    if manner == CUT:
                        track.system.lab.cut("seed2")
                    track.system.kill("seed2")
                await asyncio.sleep(SAMPLE_SECONDS)

        limit = SLACK_SECONDS + 4 * bound
        race, late = await race_on(session, system, seeds, downloader, self.size, limit, during=watch_and_kill)
        if late:
            return float("inf")
        outcome.races.append(RaceRecord.of(race, self.size, bound))
        return seconds_until_back(samples, died_at[0], ENOUGH * rates[1])


def seconds_until_back(samples: Sequence[tuple[float, int]], killed_at: float, wanted_rate: float) -> float:
    """Seconds from the kill to the start of the last slow window that it can have caused; infinite when none is fast.

    samples: (seconds, bytes received so far), in order. wanted_rate: bytes/s. 0 when no window is slow.
    """
    last_slow = killed_at
    for index, (start, before) in enumerate(samples):
        later = next((item for item in samples[index:] if item[0] - start >= WINDOW_SECONDS), None)
        if start < killed_at:
            continue
        if later is None:
            return float("inf")
        end, after = later
        if (after - before) / (end - start) < wanted_rate:
            last_slow = start
        elif start > killed_at + LOOK_SECONDS:
            break
    return last_slow - killed_at
