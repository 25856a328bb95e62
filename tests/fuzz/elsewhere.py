"""A proxy whose connections come from another address of this machine, as from another host."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

HOST = "127.0.0.9"
"""All of 127/8 is this machine (RFC 1122)."""


@asynccontextmanager
async def seen_from(address: str, host: str = HOST) -> AsyncIterator[str]:
    """host:port that leads to `address`, which sees the connections as coming from `host`."""
    there, _, port = address.rpartition(":")
    tasks: set[asyncio.Task[None]] = set()

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):
            other_reader, other_writer = await asyncio.open_connection(there, int(port), local_addr=(host, 0))
            try:
                await asyncio.gather(_pumped(reader, other_writer), _pumped(other_reader, writer))
            finally:
                other_writer.close()
        writer.close()
        tasks.discard(task)

    server = await asyncio.start_server(passed_on, "127.0.0.1", 0, backlog=4096)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pumped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
