"""TCP connections, listening ports and Unix sockets without gRPC; `channels` has those of gRPC."""

import asyncio
import errno
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from minga_core.errors import AlreadyRunningError, SettingsError
from minga_runtime.listening import split_listen

CONNECT_TIMEOUT_SECONDS = 2.0
"""As for gRPC. Machines of one network answer quickly or not at all."""
BACKLOG = 256
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
KEEPALIVE_SECONDS = 20
KEEPALIVE_PROBES = 3

P = TypeVar("P", bound=asyncio.BaseProtocol)


def listen_tcp(listen: str) -> socket.socket:
    """A non-blocking listening socket on `host:port` (port 0 for any free one). The caller closes it.

    `0.0.0.0` and `[::]` both accept IPv4 and IPv6, as they do with gRPC, where the system has IPv6.
    Raises AlreadyRunningError when the port is in use, SettingsError when it cannot be bound for any other reason.
    Resolves the host, which blocks: not for the event loop's thread.
    """
    host, port = split_listen(listen)
    try:
        both = host in _EVERY_ADDRESS and socket.has_dualstack_ipv6()
        family, kind, proto, _, address = socket.getaddrinfo(
            "::" if both else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise SettingsError(f"cannot listen on {listen}: {error.strerror}") from error
    try:
        # A restart must not wait for connections of the process before.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if both:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunningError(
                f"cannot listen on {listen}: another process does", hint="choose another port, 0 for any free one"
            ) from error
        raise SettingsError(f"cannot listen on {listen}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


async def connect_tcp(
    make_protocol: Callable[[], P], address: str, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.Transport, P]:
    """Connect to `host:port`. Raises OSError (TimeoutError and ssl.SSLError included) when that fails or takes too
    long."""
    host, port = split_listen(address)
    async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
        transport, protocol = await asyncio.get_running_loop().create_connection(make_protocol, host, port, ssl=tls)
    keep_alive(transport.get_extra_info("socket"))
    return transport, protocol


def keep_alive(connection: socket.socket) -> None:
    """Turn on keepalive probes, which detect a machine that is gone, and turn off Nagle's algorithm."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_SECONDS // 4),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        # Linux has all three; elsewhere the kernel's defaults hold.
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


@contextmanager
def private_socket(path: Path) -> Iterator[Path]:
    """Where to bind a Unix socket: after the block it is at `path`, and this user alone can connect to it. One that is
    there is replaced. Blocking. Raises OSError."""
    # In a folder that nobody else can open until the socket has its mode: who connects before is served later.
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        made = Path(folder) / "s"
        yield made
        made.chmod(0o600)
        made.replace(path)
