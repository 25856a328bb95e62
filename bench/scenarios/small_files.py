"""Many small files, and single tiny ones: what a file costs when its bytes cost nothing."""

import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from bench.content import require_same
from bench.lab import Link
from bench.netns import LabError
from bench.race import Race, run_race
from bench.results import Outcome, RaceRecord
from bench.session import Session
from bench.systems.catalog import SYSTEMS
from bench.systems.minga import Minga
from minga_core.units import format_bytes

LIMIT_SECONDS = 300.0
KIB = 1 << 10


@dataclass(frozen=True, slots=True)
class SmallFiles:
    """A folder by `minga get FOLDER/`, from the start of the command to its end; the systems in turn."""

    name: str = "small-files"
    files: int = 1000
    size: int = 10 * KIB
    per_folder: int = 100
    rounds: int = 3
    wanted_seconds: float | None = 3.0
    wanted_ratio: float | None = None
    """Time of each way of Minga's as a multiple of rsync's."""
    systems: Sequence[str] = ("minga", "rsync")

    async def run(self, session: Session) -> Outcome:
        what = f"{self.files:,} files of {format_bytes(self.size)} in a folder"
        outcome = Outcome(self.name, f"{what}, one host to another, not shaped, the whole command")
        content = await session.content_folder(self.files, self.size, self.per_folder)
        seconds: dict[str, list[float]] = {}
        for _ in range(session.rounds or self.rounds):
            for system in session.chosen(*self.systems):
                race = await self._race(session, system, content)
                outcome.races.append(RaceRecord.of(race, self.files * self.size, 0.0))
                seconds.setdefault(system, []).append(race.last)
        times = {system: median(of_it) for system, of_it in seconds.items()}
        for system, time_seconds in times.items():
            wanted = self.wanted_seconds
            met = None if wanted is None else time_seconds <= wanted
            outcome.judge(what, f"≤ {wanted:g} s" if wanted else "", f"{time_seconds:.2f} s", met, system)
            if self.wanted_ratio is not None and "rsync" in times and system.startswith("minga"):
                ratio = time_seconds / times["rsync"]
                limit = f"≤ {self.wanted_ratio:g} × its time"
                outcome.judge(f"{what}: {system} against rsync", limit, f"{ratio:.2f} ×", ratio <= self.wanted_ratio)
        return outcome

    async def _race(self, session: Session, system: str, content: Path) -> Race:
        with session.arena({"seed": Link()}, {"p01": Link()}, content) as arena:
            async with SYSTEMS[system](arena) as running:
                race = await run_race(running, LIMIT_SECONDS)
                require_same(content, running.result("p01"), "p01")
        return race


@dataclass(frozen=True, slots=True)
class TinyFile:
    """Files of their own, one after the other: through a running daemon, then by whole commands."""

    name: str = "tiny-file"
    size: int = KIB
    fetches: int = 300
    commands: int = 15
    wanted_p50: float = 0.050
    wanted_p99: float = 0.150
    wanted_command: float = 0.250
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        if "minga" not in session.chosen(*self.systems):
            raise LabError(f"{self.name} measures Minga alone")
        outcome = Outcome(
            self.name,
            f"{format_bytes(self.size)} each, not shaped: {self.fetches} files through a running daemon, then "
            f"{self.commands} `minga get` and as many `minga ls` commands, started to ended, one after the other",
        )
        content = await session.content_folder(self.fetches + self.commands, self.size)
        names = [f"folder/{index // 100:03}/{index:06}.bin" for index in range(self.fetches + self.commands)]
        with session.arena({"seed": Link()}, {"p01": Link()}, content) as arena:
            async with Minga(arena) as running:
                single = [await _timed(running.fetch_file("p01", name)) for name in names[: self.fetches]]
                whole = [await _timed(running.command("p01", "get", name)) for name in names[self.fetches :]]
                listed = [await _timed(running.command("p01", "ls", "folder/000/")) for _ in range(self.commands)]
                require_same(content, running.result("p01"), "p01")
        what = f"one {format_bytes(self.size)} file"
        _judge(outcome, f"{what} through a running daemon, p50", median(single), self.wanted_p50)
        _judge(outcome, f"{what} through a running daemon, p99", quantiles(single, n=100)[98], self.wanted_p99)
        _judge(outcome, f"{what}, the whole cold command", median(whole), self.wanted_command)
        _judge(outcome, "`minga ls` of 100 files, the whole cold command", median(listed), self.wanted_command)
        return outcome


async def _timed(work: Awaitable[None]) -> float:
    started = time.monotonic()
    await work
    return time.monotonic() - started


def _judge(outcome: Outcome, work: str, seconds: float, wanted: float) -> None:
    outcome.judge(work, f"≤ {wanted * 1e3:.0f} ms", f"{seconds * 1e3:.0f} ms", seconds <= wanted)
