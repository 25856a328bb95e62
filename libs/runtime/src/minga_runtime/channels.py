"""gRPC channels and server ports. Every one is made here, with TLS or without."""

import asyncio
import errno
import json
import socket
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from minga_core.errors import AlreadyRunningError, MingaError, SettingsError
from minga_runtime.descriptors import max_connections
from minga_runtime.grpc_tracing import traced_channel
from minga_runtime.listening import bound_address, split_listen
from minga_runtime.sockets import private_socket
from minga_runtime.trust.credentials import Credentials, Loaded

__all__ = [
    "CLIENT_OPTIONS",
    "MAX_MESSAGE_BYTES",
    "bind",
    "bound_address",
    "make_balanced_channel",
    "make_channel",
    "server_options",
    "split_listen",
    "unix_path",
    "wait_connected",
]

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest message that is accepted: gRPC's default, above 1 MiB of payload and 1,000 rows of the longest names."""
KEEPALIVE_MILLIS = 20_000
KEEPALIVE_TIMEOUT_MILLIS = 5_000
SERVER_KEEPALIVE_MILLIS = 10_000
"""Of a server: above two heartbeats, so that a peer that lives is not pinged, and below a lease of 15 s."""
VANISHED = timedelta(seconds=5)
"""Within this a call over a balanced channel fails when its server's machine is gone and nothing answers any more: a
third of a lease of 15 s, so that the heartbeat after it still comes in time, at another server."""
MIN_PING_INTERVAL_MILLIS = 100
"""Below every interval of pings of our clients, so that our servers never count them as abuse."""
CONNECT_TIMEOUT_MILLIS = 2_000
MAX_RECONNECT_BACKOFF_MILLIS = 2_000
"""A peer that restarts is reached again within this; gRPC's default of two minutes is meant for the internet."""
NO_RECONNECT_MILLIS = 3_600_000
"""Of a channel that is of no more use once it could not connect. The first pause is that of an attempt, which it may
not exceed without making the attempt longer."""
HANDSHAKE_MILLIS = 10_000
MAX_IDLE_MILLIS = 600_000

_UNIX = "unix:"
_COMMON: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.max_pings_without_data", 0),
]


def _keepalive(time_millis: int, timeout_millis: int) -> list[tuple[str, int]]:
    """A connection on which nothing came for so long while a call was under way is tried with a ping, and closed when
    no answer comes. Without a limit of its own each ping would have a minute (seen with gRPC 1.85)."""
    return [
        ("grpc.keepalive_time_ms", time_millis),
        ("grpc.keepalive_timeout_ms", timeout_millis),
        ("grpc.http2.ping_timeout_ms", timeout_millis),
    ]


CLIENT_OPTIONS = [
    *_COMMON,
    *_keepalive(KEEPALIVE_MILLIS, KEEPALIVE_TIMEOUT_MILLIS),
    ("grpc.use_local_subchannel_pool", 1),
    # Machines of one network are reached directly, whatever proxy variables say.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name this is gRPC's limit on one attempt to connect.
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MILLIS),
    ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_BACKOFF_MILLIS),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.enable_retries", 0),
]
_BALANCED: dict[str, int | str] = {
    "grpc.service_config": json.dumps(
        {
            # One connection to every address of the name, and calls to all of them in turn. The name is resolved again
            # whenever a connection ends, so servers limit the age of their connections.
            "loadBalancingConfig": [{"round_robin": {}}],
            # A server that has just begun to stop answers CANCELLED to calls that no handler has seen yet; another
            # server can take them.
            "methodConfig": [
                {
                    "name": [{}],
                    "retryPolicy": {
                        "maxAttempts": 3,
                        "initialBackoff": "0.02s",
                        "maxBackoff": "0.1s",
                        "backoffMultiplier": 2,
                        "retryableStatusCodes": ["CANCELLED"],
                    },
                }
            ],
        }
    ),
    # A call that never reached a server, because its connection was being closed in order, is sent again over another.
    "grpc.enable_retries": 1,
}


def server_options() -> list[tuple[str, int]]:
    """gRPC options of every server."""
    return [
        *_COMMON,
        *_keepalive(SERVER_KEEPALIVE_MILLIS, KEEPALIVE_TIMEOUT_MILLIS),
        # Otherwise two processes could share a port and each get a part of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MILLIS),
        ("grpc.max_concurrent_streams", 1_000),
        # Closes connections that do not speak HTTP/2; gRPC's default is two minutes.
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MILLIS),
        # Closes connections without calls; clients connect again when they have one.
        ("grpc.max_connection_idle_ms", MAX_IDLE_MILLIS),
        # Connections beyond this are closed at once.
        ("grpc.max_allowed_incoming_connections", max_connections()),
    ]


