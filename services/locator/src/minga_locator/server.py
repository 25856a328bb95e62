"""The HTTP server: uvicorn on a socket of ours, inside a block, with the process's own signal handling."""

import asyncio
import contextlib
import errno
import math
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from minga_core.errors import AlreadyRunningError, SettingsError
from minga_locator.settings import LocatorSettings
from minga_runtime.listening import split_listen
from minga_runtime.process import StopSignal

KEEP_ALIVE_SECONDS = 60
"""Idle connections of clients are closed after this many seconds."""


async def bind(listen: str) -> socket.socket:
    """A socket bound to host:port; the caller closes it.

    Raises AlreadyRunningError when another process has it, SettingsError when binding fails for any other reason.
    """
    host, port = split_listen(listen)
    made: socket.socket | None = None
    try:
        loop = asyncio.get_running_loop()
        family, kind, proto, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
        made = socket.socket(family, kind, proto)
        # A restart must not wait for connections of the process before.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        if made is not None:
            made.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunningError(f"cannot listen on {listen}: another process does") from error
        raise SettingsError(f"MINGA_LISTEN: cannot listen on {listen}: {error.strerror}") from error
    return made


@contextlib.asynccontextmanager
async def http_server(
    app: ASGIApp, listening: socket.socket, settings: LocatorSettings, stop: StopSignal, http: type[HttpToolsProtocol]
) -> AsyncIterator[None]:
    """Serve the app inside the block, and drain it at the end. A server that ends by itself sets `stop`."""
    server = _Server(_uvicorn_config(app, settings, http))

    def ended(task: asyncio.Task[None]) -> None:
        server.started_or_ended.set()
        stop.set()

    serving = asyncio.create_task(server.serve([listening]), name="http_server")
    serving.add_done_callback(ended)
    try:
        await server.started_or_ended.wait()
        yield
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """uvicorn that signals when it serves, and leaves the process's signals to `run_process`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.started_or_ended = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.started_or_ended.set()


def _uvicorn_config(app: ASGIApp, settings: LocatorSettings, http: type[HttpToolsProtocol]) -> uvicorn.Config:
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
        timeout_graceful_shutdown=max(1, math.ceil(settings.stop_grace.total_seconds())),
    )
