"""Many small files, and single tiny ones: what a file costs when its bytes cost nothing."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from bench.content import require_same
from bench.lab import Link
from bench.netns import LabError
from bench.race import run_race
from bench.results import Outcome, RaceRecord
from bench.session import Session
from bench.systems.catalog import SYSTEMS
from bench.systems.minga import Minga
from minga_core.units import format_bytes

LIMIT_SECONDS = 60.0
KIB = 1 << 10


@dataclass(frozen=True, slots=True)
class SmallFiles:
    """A folder by `minga get FOLDER/`, from the start of the command to its end."""

    name: str = "small-files"
    files: int = 1000
    size: int = 10 * KIB
    rounds: int = 3
    wanted_seconds: float = 3.0
    systems: Sequence[str] = ("minga", "rsync")

    async def run(self, session: Session) -> Outcome:
        what = f"{self.files:,} files of {format_bytes(self.size)} in a folder"
        outcome = Outcome(self.name, f"{what}, one host to another, not shaped, the whole command")
        content = await session.content_folder(self.files, self.size)
        for system in session.chosen(*self.systems):
            seconds: list[float] = []
            for _ in range(session.rounds or self.rounds):
                with session.arena({"seed": Link()}, {"p01": Link()}, content) as arena:
                    async with SYSTEMS[system](arena) as running:
                        race = await run_race(running, LIMIT_SECONDS)
                        require_same(content, running.result("p01"), "p01")
                outcome.races.append(RaceRecord.of(race, self.files * self.size, 0.0))
                seconds.append(race.last)
            met = median(seconds) <= self.wanted_seconds
            outcome.judge(what, f"≤ {self.wanted_seconds:g} s", f"{median(seconds):.2f} s", met, system)
        return outcome


@dataclass(frozen=True, slots=True)
class TinyFile:
    """Files of their own, one after the other: through a running daemon, then by whole commands."""

    name: str = "tiny-file"
    size: int = KIB
    fetches: int = 300
    commands: int = 15
    wanted_p50: float = 0.050
    wanted_p99: float = 0.150
    wanted_command: float = 0.400
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        if "minga" not in session.chosen(*self.systems):
            raise LabError(f"{self.name} measures Minga alone")
        outcome = Outcome(
            self.name,
            f"{format_bytes(self.size)} each, not shaped: {self.fetches} files through a running daemon, then "
            f"{self.commands} `minga get` commands, started to ended, one after the other",
        )
        content = await session.content_folder(self.fetches + self.commands, self.size)
        names = [f"folder/{index // 100:03}/{index:06}.bin" for index in range(self.fetches + self.commands)]
        with session.arena({"seed": Link()}, {"p01": Link()}, content) as arena:
            async with Minga(arena) as running:
                single = [await self._timed(running, name) for name in names[: self.fetches]]
                whole = [await self._timed(running, name, command=True) for name in names[self.fetches :]]
                require_same(content, running.result("p01"), "p01")
        what = f"one {format_bytes(self.size)} file"
        _judge(outcome, f"{what} through a running daemon, p50", median(single), self.wanted_p50)
        _judge(outcome, f"{what} through a running daemon, p99", quantiles(single, n=100)[98], self.wanted_p99)
        _judge(outcome, f"{what}, the whole cold command", median(whole), self.wanted_command)
        return outcome

    async def _timed(self, running: Minga, name: str, *, command: bool = False) -> float:
        started = time.monotonic()
        if command:
            await running.command("p01", "get", name)
        else:
            await running.fetch_file("p01", name)
        return time.monotonic() - started


def _judge(outcome: Outcome, work: str, seconds: float, wanted: float) -> None:
    outcome.judge(work, f"≤ {wanted * 1e3:.0f} ms", f"{seconds * 1e3:.0f} ms", seconds <= wanted)
