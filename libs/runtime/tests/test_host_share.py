"""Connections of a gRPC server are not all of one host."""

import asyncio
import socket
import sys
from contextlib import ExitStack
from datetime import timedelta

import pytest

from minga_runtime import channels, host_share, server
from minga_runtime.channels import make_channel

from .support import LIMIT_SECONDS, answer, server_of

MOST = 100
ANOTHER = "127.0.0.9"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's tables are read")


async def echo(request: bytes, context: object) -> bytes:
    return request


@pytest.mark.parametrize(("listen", "address"), [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1")])
async def test_a_host_with_too_many_connections_keeps_its_share_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch, listen: str, address: str
) -> None:
    """Although it takes all that there are, again and again; also where IPv4 comes by a socket for both."""
    for module in (channels, server):
        monkeypatch.setattr(module, "max_connections", lambda: MOST)
    monkeypatch.setattr(host_share, "LOOK_SECONDS", 0.1)
    made = server_of({"Answer": echo})
    (port,) = await made.start([listen], [])
    try:
        with ExitStack() as stack:
            async with make_channel(f"{address}:{port}") as channel:
                assert await answer(channel, b"a") == b"a"
                flood = [
                    stack.enter_context(socket.create_connection((address, port), 5, (ANOTHER, 0)))
                    for _ in range(MOST - 1)
                ]
                async with asyncio.timeout(LIMIT_SECONDS):
                    while len(open_ones(flood)) > MOST // 2:  # noqa: ASYNC110 - the condition belongs to the kernel
                        await asyncio.sleep(0.05)
                await asyncio.sleep(0.5)
                assert len(open_ones(flood)) == MOST // 2
                assert await answer(channel, b"b") == b"b"
            async with make_channel(f"{address}:{port}") as late:
                assert await answer(late, b"c") == b"c"
    finally:
        await made.stop(timedelta(0))


def open_ones(connections: list[socket.socket]) -> list[socket.socket]:
    """Those that the server has not closed."""
    return [each for each in connections if is_open(each)]


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        # What gRPC says first is read, and nothing is answered.
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    return False
