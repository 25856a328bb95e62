"""The gateway's two doors: a TCP port, and a Unix socket for the owner of this peer."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from starlette.types import ASGIApp

from minga_core.errors import AlreadyRunningError, StorageError
from minga_runtime.both import OpenConnections
from minga_runtime.process import StopSignal
from minga_runtime.sockets import listen_tcp, private_socket
from minga_runtime.web.connections import connection_class
from minga_runtime.web.server import http_server

MAX_CONNECTIONS = 1024
WRITE_SECONDS = 60.0
"""A client that has not read a block after this long is gone, or as slow as 4 KiB/s."""
DEFAULT = "127.0.0.1:50080"


@asynccontextmanager
async def door(
    app: ASGIApp,
    listener: socket.socket,
    stop_grace: timedelta,
    tls: ssl.SSLContext | None = None,
    plain: OpenConnections | None = None,
) -> AsyncIterator[None]:
    """Serve the app on a listening socket inside the block; closes it. See `http_server`."""
    http = connection_class(MAX_CONNECTIONS, write_seconds=WRITE_SECONDS)
    with listener:
        async with http_server(app, listener, stop_grace, StopSignal(), http, tls, plain):
            yield


def listen_gateway(setting: str) -> socket.socket | None:
    """The TCP door's socket; None when it is `off`. Blocking. Raises what `listen_tcp` raises."""
    if setting == "off":
        return None
    if setting != "auto":
        return listen_tcp(setting)
    try:
        return listen_tcp(DEFAULT)
    except AlreadyRunningError:
        # Another peer on this machine has it.
        return listen_tcp(f"{DEFAULT.rpartition(':')[0]}:0")


def listen_unix(path: Path) -> socket.socket:
    """A socket at `path` that this user alone can connect to; one of an earlier daemon is replaced. Blocking. Raises
    StorageError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with private_socket(path) as made:
            listener.bind(str(made))
            listener.listen()
    except OSError as error:
        listener.close()
        raise StorageError(f"cannot make the gateway's socket {path}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener
