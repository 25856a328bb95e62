"""What the benchmark asks of a system: be ready, fetch, report what it cost, end."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.lab import Lab
from bench.process import HostProcess, Usage

LEAVE_SECONDS = 10.0
CONTROL = "control"
"""The unshaped host for what is beside the swarm: tracker, registry, locator."""


@dataclass(frozen=True, slots=True)
class Arena:
    """Where a system works: the hosts, and the folders for its files."""

    lab: Lab
    seeds: Sequence[str]
    """Hosts that have the content before the clock starts; the first is *the* seed."""
    peers: Sequence[str]
    """Hosts that fetch it."""
    content: Path
    """The file, or the folder of files, to distribute. Not to be changed."""
    directory: Path
    """On the disk, empty, removed afterwards."""
    logs: Path

    def content_paths(self) -> list[Path]:
        """The file, or all files and folders of the folder."""
        return [self.content] if self.content.is_file() else sorted(self.content.rglob("*"))

    def folder(self, host: str) -> Path:
        """The host's own disk, as it were."""
        folder = self.directory / host
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class System(ABC):
    """An async context manager: inside the block everything is up and idle, with no connection between peers open.

    Processes go into `processes`, so that their cost is known and they end.
    """

    name: str
    commands: Sequence[str] = ()
    """Programs that it needs, from packages of the system."""
    modules: Sequence[str] = ()
    """Python modules that it needs, from requirements-bench.lock."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.lab = arena.lab
        self.processes: dict[str, list[HostProcess]] = {}
        self.first_bytes: dict[str, float] = {}
        """Seconds from the start of a host's fetch to the first byte that its client had; where that is known."""

    @classmethod
    def missing(cls) -> list[str]:
        """What it needs and this machine has not."""
        commands = [command for command in cls.commands if shutil.which(command) is None]
        return commands + [f"Python's {module}" for module in cls.modules if find_spec(module) is None]

    @abstractmethod
    async def start(self) -> None:
        """Returns when every daemon is ready and the seeds offer the content. Raises LabError."""

    @abstractmethod
    async def fetch(self, host: str) -> None:
        """Returns when the host has the content, whole and, where the system does so, verified. Raises LabError.

        Cancelling it leaves the host's processes as they are.
        """

    @abstractmethod
    def result(self, host: str) -> Path:
        """Where the content is on a host that fetched it."""

    async def stop(self) -> None:  # noqa: B027 - most have nothing
        """Ends whatever is not in `processes`."""

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    def usage(self) -> dict[str, Usage]:
        """Cost so far of each host."""
        return {
            host: sum((process.usage() for process in processes), Usage()) for host, processes in self.processes.items()
        }

    def kill(self, host: str) -> None:
        """All of a host's processes at once, as in a power cut."""
        for process in self.processes[host]:
            process.kill()

    async def leave(self, host: str) -> None:
        """The host's processes are asked to end."""
        for process in self.processes[host]:
            await process.stop(LEAVE_SECONDS)

    def spawn(
        self,
        host: str,
        words: Sequence[str],
        *,
        log: str = "",
        pipes: bool = False,
    ) -> HostProcess:
        """A process on a host, with a log of its own."""
        path = self.arena.logs / f"{self.name}-{log or host}.log"
        process = HostProcess(words, path, lab=self.lab, host=host, pipes=pipes, folder=self.arena.folder(host))
        self.processes.setdefault(host, []).append(process)
        return process

    async def _end(self) -> None:
        try:
            await self.stop()
        finally:
            # Nothing of value is on these hosts: no need to ask.
            started = [process for processes in self.processes.values() for process in processes]
            for process in started:
                process.kill()
            for process in started:
                await process.wait()
