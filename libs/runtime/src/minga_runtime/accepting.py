"""Accepts TCP connections: so many at once, half of them from one host, before anything that they send is read."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from minga_core.errors import BusyError
from minga_runtime.both import OpenConnections, begins_with_tls
from minga_runtime.logs import log_event
from minga_runtime.quotas import Quota
from minga_runtime.sockets import keep_alive
from minga_runtime.trust.origin import Origin

log = logging.getLogger(__name__)


class Listener:
    """Accepts connections on a listening socket, which it owns; closed as asyncio's servers are.

    serve: gets each connection, non-blocking, and whether it is to speak TLS; it closes the connection or hands it on.
    quota: places that connections hold until `serve` has returned; without one a connection is closed at once.
    plain: also takes connections without TLS, and counts them. refused: called for connections above the quota.
    """

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[socket.socket, bool], Awaitable[None]],
        quota: Quota,
        *,
        plain: OpenConnections | None = None,
        refused: Callable[[BusyError, Origin], None] | None = None,
    ) -> None:
        self._listener = listener
        self._serve = serve
        self._quota = quota
        self._plain = plain
        self._refused = refused
        self._connections: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept(), name="accept")
        self._accepting.add_done_callback(lambda _: listener.close())

    def close(self) -> None:
        """Accept no more."""
        self._accepting.cancel()

    async def wait_closed(self, grace_seconds: float = 0.0) -> None:
        """End what `serve` has not ended by itself in that time. After `close`."""
        await asyncio.gather(self._accepting, return_exceptions=True)
        if self._connections and grace_seconds:
            await asyncio.wait(self._connections, timeout=grace_seconds)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, name = await loop.sock_accept(self._listener)
            except OSError as error:
                # No descriptors left, or a client that closed while it waited: neither ends the service.
                log_event(log, logging.WARNING, "accept_failed", error=error)
                await asyncio.sleep(0.1)
                continue
            self._accepted(connection, Origin.of_socket(name))
            # A connection that waits already is accepted without a pause, and a flood of them would stop all else.
            await asyncio.sleep(0)

    def _accepted(self, connection: socket.socket, origin: Origin) -> None:
        try:
            self._quota.acquire(origin.host)
        except BusyError as error:
            connection.close()
            if self._refused is not None:
                self._refused(error, origin)
            return

        def ended(task: asyncio.Task[None]) -> None:
            self._connections.discard(task)
            self._quota.release(origin.host)

        task = asyncio.create_task(self._connected(connection, origin), name="connection")
        self._connections.add(task)
        task.add_done_callback(ended)

    async def _connected(self, connection: socket.socket, origin: Origin) -> None:
        tls = True
        try:
            connection.setblocking(False)
            keep_alive(connection)
            if self._plain is not None and not (tls := await begins_with_tls(connection)):
                self._plain.add(origin)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                return
            raise
        with suppress(OSError):
            await self._serve(connection, tls)
