"""The two kinds of connection of the HTTP server: plain, where the kernel sends files, and TLS.

Both are used by one task at a time, and by a thread while that waits for it; the socket blocks for the thread alone.
What comes on it is read as it comes, whatever the task is at: so a client that is gone is noticed while its request
waits, without a task that listens for that.
"""

import asyncio
import math
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
READ_BYTES = 16 * 1024
"""Read from a socket at a time."""
MAX_UNREAD_BYTES = 64 * 1024
"""What may have come that nobody has asked for; the socket is not read before somebody does."""
HANDSHAKE_SECONDS = 10.0

T = TypeVar("T")


class _Connection:
    """Reads a socket until `close`, which comes before the socket's own."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()
        self._reading = self._ended = False
        self._error: OSError | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._until = self._timer_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._on_end: Callable[[], None] | None = None
        limit = struct.pack("ll", *divmod(int(STALL_SECONDS * 1_000_000), 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._resume()

    @contextmanager
    def calling(self, on_end: Callable[[], None]) -> Iterator[None]:
        """Has `on_end` called when the client has closed, or had before, until the end of the block."""
        if self._ended:
            on_end()
        self._on_end = on_end
        try:
            yield
        finally:
            self._on_end = None

    def close(self) -> None:
        """Stop reading. Idempotent."""
        self._pause()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _next(self, count: int, until: float) -> bytes:
        while not self._unread:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._arrival = self._loop.create_future()
            self._wait_until(until)
            await self._arrival
        data = bytes(self._unread[:count])
        del self._unread[:count]
        self._resume()
        return data

    @contextmanager
    def _blocking(self) -> Iterator[None]:
        """Has the kernel wait until what is sent has room, for a thread: that wakes it once, and not with every piece
        that leaves. Raises TimeoutError when none leaves for STALL_SECONDS."""
        os.set_blocking(self._socket.fileno(), True)
        try:
            yield
        except BlockingIOError as error:
            raise TimeoutError("the requester reads nothing") from error
        finally:
            os.set_blocking(self._socket.fileno(), False)

    def _resume(self) -> None:
        if not self._reading and not self._ended and len(self._unread) < MAX_UNREAD_BYTES:
            self._reading = True
            self._loop.add_reader(self._socket, self._read)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket)

    def _read(self) -> None:
        try:
            # A thread may have the socket block meanwhile.
            data = self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self._error, data = error, b""
        self._unread += data
        if not data:
            self._ended = True
        if not data or len(self._unread) >= MAX_UNREAD_BYTES:
            self._pause()
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        if self._ended and self._on_end is not None:
            self._on_end()

    def _wait_until(self, until: float) -> None:
        """A timer that fires too early is set again, which costs less than setting it for each wait."""
        self._until = until
        if self._timer is not None and until < self._timer_at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and until < math.inf:
            self._timer, self._timer_at = self._loop.call_at(until, self._time_passed), until

    def _time_passed(self) -> None:
        self._timer = None
        if self._arrival is None or self._arrival.done():
            return
        if self._loop.time() < self._until:
            self._wait_until(self._until)
        else:
            self._arrival.set_exception(TimeoutError("nothing comes"))


class PlainStream(_Connection):
    """A connection without TLS."""

    async def recv(self, count: int, until: float = math.inf) -> bytes:
        """At most so many bytes; none at the end. Raises OSError; TimeoutError when none came until then, in the loop's
        time. May be cancelled: nothing is lost."""
        return await self._next(count, until)

    async def sendall(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""
        await self._loop.sock_sendall(self._socket, data)

    def send_now(self, data: bytes) -> int:
        """Send what the kernel takes at once; how many bytes that was. A broken connection takes none."""
        try:
            return self._socket.send(data)
        except OSError:
            return 0

    def send_range(self, head: bytes, descriptor: int, offset: int, count: int) -> None:
        """Send `head`, then `count` bytes of a file from `offset`. Blocking: for a thread.

        Raises ContentChangedError when the file ends before that, StorageError when it cannot be read, OSError when the
        connection breaks or stands still.
        """
        with self._blocking():
            _send_file(self._socket, head, descriptor, offset, count)


class TlsStream(_Connection):
    """A connection with TLS, whose client must show a certificate. `handshake` first; the rest is as for PlainStream.

    TLS runs in memory, between the socket's bytes and the application's: an SSLSocket costs the same (adr/0033), and
    asyncio's calls refuse it.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(connection)
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

    async def recv(self, count: int, until: float = math.inf) -> bytes:
        """Decrypt at most so many bytes; none at the end. Raises, and may be cancelled, as without TLS."""
        try:
            return await self._step(lambda: self._tls.read(count), until)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""

    async def sendall(self, data: bytes) -> None:
        """Encrypt and send all of it. Raises OSError."""
        self._tls.write(data)
        await self._flush()

    def send_now(self, data: bytes) -> int:
        """Nothing: what is encrypted has to be sent whole."""
        return 0

    def send_range(self, head: bytes, descriptor: int, offset: int, count: int) -> None:
        """Encrypt and send `head`, then `count` bytes of a file from `offset`. Blocking, and raises, as without TLS."""
        if not self._buffer:
            self._buffer = memoryview(bytearray(ENCRYPTED_BYTES))
        if head:
            self._tls.write(head)
        end = offset + count
        with self._blocking():
            while offset < end:
                with storage_errors("cannot read a shared file"):
                    read = os.preadv(descriptor, [self._buffer[: end - offset]], offset)
                if read == 0:
                    raise ContentChangedError("the file became shorter")
                self._tls.write(self._buffer[:read])
                _send_all(self._socket, self._to_send.read())
                offset += read

    async def _step(self, step: Callable[[], T], until: float = math.inf) -> T:
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
            data = await self._next(MAX_UNREAD_BYTES, until)
            if data:
                self._received.write(data)
            else:
                self._received.write_eof()

    async def _flush(self) -> None:
        if self._to_send.pending:
            await self._loop.sock_sendall(self._socket, self._to_send.read())


def _send_file(connection: socket.socket, head: bytes, descriptor: int, offset: int, count: int) -> None:
    _send_all(connection, head, socket.MSG_MORE)
    end = offset + count
    while offset < end:
        sent = _send_some(connection, descriptor, offset, min(end - offset, MAX_SENDFILE_BYTES))
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


def _send_all(connection: socket.socket, data: bytes, flags: int = 0) -> None:
    left = memoryview(data)
    while left:
        left = left[connection.send(left, flags) :]
