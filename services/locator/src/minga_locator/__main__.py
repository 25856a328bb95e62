"""The locator process, wired by hand from top to bottom."""

import asyncio
import contextlib
import errno
import gc
import logging
import math
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from minga_core.errors import AlreadyRunningError, SettingsError
from minga_directory import connect_reader
from minga_locator.app import VERSION, make_app
from minga_locator.connections import limited
from minga_locator.limits import Limits
from minga_locator.settings import LocatorSettings
from minga_runtime.descriptors import max_connections
from minga_runtime.flags import parse_flags
from minga_runtime.listening import bound_address, split_listen
from minga_runtime.logs import configure_logging, log_event
from minga_runtime.process import StopSignal, exit_code_for, print_error, run_process, write_port_file
from minga_runtime.settings import effective_settings, load_settings
from minga_runtime.tracing import export_traces

log = logging.getLogger("minga_locator")

KEEP_ALIVE_SECONDS = 60
"""Idle connections of clients are kept this long."""


def main() -> int:
    """Runs a locator until SIGTERM or Ctrl-C; the exit code (see `minga_runtime.process.run_process`)."""
    flags = parse_flags(LocatorSettings, "minga-locator", "Answers who has which file, over REST.")
    try:
        settings = load_settings(LocatorSettings, **flags)
        configure_logging(settings.log_level, settings.log_format)
        # Its start and end are told by our own events.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        # What was imported stays: looking it all through for garbage would hold requests up for some 20 ms each time.
        gc.freeze()
        with export_traces(settings.traces, "minga-locator", VERSION):
            return run_process(lambda stop: serve(settings, stop))
    except SettingsError as error:
        print_error(error)
        return exit_code_for(error)


async def serve(settings: LocatorSettings, stop: StopSignal) -> None:
    """Runs a locator until `stop`. A store that is away is no reason not to start: requests are answered 503.

    Raises MingaError when it cannot start. On the way out, requests under way get their grace.
    """
    async with contextlib.aclosing(connect_reader(settings.redis_url, doubtful=True)) as reader:
        await reader.check_access()
        with await bind(settings.listen) as listening:
            address = bound_address(settings.listen, listening.getsockname()[1])
            limits = Limits(max_requests=settings.max_requests)
            app = make_app(reader, limits=limits)
            async with http_server(app, listening, settings, stop, limited(max_connections())):
                write_port_file(settings.port_file, address)
                facts = effective_settings(settings) | {"address": address, "pid": os.getpid(), "version": VERSION}
                log_event(log, logging.INFO, "locator_started", **facts)
                await stop.wait()
                log_event(log, logging.INFO, "locator_stopping")


class _Server(uvicorn.Server):
    """uvicorn that tells when it serves, and leaves signals to `run_process`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = asyncio.Event()
        """It serves, or has ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.settled.set()


@contextlib.asynccontextmanager
async def http_server(
    app: FastAPI, listening: socket.socket, settings: LocatorSettings, stop: StopSignal, http: type[HttpToolsProtocol]
) -> AsyncIterator[None]:
    """Serves the app inside the block, and drains it at the end. A server that ends by itself sets `stop`."""
    server = _Server(_uvicorn_config(app, settings, http))

    def ended(task: asyncio.Task[None]) -> None:
        server.settled.set()
        stop.set()

    serving = asyncio.create_task(server.serve([listening]), name="http_server")
    serving.add_done_callback(ended)
    try:
        await server.settled.wait()
        yield
    finally:
        server.should_exit = True
        await serving


def _uvicorn_config(app: FastAPI, settings: LocatorSettings, http: type[HttpToolsProtocol]) -> uvicorn.Config:
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


async def bind(listen: str) -> socket.socket:
    """A socket bound to host:port; the caller closes it.

    Raises AlreadyRunningError when another process has it, SettingsError when it cannot be had for any other reason.
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


if __name__ == "__main__":
    sys.exit(main())
