"""Somebody else's host, which counts the connections that it gets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

HOST = "127.0.0.9"
"""All of 127/8 is this machine (RFC 1122), and no peer listens there."""


class Victim:
    """address: host:port. silent: it accepts and says nothing; otherwise it closes at once."""

    def __init__(self, *, silent: bool) -> None:
        self.address = ""
        self.dialled = 0
        self._silent = silent
        self._over = asyncio.Event()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        if self._silent:
            await self._over.wait()
        writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Victim"]:
        """Inside the block it does."""
        server = await asyncio.start_server(self._accept, HOST, 0)
        self.address = f"{HOST}:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self._over.set()
            server.close()
