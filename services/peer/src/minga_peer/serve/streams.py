"""The two kinds of connection of the HTTP server: plain, where the kernel sends files, and TLS.

Both are used by one task at a time, and by a thread while that waits for it. A socket stays non-blocking.
"""

import asyncio
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from minga_core.errors import ContentChangedError
from minga_engine.parts.disk import storage_errors
from minga_runtime.trust.members import Member, expires_at, member_at

STALL_SECONDS = 20.0
"""A requester that reads no byte of its chunk for so long is cut off. Above its own limit, after which it gives up."""
MAX_SENDFILE_BYTES = 1 << 30
COPIED_BYTES = 256 * 1024
"""Read and sent at a time where the kernel cannot do both in one."""
ENCRYPTED_BYTES = 112 * 1024
"""Read, encrypted and sent at a time with TLS: seven records, below the 128 KiB from which on malloc maps new pages for
each piece. Measured: 256 KiB and 64 KiB cost a fifth more processor time (adr/0033)."""
CIPHERTEXT_BYTES = 64 * 1024
HANDSHAKE_SECONDS = 10.0

T = TypeVar("T")


class PlainStream:
    """A connection without TLS."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()

    async def recv(self, count: int) -> bytes:
        """At most so many bytes; none at the end. Raises OSError. May be cancelled: nothing is lost."""
        return await self._loop.sock_recv(self._socket, count)

    async def sendall(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""
        await self._loop.sock_sendall(self._socket, data)

    def send_range(self, head: bytes, descriptor: int, offset: int, count: int) -> None:
        """Send `head`, then `count` bytes of a file from `offset`. Blocking: for a thread.

        Raises ContentChangedError when the file ends before that, StorageError when it cannot be read, OSError when the
        connection breaks or stands still.
        """
        _send_file(self._socket, head, descriptor, offset, count)


class TlsStream:
    """A connection with TLS, whose client must show a certificate. `handshake` first; the rest is as for PlainStream.

    TLS runs in memory, between the socket's bytes and the application's: an SSLSocket costs the same (adr/0033), and
    asyncio's calls refuse it.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)
        self._buffer = memoryview(b"")

    async def handshake(self) -> None:
        """Verify the client's certificate. Raises OSError (TimeoutError and ssl.SSLError included)."""
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await self._step(self._tls.do_handshake)

    def member(self) -> Member:
        """The client. Raises UnauthenticatedError."""
        return member_at(self._tls)

    def seconds_valid(self) -> float:
        """How long the client's certificate is valid from now on."""
        return expires_at(self._tls) - time.time()

    async def recv(self, count: int) -> bytes:
        """Decrypt at most so many bytes; none at the end. Raises OSError. May be cancelled: nothing is lost."""
        try:
            return await self._step(lambda: self._tls.read(count))
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""

    async def sendall(self, data: bytes) -> None:
        """Encrypt and send all of it. Raises OSError."""
        self._tls.write(data)
        await self._flush()

    def send_range(self, head: bytes, descriptor: int, offset: int, count: int) -> None:
        """Encrypt and send `head`, then `count` bytes of a file from `offset`. Blocking, and raises, as without TLS."""
        if not self._buffer:
            self._buffer = memoryview(bytearray(ENCRYPTED_BYTES))
        writable = select.poll()
        writable.register(self._socket, select.POLLOUT)
        if head:
            self._tls.write(head)
        end = offset + count
        while offset < end:
            with storage_errors("cannot read a shared file"):
                read = os.preadv(descriptor, [self._buffer[: end - offset]], offset)
            if read == 0:
                raise ContentChangedError("the file became shorter")
            self._tls.write(self._buffer[:read])
            _send_all(self._socket, writable, self._to_send.read())
            offset += read

    async def _step(self, step: Callable[[], T]) -> T:
        """The result of a step of TLS, which is tried again with what arrives until it has one."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
            except ssl.SSLError:
                # The client learns why.
                with suppress(OSError):
                    await self._flush()
                raise
            else:
                await self._flush()
                return result
            data = await self._loop.sock_recv(self._socket, CIPHERTEXT_BYTES)
            if data:
                self._received.write(data)
            else:
                self._received.write_eof()

    async def _flush(self) -> None:
        if self._to_send.pending:
            await self._loop.sock_sendall(self._socket, self._to_send.read())


def _send_file(connection: socket.socket, head: bytes, descriptor: int, offset: int, count: int) -> None:
    writable = select.poll()
    writable.register(connection, select.POLLOUT)
    _send_all(connection, writable, head, socket.MSG_MORE)
    end = offset + count
    while offset < end:
        try:
            sent = _send_some(connection, descriptor, offset, min(end - offset, MAX_SENDFILE_BYTES))
        except BlockingIOError:
            _wait(writable)
            continue
        if sent == 0:
            raise ContentChangedError("the file became shorter")
        offset += sent


def _send_some(connection: socket.socket, descriptor: int, offset: int, count: int) -> int:
    """How many bytes of a file were sent. Raises StorageError for the disk's errors, OSError for the connection's."""
    try:
        return os.sendfile(connection.fileno(), descriptor, offset, count)
    except (BlockingIOError, ConnectionError, TimeoutError):
        raise
    except OSError:
        # The disk's error or the socket's, or a file system that cannot do it: reading shows which.
        with storage_errors("cannot read a shared file"):
            data = os.pread(descriptor, min(count, COPIED_BYTES), offset)
        return connection.send(data) if data else 0


def _wait(writable: select.poll) -> None:
    if not writable.poll(int(STALL_SECONDS * 1000)):
        raise TimeoutError("the requester reads nothing")


def _send_all(connection: socket.socket, writable: select.poll, data: bytes, flags: int = 0) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[connection.send(left, flags) :]
        except BlockingIOError:
            _wait(writable)
