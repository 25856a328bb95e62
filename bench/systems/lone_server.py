"""What systems have in common whose seed serves all downloaders, and whose downloaders serve none."""

import asyncio
from pathlib import Path
from typing import ClassVar

from bench.systems.port import System


class LoneServer(System):
    """One server on the seed, a client process on each other host."""

    port: ClassVar[int]
    """Where the server listens."""

    def result(self, host: str) -> Path:
        return self.arena.folder(host) / "got" / self.arena.content.name

    async def answers(self) -> bool:
        """Whether the server takes connections."""
        try:
            connection = await asyncio.to_thread(self.lab.connect, self.arena.seeds[0], self.port)
        except OSError:
            return False
        connection.close()
        return True
