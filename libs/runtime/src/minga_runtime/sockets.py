"""The one place where plain TCP connections are made and ports for them bound; `channels` is the same for gRPC. TLS and
credentials will live in these two."""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TypeVar

from minga_core.errors import AlreadyRunningError, SettingsError
from minga_runtime.listening import split_listen

CONNECT_TIMEOUT_SECONDS = 2.0
"""As for gRPC: machines of one network answer at once or not at all."""
BACKLOG = 256
KEEPALIVE_SECONDS = 20
KEEPALIVE_PROBES = 3

P = TypeVar("P", bound=asyncio.BaseProtocol)


def listen_tcp(listen: str) -> socket.socket:
    """A listening socket on `host:port` (port 0 for any free one), non-blocking; the caller closes it.

    Raises AlreadyRunningError when the port is taken, SettingsError when it cannot be bound for any other reason.
    Looks the host up: not for the event loop's thread.
    """
    host, port = split_listen(listen)
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise SettingsError(f"cannot listen on {listen}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunningError(
                f"cannot listen on {listen}: another process does", hint="choose another port"
            ) from error
        raise SettingsError(f"cannot listen on {listen}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


async def connect_tcp(make_protocol: Callable[[], P], address: str) -> tuple[asyncio.Transport, P]:
    """A connection to `host:port`. Raises OSError (a TimeoutError among them) when there is none within the limit."""
    host, port = split_listen(address)
    async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
        transport, protocol = await asyncio.get_running_loop().create_connection(make_protocol, host, port)
    keep_alive(transport.get_extra_info("socket"))
    return transport, protocol


def keep_alive(connection: socket.socket) -> None:
    """Has the kernel notice a machine that is gone without a word, and send small messages at once."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_SECONDS // 4),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        # Linux has all three; elsewhere the kernel's own figures hold.
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
