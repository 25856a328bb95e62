"""Ports of a process that takes connections with TLS and without, while its network goes from open to secure
(docs/adr/0038). The first byte of a connection says which it is."""

import asyncio
import logging
import socket
import time

from prometheus_client import CollectorRegistry, Counter

from minga_runtime.logs import log_event
from minga_runtime.sockets import keep_alive
from minga_runtime.trust.origin import RELAYED, Origin

log = logging.getLogger(__name__)

TLS_RECORD = b"\x16"
"""Begins a handshake (RFC 8446, 5.1). HTTP/1 and HTTP/2 begin with a letter."""
FIRST_BYTE_SECONDS = 10.0
"""As long as a handshake may take."""
LOG_SECONDS = 60.0
RELAY_BYTES = 256 * 1024
LINGER_SECONDS = 5.0
"""What one end still sends to one that has closed is waited for no longer."""


class OpenConnections:
    """Counts connections without TLS, so that it shows when all callers have moved. For the event loop's thread."""

    def __init__(self, registry: CollectorRegistry, part: str) -> None:
        self._part = part
        self._count = Counter(
            f"minga_{part}_open_connections",
            "Connections without TLS to a part with certificates and MINGA_OPEN=1: none, when all have moved.",
            registry=registry,
        )
        self._seen, self._log_at = 0, 0.0
        log_event(log, logging.WARNING, "open_connections_taken", part=part)

    def add(self, origin: Origin) -> None:
        """Count one, and log at most once a minute."""
        self._count.inc()
        self._seen += 1
        if time.monotonic() >= self._log_at:
            self._log_at = time.monotonic() + LOG_SECONDS
            log_event(log, logging.WARNING, "open_connections", part=self._part, count=self._seen, last=origin.address)


async def begins_with_tls(connection: socket.socket) -> bool:
    """Whether a connection begins with TLS; what has come is left unread. Raises OSError (TimeoutError included)."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        async with asyncio.timeout(FIRST_BYTE_SECONDS):
            await readable.wait()
    finally:
        loop.remove_reader(connection)
    if not (first := connection.recv(1, socket.MSG_PEEK)):
        raise ConnectionResetError("closed before the first byte")
    return first == TLS_RECORD


async def relay(connection: socket.socket, port: int) -> None:
    """Join a connection to a port of this process, until both ends are done. Closes it. Raises OSError."""
    loop = asyncio.get_running_loop()
    with connection, socket.socket() as inner:
        inner.setblocking(False)
        await loop.sock_connect(inner, ("127.0.0.1", port))
        keep_alive(inner)
        own = "{}:{}".format(*inner.getsockname())
        RELAYED[own] = connection.getpeername()
        directions = [asyncio.create_task(_copy(*ends)) for ends in ((connection, inner), (inner, connection))]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(directions, timeout=LINGER_SECONDS)
        finally:
            del RELAYED[own]
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)


async def _copy(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, RELAY_BYTES):
        await loop.sock_sendall(target, data)
    target.shutdown(socket.SHUT_WR)
