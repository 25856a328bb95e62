"""kube-proxy: connections to a Service's virtual address go to one of its pods, chosen when they are opened.

A connection stays with its pod until either end closes it, also when the pod is not ready any more: as with kube-proxy,
whose choice is kept for as long as the connection lives. While there is no pod to go to, connections are refused.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable

READ_BYTES = 256 * 1024
CONNECT_SECONDS = 5.0
_RESET = struct.pack("ii", 1, 0)

Choose = Callable[[], list[tuple[str, int]]]
"""Addresses that a new connection may go to now."""


class PortProxy:
    """One port of one Service."""

    def __init__(self, address: str, port: int, choose: Choose) -> None:
        self._address = address
        self._port = port
        self._choose = choose
        self._server: asyncio.Server | None = None
        self._turn = asyncio.Lock()
        self._closed = False
        self._open: set[asyncio.Task[None]] = set()

    async def refresh(self) -> None:
        """Listens, or refuses, as there are pods to go to now. To be called whenever that may have changed."""
        async with self._turn:
            if self._closed or not self._choose():
                self._refuse()
            elif self._server is None:
                self._server = await asyncio.start_server(self._accepted, self._address, self._port)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None, "it refuses"
        return int(self._server.sockets[0].getsockname()[1])

    async def aclose(self) -> None:
        """Stops, and cuts what is open."""
        self._closed = True
        await self.refresh()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer), name="service-connection")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pods = self._choose()
        try:
            if not pods:
                raise ConnectionRefusedError("no pod is left")
            async with asyncio.timeout(CONNECT_SECONDS):
                to_reader, to_writer = await asyncio.open_connection(*random.choice(pods))
        except OSError:
            # The pod has gone a moment ago; as the connection was accepted here, a reset is what comes closest.
            _reset(writer)
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, to_writer))
                group.create_task(_pump(to_reader, writer))
        except* OSError:
            # What broke on one side breaks on the other.
            _reset(writer)
            _reset(to_writer)
        finally:
            writer.close()
            to_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_BYTES):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
