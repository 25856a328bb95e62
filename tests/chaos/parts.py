"""Processes of the network that can be killed, paused, cut off, and started again where they were."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bench.lab import Lab
from bench.process import HostProcess
from bench.product import ControlClient
from tests.chaos.content import digest_of
from tests.chaos.versions import Copy

READY_SECONDS = 60.0
AWAY = frozenset({"killed", "power_lost", "restarted", "index_lost"})
"""Faults under which there is no process."""


class Part:
    """One process on a host of its own. `ready` is a file that it makes when it is ready."""

    def __init__(
        self,
        lab: Lab,
        name: str,
        kind: str,
        words: Callable[[], Sequence[str]],
        ready: Path,
        log: Path,
        metrics_address: str | None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.metrics_address = metrics_address
        """host:port; None when it has none of ours."""
        self.faults: set[str] = set()
        """Names of the faults that it is under."""
        self._lab = lab
        self._words = words
        self._ready = ready
        self._log = log
        self._process: HostProcess | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process, be it paused."""
        return self._process is not None and self._process.running

    @property
    def healthy(self) -> bool:
        """Runs, and no fault is on it."""
        return self.running and not self.faults

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns when it is ready. Raises LabError when it ends or does not get ready."""
        with suppress(FileNotFoundError):
            self._ready.unlink()
        self._process = HostProcess(self._words(), self._log, lab=self._lab, host=self.name)
        await self._process.ready(self._ready, READY_SECONDS)

    async def kill(self) -> None:
        """End it without a chance to do anything; its kernel ends the connections."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self, grace_seconds: float) -> int:
        """SIGTERM; its exit code, negative when it had to be killed."""
        assert self._process is not None
        await self._process.stop(grace_seconds)
        return await self._process.wait()

    def check(self) -> None:
        """Raises LabError when it has ended by itself."""
        if self._process is not None and not self.faults & AWAY:
            self._process.check()

    def pause(self) -> None:
        """Stops it (SIGSTOP), like a machine that swaps or a virtual one that is moved."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """The end of a pause."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class PeerPart(Part):
    """A peer, on a small disk of its own."""

    def __init__(
        self,
        lab: Lab,
        name: str,
        words: Callable[[], Sequence[str]],
        ready: Path,
        log: Path,
        metrics_address: str,
        disk: Path,
        control: Path,
    ) -> None:
        super().__init__(lab, name, "peer", words, ready, log, metrics_address)
        self.share = disk / "share"
        self.filler = disk / "filler"
        """What fills the disk."""
        self.disk = disk
        """Where the shared folder is; a file that is moved into that is written beside it."""
        self.control = ControlClient(control)
        self.locks: dict[str, asyncio.Lock] = {}
        """One for each name: no actor changes a file here while it is being fetched here."""

    def lock(self, name: str) -> asyncio.Lock:
        """The lock of a name."""
        return self.locks.setdefault(name, asyncio.Lock())

    def file(self, name: str) -> Copy | None:
        """The shared file of that name; None when there is none."""
        path = self.share / name
        digest = digest_of(path)
        with suppress(FileNotFoundError):
            # The kernel's clock is nobody's wall clock in here, and its last change is when the file got its name.
            age_seconds = time.time() - path.stat().st_ctime
            return Copy(digest, time.monotonic() - age_seconds) if digest is not None else None
        return None

    def files(self) -> dict[str, Copy]:
        """All shared files, by name."""
        found = {}
        for folder, folders, files in os.walk(self.share):
            folders[:] = [name for name in folders if name != ".minga"]
            for file in files:
                name = str(Path(folder, file).relative_to(self.share))
                if (copy := self.file(name)) is not None:
                    found[name] = copy
        return found
