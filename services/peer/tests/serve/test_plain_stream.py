"""A connection without TLS from the server's side, against a client on a socket pair."""

import asyncio
import math
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minga_peer.serve import streams
from minga_peer.serve.streams import MAX_UNREAD_BYTES, PlainStream


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's socket, which does not block, and the client's, which does."""
    server, client = socket.socketpair()
    server.setblocking(False)
    client.settimeout(10)
    yield server, client
    server.close()
    client.close()


async def test_what_comes_while_a_chunk_is_sent_is_the_next_request(
    ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    """The socket blocks for the sending thread, which waits for the client, and for nobody else."""
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    stream, client = PlainStream(ends[0]), ends[1]
    received = bytearray()

    def receive() -> None:
        client.sendall(b"next")
        while len(received) < 4 + len(data):
            received.extend(client.recv(65536))

    with (tmp_path / "file").open("rb") as file:
        sending = asyncio.create_task(asyncio.to_thread(stream.send_range, b"head", file.fileno(), 0, len(data)))
        reading = threading.Thread(target=receive)
        reading.start()
        async with asyncio.timeout(20):
            assert await stream.recv(100) == b"next"
            await sending
        await asyncio.to_thread(reading.join)
    assert received == b"head" + data
    assert not ends[0].getblocking()
    stream.close()


async def test_a_client_that_reads_nothing_is_cut_off(
    ends: tuple[socket.socket, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chunk would hold a thread for as long as it likes."""
    monkeypatch.setattr(streams, "STALL_SECONDS", 0.3)
    (tmp_path / "file").write_bytes(bytes(8_000_000))
    stream = PlainStream(ends[0])
    with (tmp_path / "file").open("rb") as file, pytest.raises(TimeoutError):
        await asyncio.to_thread(stream.send_range, b"head", file.fileno(), 0, 8_000_000)
    stream.close()


async def test_a_wait_ends_in_time_and_loses_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    """A later limit after an earlier one, and an earlier one after a later; what comes afterwards is there."""
    stream, loop = PlainStream(ends[0]), asyncio.get_running_loop()
    for seconds in (0.05, 0.1, 0.02):
        with pytest.raises(TimeoutError):
            await stream.recv(10, loop.time() + seconds)
    waiting = asyncio.create_task(stream.recv(10, loop.time() + 20))
    await asyncio.sleep(0)
    ends[1].sendall(b"request")
    assert await waiting == b"request"
    stream.close()


async def test_a_client_that_has_closed_is_noticed_whatever_is_waited_for(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """1. Behind a request that nobody has read. 2. Also where it had closed before."""
    stream, loop = PlainStream(ends[0]), asyncio.get_running_loop()
    closed = loop.create_future()
    with stream.calling(lambda: closed.set_result(None)):
        ends[1].sendall(b"request")
        ends[1].close()
        async with asyncio.timeout(20):
            await closed
    again: list[bool] = []
    with stream.calling(lambda: again.append(True)):
        assert again == [True]
    assert await stream.recv(100) == b"request"
    assert await stream.recv(100, math.inf) == b""
    stream.close()


async def test_what_nobody_reads_is_bounded(ends: tuple[socket.socket, socket.socket]) -> None:
    """The rest waits at the client; all of it comes in the end."""
    stream, client = PlainStream(ends[0]), ends[1]
    data = os.urandom(20 * MAX_UNREAD_BYTES)
    writing = threading.Thread(target=client.sendall, args=(data,))
    writing.start()
    received = bytearray()
    async with asyncio.timeout(20):
        while len(received) < len(data):
            received += (some := await stream.recv(1 << 30))
            assert len(some) <= 2 * MAX_UNREAD_BYTES
    await asyncio.to_thread(writing.join)
    assert received == data
    stream.close()
