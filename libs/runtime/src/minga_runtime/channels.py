"""The one place where gRPC channels and server ports are made, so that TLS and credentials will have one home."""

import asyncio

import grpc
import grpc.aio

from minga_core.errors import AlreadyRunningError, InvalidArgumentError

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest message taken by anybody: gRPC's own default, above 1 MiB of payload and 1,000 rows of the longest names."""
KEEPALIVE_MILLIS = 20_000
MAX_RECONNECT_BACKOFF_MILLIS = 2_000
"""A peer that restarts is reached again soon; gRPC's default of two minutes is made for the internet."""

_COMMON: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MILLIS),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
]
CLIENT_OPTIONS = [
    *_COMMON,
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_BACKOFF_MILLIS),
    ("grpc.enable_retries", 0),
]
SERVER_OPTIONS = [
    *_COMMON,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_concurrent_streams", 1_000),
]


def make_channel(target: str) -> grpc.aio.Channel:
    """A channel to `host:port` or `unix:/path`. Connects when first used; the caller closes it.

    Each channel has connections of its own: two transfers from different sources never share a TCP window.
    """
    scheme = "" if target.startswith("unix:") else "dns:///"
    return grpc.aio.insecure_channel(scheme + target, options=CLIENT_OPTIONS)


def bind(server: grpc.aio.Server, listen: str) -> int:
    """Binds a server to `host:port` (port 0 for any free one) or `unix:/path`; the bound port.

    Raises AlreadyRunningError when the port is taken or may not be bound.
    """
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise AlreadyRunningError(
            f"cannot listen on {listen}: it is taken, or not an address of this machine"
        ) from error
    if port == 0:
        raise AlreadyRunningError(f"cannot listen on {listen}: it is taken, or not an address of this machine")
    return port


async def wait_connected(channel: grpc.aio.Channel, timeout_seconds: float) -> bool:
    """Whether the channel connects within the limit."""
    try:
        async with asyncio.timeout(timeout_seconds):
            await channel.channel_ready()
    except TimeoutError:
        return False
    return True


def split_listen(listen: str) -> tuple[str, int]:
    """Host and port of `host:port`; port 0 is allowed. Raises InvalidArgumentError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgumentError(f"{listen[:80]!r} is not an address to listen on: host:port is wanted")
    return host.strip("[]"), int(port)
