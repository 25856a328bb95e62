"""Processes on the lab's hosts or on this machine: start, wait, measure, end."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.lab import Lab
from bench.netns import LabError

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_TAIL_LINES = 5
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes have used since they started."""

    cpu_seconds: float = 0.0
    """User and system time."""
    peak_bytes: int = 0
    """Greatest resident memory; 0 when it was not read before the end."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.cpu_seconds + other.cpu_seconds, self.peak_bytes + other.peak_bytes)

    def since(self, before: "Usage") -> "Usage":
        """What was used after `before`; the peak is that of the whole life."""
        return Usage(self.cpu_seconds - before.cpu_seconds, self.peak_bytes)


class HostProcess:
    """A running process (with its children); its output goes to a log, unless stdout is a pipe.

    It dies with the thread that started it, and does not see our MINGA_ variables: settings are given as flags.
    lab: on that lab's host of this name; on this machine otherwise.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        *,
        lab: Lab | None = None,
        host: str = "localhost",
        pipes: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.host = host
        self.log = log
        enter = ["setpriv", "--pdeathsig", "KILL"] if lab is None else lab.enter_command(host)
        with log.open("ab") as out:
            # No preexec_fn, so that a big parent is not copied.
            self._process = subprocess.Popen(
                [*enter, *words],
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else out,
                stderr=out,
                cwd=folder or log.parent,
                env={name: value for name, value in os.environ.items() if not name.startswith("MINGA_")},
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._ended_usage = Usage()
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @property
    def stdin(self) -> int:
        """File descriptor of the pipe into it."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    @property
    def stdout(self) -> int:
        """File descriptor of the pipe out of it."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.done()

    def check(self) -> None:
        """Raises LabError with the end of its log when it has ended."""
        if not self.running:
            raise LabError(f"a process on {self.host} ended with code {self._ended.result()}: {self.tail()}")

    async def ready(self, sign: Path, limit_seconds: float) -> None:
        """Returns once it has made its port file or socket. Raises LabError when it ends before, or after the limit."""
        await until(sign.exists, limit_seconds, f"{self.log.stem} is ready", self)

    async def wait(self) -> int:
        """Its exit code (negative: the signal), once it has ended."""
        return await asyncio.shield(self._ended)

    def usage(self) -> Usage:
        """What it and its children have used so far, or had used when it ended."""
        if not self.running:
            return self._ended_usage
        return sum((_usage_of(pid) for pid in self._session()), Usage())

    def kill(self) -> None:
        """Ends it and its children as a power cut would; no error when it has ended."""
        self._signal(signal.SIGKILL)

    async def stop(self, grace_seconds: float = 2.0) -> None:
        """Asks it to end, and kills it after the grace. Returns when it is gone."""
        self._signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self.wait()
        self._signal(signal.SIGKILL)
        await self.wait()

    def tail(self) -> str:
        """The end of its log on one line."""
        with suppress(OSError):
            return " | ".join(self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        return ""

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _reap(self) -> None:
        """It has ended: what it used would be gone with its /proc entry, and is in the answer of wait4(2).

        Its greatest memory is not taken from there: the kernel counts what the parent held when it forked.
        """
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status, used = os.wait4(self.pid, 0)
        self._ended_usage = Usage(used.ru_utime + used.ru_stime)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._ended.set_result(self._process.returncode)

    def _session(self) -> list[int]:
        """It and its children: the processes of the session that it leads."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session_of(pid) == self.pid]


async def until(
    holds: Callable[[], bool | Awaitable[bool]], limit_seconds: float, what: str, process: HostProcess | None = None
) -> None:
    """Returns once `holds`. Raises LabError after the limit, or when the process ends before."""
    deadline = time.monotonic() + limit_seconds
    while True:
        answer = holds()
        if answer if isinstance(answer, bool) else await answer:
            return
        if process is not None:
            process.check()
        if time.monotonic() > deadline:
            raise LabError(f"not within {limit_seconds:g} s: {what}")
        await asyncio.sleep(_POLL_SECONDS)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def _usage_of(pid: int) -> Usage:
    """Of one process and of those children that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return Usage()
    # Fields 14 to 17 of proc(5): user and system time, own and of children that were waited for.
    ticks = sum(int(field) for field in fields[11:15])
    peak = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return Usage(ticks / _TICKS_PER_SECOND, peak)
