"""Who used the processor meanwhile: that is how it can be told what was the bottleneck."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.process import processor_ticks

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Part:
    """What one process used in a while."""

    name: str
    cpu_seconds: float
    core_share: float
    """Of one core: 1.0 is a process with one thread that could not do more."""
    memory_bytes: int
    """Resident at the end."""


@dataclass(frozen=True, slots=True)
class Use:
    """What was used in a while."""

    what: str
    """The work, as the report calls it."""
    seconds: float
    parts: list[Part]
    idle_share: float
    """Of the machine's processors."""
    others_share: float
    """Of the machine's processors, used by processes that are no part of this: another's work disturbs the figures."""

    def share(self, name: str) -> float:
        """Of one core, by that process."""
        return next(part.core_share for part in self.parts if part.name == name)

    def cpu_seconds(self, *names: str) -> float:
        """By those processes together."""
        return sum(part.cpu_seconds for part in self.parts if part.name in names)

    @property
    def busiest(self) -> Part:
        """Who was nearest to a whole core."""
        return max(self.parts, key=lambda part: part.core_share)


class Meter:
    """Reads what processes use, from its making to `read`. pids: name → process id."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._started = time.monotonic()
        self._before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        self._ticks = processor_ticks()

    def read(self, what: str) -> Use:
        """The use so far. Processes that have ended since are left out."""
        seconds = time.monotonic() - self._started
        idle, total = (now - before for now, before in zip(processor_ticks(), self._ticks, strict=True))
        parts = []
        for name, pid in self._pids.items():
            used = cpu_seconds(pid) - self._before[name]
            if used >= 0:
                parts.append(Part(name, round(used, 2), round(used / seconds, 4), memory_bytes(pid)))
        machine_seconds = max(1, total) / _TICKS_PER_SECOND
        idle_share = idle / max(1, total)
        ours = sum(part.cpu_seconds for part in parts) / machine_seconds
        return Use(what, round(seconds, 2), parts, round(idle_share, 3), round(max(0.0, 1 - idle_share - ours), 3))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads; 0 when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # Fields 14 and 15 of proc(5).
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def memory_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)
