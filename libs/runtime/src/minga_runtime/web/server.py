"""The HTTP server: uvicorn on a socket of ours, inside a block, with the process's own signal handling."""

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import AsyncIterator, Container, Iterator
from datetime import timedelta
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from minga_core.errors import SettingsError
from minga_runtime.accepting import Listener
from minga_runtime.both import OpenConnections
from minga_runtime.descriptors import max_connections
from minga_runtime.process import StopSignal
from minga_runtime.quotas import Quota
from minga_runtime.sockets import listen_tcp

HANDSHAKE_SECONDS = 10.0
"""A client that has not done its part of the TLS handshake by then is gone."""
MAX_HANDSHAKES = 1024
"""Under way at once, half of them of one host. In a process with few descriptors an eighth of its connections, so that
both together leave some descriptors for the store."""
GOODBYE_SECONDS = 0.5
"""A client that does not take note of the end of its connection is waited for no longer: one that is idle reads
nothing, and would keep a locator that stops for its whole grace."""
DATE_SECONDS = 1.0
"""How often the header Date is made anew."""
KEEP_ALIVE_SECONDS = 60
"""Idle connections of clients are closed after this many seconds."""


async def bind(listen: str) -> socket.socket:
    """A socket that listens on host:port; the caller closes it.

    Raises AlreadyRunningError when another process has it, SettingsError when binding fails for any other reason.
    """
    try:
        return await asyncio.to_thread(listen_tcp, listen)
    except SettingsError as error:
        raise SettingsError(f"MINGA_LISTEN: {error}") from error


@contextlib.asynccontextmanager
async def http_server(
    app: ASGIApp,
    listening: socket.socket,
    stop_grace: timedelta,
    stop: StopSignal,
    http: type[HttpToolsProtocol],
    tls: ssl.SSLContext | None = None,
    plain: OpenConnections | None = None,
) -> AsyncIterator[None]:
    """Serve the app inside the block, and drain it at the end, for `stop_grace` at most. A server that ends by itself
    sets `stop`.

    tls: with it it is HTTPS, and the app learns the certificate of each client that has one. plain: with it HTTP too,
    whose connections it counts."""
    server = _Server(_uvicorn_config(app, stop_grace, http), tls, plain)

    def ended(task: asyncio.Task[None]) -> None:
        server.started_or_ended.set()
        stop.set()

    serving = asyncio.create_task(server.serve([listening]), name="http_server")
    serving.add_done_callback(ended)
    try:
        await server.started_or_ended.wait()
        yield
    finally:
        server.end()
        await serving


def behind_proxies(app: ASGIApp, proxies: str) -> tuple[ASGIApp, Container[str]]:
    """The app, which sees the client that one of those proxies names; and what says which addresses are theirs.

    proxies: addresses and networks, with commas between; empty for none.
    """
    if not proxies:
        return app, ()
    # uvicorn's types of ASGI are not Starlette's.
    proxied = ProxyHeadersMiddleware(cast(Any, app), proxies)
    return cast(ASGIApp, proxied), cast("Container[str]", proxied.trusted_hosts)


class _Server(uvicorn.Server):
    """uvicorn that signals when it serves, and leaves the process's signals to `run_process`."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None, plain: OpenConnections | None) -> None:
        super().__init__(config)
        self._tls = tls
        self._plain = plain
        self.started_or_ended = asyncio.Event()
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Have `serve` drain the server and return."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        # uvicorn's looks ten times a second whether to end, which was a third of the wake-ups of a peer in a swarm.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_SECONDS):
                    await self._ending.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            await self._serve_tls(sockets or [], self._tls)
        self.started_or_ended.set()

    async def _serve_tls(self, sockets: list[socket.socket], context: ssl.SSLContext) -> None:
        """As uvicorn does it, with limits on handshakes and on the end of connections: asyncio's are a minute and half
        of one."""

        def connection() -> asyncio.Protocol:
            made: asyncio.Protocol = cast("type[HttpToolsProtocol]", self.config.http_protocol_class)(
                self.config, self.server_state, self.lifespan.state
            )
            return made

        loop = asyncio.get_running_loop()
        secured: dict[str, Any] = {
            "ssl": context,
            "ssl_handshake_timeout": HANDSHAKE_SECONDS,
            "ssl_shutdown_timeout": GOODBYE_SECONDS,
        }

        async def serve(accepted: socket.socket, tls: bool) -> None:
            await loop.connect_accepted_socket(connection, accepted, **(secured if tls else {}))

        for listening in sockets:
            listening.listen(self.config.backlog)
            quota = Quota("handshakes", min(MAX_HANDSHAKES, max_connections() // 8))
            self.servers.append(cast("asyncio.Server", Listener(listening, serve, quota, plain=self._plain)))


def _uvicorn_config(app: ASGIApp, stop_grace: timedelta, http: type[HttpToolsProtocol]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=http,
        loop="none",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, math.ceil(stop_grace.total_seconds())),
    )
