"""Which processes used the processors during a measurement: shows what was the bottleneck."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Use:
    """What was used during one piece of work."""

    what: str
    """The work, as the report calls it."""
    seconds: float
    shares: dict[str, float]
    """Of one core, by process: 1.0 is a process with one thread that cannot do more."""
    idle_share: float
    """Of the machine's processors."""
    others_share: float
    """Of the machine's processors, by processes that are no part of the benchmark: they disturb the figures."""

    def cpu_seconds(self, prefix: str) -> float:
        """Processor time of the processes whose names start so."""
        return self.seconds * sum(share for name, share in self.shares.items() if name.startswith(prefix))

    def line(self) -> str:
        """One line for a terminal, the busiest process first."""
        order = sorted(self.shares, key=lambda name: -self.shares[name])
        parts = ", ".join(f"{name} {self.shares[name]:.0%}" for name in order if self.shares[name] >= 0.005)
        return f"          {self.what}: {parts}; machine {self.idle_share:.0%} idle, others {self.others_share:.0%}"


class Meter:
    """Reads what processes use, from its construction to `read`. pids: name → process id."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._started = time.monotonic()
        self._before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        self._machine = machine_seconds()

    @property
    def names(self) -> set[str]:
        """Of the processes."""
        return set(self._pids)

    def read(self, what: str, **ended: float) -> Use:
        """The use so far. ended: processor seconds of further processes, which have ended since."""
        seconds = time.monotonic() - self._started
        idle, total = (now - before for now, before in zip(machine_seconds(), self._machine, strict=True))
        used = {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}
        used = {name: spent for name, spent in used.items() if spent >= 0} | ended
        idle_share = idle / total if total else 1.0
        others = 1 - idle_share - sum(used.values()) / total if total else 0.0
        shares = {name: round(spent / seconds, 4) for name, spent in used.items()}
        return Use(what, round(seconds, 2), shares, round(idle_share, 3), round(max(0.0, others), 3))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads; 0 when it has ended."""
    with suppress(psutil.NoSuchProcess):
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system
    return 0.0


def machine_seconds() -> tuple[float, float]:
    """Idle time (waiting for the disk included) and all time of the machine's processors since boot."""
    times = psutil.cpu_times()
    # Guest time is counted in user time too.
    return times.idle + times.iowait, sum(times) - times.guest - times.guest_nice


def memory_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def private_memory_bytes(pid: int) -> int:
    """Resident memory of a process that no other process shares: without the pages of libraries that others use."""
    return int(psutil.Process(pid).memory_full_info().uss)