def make_channel(
    target: str, loaded: Loaded | None = None, server_name: str = "", *, reconnects: bool = True
) -> grpc.aio.Channel:
    """A channel to `host:port` or `unix:/path`, which connects when it is first used. The caller closes it.

    No two channels share a connection, so transfers from different sources never share a TCP window.
    loaded: with it TLS is spoken, by these credentials for as long as the channel is. server_name: the DNS name that
    the server's certificate must have; the host's unless given. reconnects: without, the caller closes it once it could
    not connect. gRPC dials on and on otherwise, whether there are calls or not, and after `close` until the garbage
    collector has found the calls.
    """
    scheme = "" if target.startswith(_UNIX) else "dns:///"
    own: dict[str, Any] = {"grpc.ssl_target_name_override": server_name} if server_name else {}
    if not reconnects:
        own["grpc.initial_reconnect_backoff_ms"] = CONNECT_TIMEOUT_MILLIS
        own["grpc.max_reconnect_backoff_ms"] = NO_RECONNECT_MILLIS
    options = [*(option for option in CLIENT_OPTIONS if option[0] not in own), *own.items()]
    return _channel(scheme + target, target, options, loaded)


def make_balanced_channel(
    target: str, loaded: Loaded | None = None, *, name_server: str = "", vanished: timedelta = VANISHED
) -> grpc.aio.Channel:
    """A channel that sends calls to every server behind `host:port` in turn. Only for calls that are safe to repeat.

    New servers are found when a connection ends; servers that stop get no more calls. The caller closes it.
    loaded: as for `make_channel`. name_server: `host:port` of the DNS server to ask; the system's unless given.
    vanished: see VANISHED.
    """
    millis = int(vanished / timedelta(milliseconds=1))
    own = _BALANCED | dict(_keepalive(millis * 3 // 5, millis * 2 // 5))
    options = [*(option for option in CLIENT_OPTIONS if option[0] not in own), *own.items()]
    return _channel(f"dns://{name_server}/{target}", target, options, loaded)


def _channel(url: str, target: str, options: Sequence[tuple[str, Any]], loaded: Loaded | None) -> grpc.aio.Channel:
    if loaded is None:
        return traced_channel(grpc.aio.insecure_channel(url, options=options), target)
    tls = grpc.ssl_channel_credentials(loaded.ca, loaded.key, loaded.certificate)
    return traced_channel(grpc.aio.secure_channel(url, tls, options=options), target)


def bind(server: grpc.aio.Server, listen: str, credentials: Credentials | None = None) -> int:
    """Bind a server to `host:port` (port 0 for any free one) or `unix:/path`. Returns the bound port.

    credentials: with them a port speaks TLS and demands a certificate; a Unix socket does not, which has an owner.
    A Unix socket gets mode 0600; a stale one, which no process serves, is replaced. gRPC does not remove it at the
    end. Raises AlreadyRunningError when another process has the address, SettingsError when it cannot be bound for any
    other reason.
    """
    if (path := unix_path(listen)) is not None:
        return _bind_unix(server, path)
    try:
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, _server_credentials(credentials))
    except RuntimeError as error:
        raise _refusal(listen) from error
    if port == 0:
        raise _refusal(listen)
    return port


def _server_credentials(credentials: Credentials) -> grpc.ServerCredentials:
    """gRPC asks for those of the time at each connection, from threads of its own, one at a time.

    It is given others when they have changed, and then alone: it frees what it had before, which a handshake in another
    thread may be using, and two dozen connections at once that are each given a new object end the process
    (grpcio 1.85)."""
    given = credentials.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if (loaded := credentials.current()) is given:
            return None
        given = loaded
        return _configuration(loaded)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        changed,  # type: ignore[arg-type]  # None: they are the same
        require_client_authentication=True,
    )


def _configuration(loaded: Loaded) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.certificate)], loaded.ca)


def _bind_unix(server: grpc.aio.Server, path: Path) -> int:
    if _answers(str(path)):
        raise AlreadyRunningError(f"another process serves {path} already")
    try:
        with private_socket(path) as made:
            port = server.add_insecure_port(f"{_UNIX}{made}")
    except (RuntimeError, OSError) as error:
        raise SettingsError(
            f"cannot listen on {path}: the folder is missing or not writable, or the path is too long"
        ) from error
    return port


def unix_path(listen: str) -> Path | None:
    """The path of `unix:/path`; None for a port."""
    return Path(listen.removeprefix(_UNIX)) if listen.startswith(_UNIX) else None


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _refusal(listen: str) -> MingaError:
    """Find out with a plain socket why `listen` could not be bound, since gRPC does not say."""
    try:
        host, port = split_listen(listen)
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return AlreadyRunningError(
                f"cannot listen on {listen}: another process does", hint="choose another port, 0 for any free one"
            )
        return SettingsError(f"cannot listen on {listen}: {error.strerror}")
    except MingaError as error:
        return error
    return AlreadyRunningError(f"cannot listen on {listen}: another process did a moment ago", hint="try again")


async def wait_connected(channel: grpc.aio.Channel, timeout_seconds: float) -> bool:
    """Wait until the channel is connected. Returns False when it is not within the limit."""
    try:
        async with asyncio.timeout(timeout_seconds):
            await channel.channel_ready()
    except TimeoutError:
        return False
    return True
