"""What sharing costs: many files dropped at once, very many files held, and a folder hashed for the first time."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from blake3 import blake3

from bench.lab import Link
from bench.netns import LabError
from bench.results import Outcome
from bench.session import Session
from bench.systems.minga import Minga
from bench.usage import cpu_seconds, memory_bytes, private_memory_bytes
from minga_core.units import format_bytes

KIB, MIB = 1 << 10, 1 << 20
HOST = "p01"
SETTLED_SECONDS = 10.0
"""After the last file was announced: what follows a burst is no idleness."""
LS_COMMANDS = 5


@dataclass(frozen=True, slots=True)
class Dropped:
    """Files dropped into a running peer's folder, from the first to all in the directory."""

    name: str = "dropped"
    files: int = 20_000
    size: int = 10 * KIB
    per_folder: int = 1000
    rounds: int = 3
    wanted_seconds: float = 4.0
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        _require_minga(session, self.name, self.systems)
        what = f"{self.files:,} files of {format_bytes(self.size)}, from drop to listed everywhere"
        outcome = Outcome(self.name, f"{what}, hard links into the folder of a running peer")
        content = await session.content_folder(self.files, self.size, self.per_folder)
        seconds = [await self._once(session, content) for _ in range(session.rounds or self.rounds)]
        met = median(seconds) <= self.wanted_seconds
        outcome.judge(what, f"≤ {self.wanted_seconds:g} s", f"{median(seconds):.2f} s", met)
        return outcome

    async def _once(self, session: Session, content: Path) -> float:
        with session.arena({}, {HOST: Link()}, content) as arena:
            async with Minga(arena) as running:
                started = time.monotonic()
                await running.share_now(HOST)
                return time.monotonic() - started


@dataclass(frozen=True, slots=True)
class Held:
    """A peer that shares very many files: how long until all are listed, its memory, what it uses when nothing happens,
    and `minga ls` of a folder."""

    name: str = "held"
    files: int = 100_000
    size: int = KIB
    per_folder: int = 1000
    seconds: float = 30.0
    """How long it is watched doing nothing."""
    wanted_per_thousand: int | None = 500_000
    wanted_bytes: int | None = None
    wanted_share: float = 0.005
    wanted_ls: float = 0.3
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        _require_minga(session, self.name, self.systems)
        what = f"{self.files:,} files of {format_bytes(self.size)}"
        outcome = Outcome(self.name, f"{what} dropped into the folder of a running peer, which is then left alone")
        content = await session.content_folder(self.files, self.size, self.per_folder)
        with session.arena({}, {HOST: Link()}, content) as arena:
            async with Minga(arena) as running:
                pid = running.processes[HOST][-1].pid
                empty_bytes, dropped_at = memory_bytes(pid), time.monotonic()
                await running.share_now(HOST)
                listed_seconds = time.monotonic() - dropped_at
                await asyncio.sleep(SETTLED_SECONDS)
                before, held_bytes, private_bytes = cpu_seconds(pid), memory_bytes(pid), private_memory_bytes(pid)
                await asyncio.sleep(self.seconds)
                share = (cpu_seconds(pid) - before) / self.seconds
                listed = [await self._ls(running, content) for _ in range(LS_COMMANDS)]
        more = (held_bytes - empty_bytes) * 1000 // self.files
        _bytes(outcome, f"memory for each 1,000 of {what}", more, self.wanted_per_thousand)
        _bytes(outcome, f"memory of a peer with {what}", held_bytes, self.wanted_bytes)
        _bytes(outcome, f"the same, without pages that other processes have too, {what}", private_bytes, None)
        _bytes(outcome, f"memory of the same peer before there was any of {what}", empty_bytes, None)
        outcome.inform(f"{what}, from drop to listed everywhere", f"{listed_seconds:.1f} s")
        met = share <= self.wanted_share
        outcome.judge(
            f"a peer with {what} that does nothing", f"≤ {self.wanted_share:.1%} of a core", f"{share:.2%}", met
        )
        met = median(listed) <= self.wanted_ls
        outcome.judge(f"`minga ls` of one folder, {what}", f"≤ {self.wanted_ls:g} s", f"{median(listed):.2f} s", met)
        return outcome

    async def _ls(self, running: Minga, content: Path) -> float:
        started = time.monotonic()
        await running.command(HOST, "ls", f"{content.name}/000/")
        return time.monotonic() - started


@dataclass(frozen=True, slots=True)
class ColdShare:
    """A folder that is new to a peer, read from the disk and hashed, beside what `b3sum` does: each file mapped and
    hashed by all processors. In turn, the page cache without the files each time."""

    name: str = "cold-share"
    files: int = 32
    size: int = 64 * MIB
    rounds: int = 3
    wanted_ratio: float = 0.8
    systems: Sequence[str] = ("minga",)

    async def run(self, session: Session) -> Outcome:
        _require_minga(session, self.name, self.systems)
        what = f"{self.files} files of {format_bytes(self.size)}"
        outcome = Outcome(self.name, f"{what}, shared for the first time, not in the page cache")
        content = await session.content_folder(self.files, self.size)
        ratios: list[float] = []
        for _ in range(session.rounds or self.rounds):
            shared, summed = await self._shared(session, content), await asyncio.to_thread(self._summed, content)
            ratios.append(summed / shared)
            outcome.inform(f"{what}: one round", f"shared in {shared:.2f} s, b3sum {summed:.2f} s")
        ratio = median(ratios)
        limit = f"≥ {self.wanted_ratio:g} × its rate"
        outcome.judge(f"sharing {what} cold, against b3sum", limit, f"{ratio:.2f} ×", ratio >= self.wanted_ratio)
        return outcome

    async def _shared(self, session: Session, content: Path) -> float:
        with session.arena({}, {HOST: Link()}, content) as arena:
            async with Minga(arena) as running:
                await asyncio.to_thread(_forget_pages, content)
                started = time.monotonic()
                await running.share_now(HOST)
                return time.monotonic() - started

    @staticmethod
    def _summed(content: Path) -> float:
        _forget_pages(content)
        started = time.monotonic()
        for path in _files_of(content):
            blake3(max_threads=blake3.AUTO).update_mmap(path).digest()
        return time.monotonic() - started


def _require_minga(session: Session, name: str, systems: Sequence[str]) -> None:
    if "minga" not in session.chosen(*systems):
        raise LabError(f"{name} measures Minga alone")


def _bytes(outcome: Outcome, work: str, measured: int, wanted: int | None) -> None:
    limit = "" if wanted is None else f"≤ {wanted / 1e6:g} MB"
    outcome.judge(work, limit, f"{measured / 1e6:.2f} MB", None if wanted is None else measured <= wanted)


def _files_of(content: Path) -> list[Path]:
    return sorted(path for path in content.rglob("*") if path.is_file())


def _forget_pages(content: Path) -> None:
    """Drop the files from the page cache."""
    for path in _files_of(content):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
