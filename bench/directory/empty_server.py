"""An HTTP server that does nothing but answer: against it the load generator shows how much it could do."""

import asyncio
from typing import cast

from bench.directory.worker import serve

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


class _Answering(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)


async def listen() -> int:
    """Serves from now on; the port."""
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
    _KEPT.append(server)
    port: int = server.sockets[0].getsockname()[1]
    return port


_KEPT: list[asyncio.Server] = []

if __name__ == "__main__":
    serve({"listen": listen})
