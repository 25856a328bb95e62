"""A part of a local network that is ready once it has made a file."""

import asyncio
from datetime import timedelta
from pathlib import Path

from minga_cli.localprocess import LocalProcess

START_LIMIT = timedelta(seconds=60)
"""A part needs a second of a processor to start, and a busy machine gives it a twentieth of one."""


class LocalService:
    """A part of the network: a process that is ready once it has made a file, and keeps its address when restarted."""

    def __init__(self, process: LocalProcess, ready_file: Path) -> None:
        self.process = process
        self.address = ""
        """host:port, once it is ready."""
        self._ready_file = ready_file

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    async def start(self, limit: timedelta = START_LIMIT) -> None:
        """Start it and return when it is ready. Raises UnavailableError, AlreadyRunningError."""
        await asyncio.to_thread(self._ready_file.unlink, missing_ok=True)
        await self.process.start()
        await self._until_ready(limit)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()

    async def restart(self, limit: timedelta = START_LIMIT) -> None:
        """Kill it when it runs, and start it again on the same port."""
        self.process.kill()
        await self.process.wait()
        await self.start(limit)

    async def _until_ready(self, limit: timedelta) -> None:
        self.address = await self.process.ready(self._ready_file, limit)
