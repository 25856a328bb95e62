"""A connection with TLS from the server's side, against a client of the standard library on a socket pair."""

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from minga_core.errors import ContentChangedError
from minga_peer.serve import streams
from minga_peer.serve.streams import TlsStream
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import Member, Role
from minga_runtime.trust.tls_files import TlsFiles
from tests.support.authority import Authority


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    folder = Authority("lab").issue(tmp_path / "own", "peer", "node-1")
    return Credentials(TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt"), frozenset({Role.PEER}))


@pytest.fixture
async def ends() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """The server's socket, which does not block, and the client's, which does."""
    server, client = socket.socketpair()
    server.setblocking(False)
    client.settimeout(10)
    yield server, client
    server.close()
    client.close()


async def connected(
    credentials: Credentials, ends: tuple[socket.socket, socket.socket]
) -> tuple[TlsStream, ssl.SSLSocket]:
    stream = TlsStream(ends[0], credentials.current().server)
    client, _ = await asyncio.gather(
        asyncio.to_thread(credentials.current().peers.wrap_socket, ends[1]), stream.handshake()
    )
    assert stream.member() == Member("lab", Role.PEER, "node-1")
    return stream, client


async def test_what_is_sent_arrives(
    credentials: Credentials, ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    """A part of a file behind its head, larger than what the socket holds, from a thread; and then the other way. A
    cancelled read loses nothing."""
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    stream, client = await connected(credentials, ends)
    received = bytearray()

    def receive() -> None:
        while len(received) < 4 + 2_500_000:
            received.extend(client.recv(65536))

    reading = threading.Thread(target=receive)
    reading.start()
    with (tmp_path / "file").open("rb") as file:
        await asyncio.to_thread(stream.send_range, b"head", file.fileno(), 400_000, 2_500_000)
    await asyncio.to_thread(reading.join)
    assert received == b"head" + data[400_000:2_900_000]

    waiting = asyncio.create_task(stream.recv(100))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    client.sendall(b"request")
    assert await stream.recv(3) + await stream.recv(100) == b"request"
    client.close()
    assert await stream.recv(100) == b""


async def test_a_file_that_became_shorter_is_no_chunk(
    credentials: Credentials, ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    """As without TLS."""
    (tmp_path / "file").write_bytes(b"short")
    stream, client = await connected(credentials, ends)
    with (tmp_path / "file").open("rb") as file, pytest.raises(ContentChangedError):
        await asyncio.to_thread(stream.send_range, b"", file.fileno(), 0, 10)
    client.close()


@pytest.mark.parametrize("says", [lambda client: None, lambda client: client.send(b"\x16\x03\x01\x02")])
async def test_a_handshake_has_a_limit(
    credentials: Credentials,
    ends: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    says: Callable[[socket.socket], object],
) -> None:
    """A client that says nothing, or stops in the middle of a record, does not keep its connection."""
    monkeypatch.setattr(streams, "HANDSHAKE_SECONDS", 0.05)
    says(ends[1])
    with pytest.raises(TimeoutError):
        await TlsStream(ends[0], credentials.current().server).handshake()


async def test_a_client_without_tls_is_refused(
    credentials: Credentials, ends: tuple[socket.socket, socket.socket]
) -> None:
    """At once, not when its time is over."""
    ends[1].send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        await TlsStream(ends[0], credentials.current().server).handshake()
