"""Where the bytes of an open file come from: the daemon of this machine, or this process. Neither sends them: both say
where on the disk they are."""

import asyncio
import socket
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from minga_core.errors import DaemonUnavailableError, InvalidArgumentError, StorageError
from minga_core.references import Reference
from minga_engine.parts.files import FINGERPRINT_BYTES, Fingerprint
from minga_engine.parts.places import OpenFile, Place
from minga_engine.settings import check_control_folder
from minga_engine.wire.local_reads import MAX_LINE_BYTES, FoundBytes, Opened, OpenRequest, ReadRequest

if TYPE_CHECKING:
    from minga_engine.transfer.locating import Located
    from minga_engine.transfer.stream import ContentReader, Streams

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 600.0
"""The daemon says when no source is usable, but a slow one may take minutes for a chunk, of which nothing comes before
it is whole: a silence that is longer is a daemon that hangs."""


class DaemonSource:
    """Reads a content that the daemon has, or fetches. Implements Source. Uses no gRPC: it works after a fork.

    A connection is one reader: reads at once have one each.
    """

    def __init__(self, path: Path, opened: Opened, wait: timedelta | None, connection: "_Connection") -> None:
        self.content_id = opened.content_id
        self.size_bytes = opened.size_bytes
        self._path = path
        self._wait = wait
        self._idle = [connection]
        self._whole: Place | None = None
        self._closed = False

    @classmethod
    async def open(cls, path: Path, wanted: Reference, wait: timedelta | None) -> "DaemonSource":
        """path: of the daemon's read socket. wait: how long a read waits for a source, or less. Raises
        FileNotFoundInDirectoryError, DaemonUnavailableError."""
        check_control_folder(path)
        connection, opened = await _Connection.open(path, OpenRequest(wanted.name, wanted.content_id, wait))
        return cls(path, opened, wait, connection)

    async def place(self, offset: int, length: int) -> Place:
        """See Source."""
        if self._whole is not None and not self._whole.file.changed:
            return self._whole
        try:
            place = await self._ask(offset, length)
        except ConnectionError:
            # The daemon ends readers that are idle, and may have been started again.
            self._close_idle()
            try:
                place = await self._ask(offset, length)
            except ConnectionError as error:
                raise DaemonUnavailableError(f"the daemon broke off: {error}") from error
        if place.fingerprint is not None:
            self._whole = place
            self._close_idle()
        return place

    async def _ask(self, offset: int, length: int) -> Place:
        """As `place`. Raises ConnectionError too."""
        if self._idle:
            connection = self._idle.pop()
        else:
            connection, _ = await _Connection.open(self._path, OpenRequest(None, self.content_id, self._wait))
        try:
            return await connection.place(offset, length)
        finally:
            if self._closed:
                connection.close()
            elif connection.usable:
                self._idle.append(connection)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def aclose(self) -> None:
        """See Source."""
        self._closed = True
        self._close_idle()


class _Connection:
    """One reader of the daemon's. An error or a cancellation in the middle of an exchange closes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._file: OpenFile | None = None

    @classmethod
    async def open(cls, path: Path, request: OpenRequest) -> "tuple[_Connection, Opened]":
        """Raises DaemonUnavailableError, and what the daemon answers."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.setblocking(False)
        connection = cls(made)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(made, str(path))
            answer, _ = await connection._exchange(request.encode())
            return connection, Opened.decode(answer)
        except OSError as error:
            connection.close()
            raise DaemonUnavailableError(f"the daemon does not answer at {path}: {error}") from error
        except BaseException:
            connection.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether the next exchange may succeed."""
        return self._socket.fileno() >= 0

    def close(self) -> None:
        """Let the daemon stop fetching for it. Idempotent."""
        self._socket.close()

    async def place(self, offset: int, length: int) -> Place:
        """See Source. Raises ConnectionError when the daemon has ended it."""
        answer, descriptors = await self._exchange(ReadRequest(offset, length).encode())
        for descriptor in descriptors:
            self._file = OpenFile(descriptor)
        found = FoundBytes.decode(answer)
        if self._file is None:
            self.close()
            raise StorageError("the file's descriptor did not come", hint="this process may have too many open files")
        if not found.start <= offset < found.stop:
            raise InvalidArgumentError(f"the daemon answers with {found.start}-{found.stop}, which was not asked for")
        return Place(self._file, found.start, found.stop, _fingerprint(found.fingerprint))

    async def _exchange(self, request: bytes) -> tuple[bytes, list[int]]:
        """The answer to a request, and descriptors that came with it. Raises ConnectionError, TimeoutError."""
        done = False
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await asyncio.get_running_loop().sock_sendall(self._socket, request)
                answer = await self._receive()
            done = True
            return answer
        finally:
            if not done:
                self.close()

    async def _receive(self) -> tuple[bytes, list[int]]:
        data, descriptors = b"", list[int]()
        while not data.endswith(b"\n"):
            await _readable(self._socket)
            received, files, _, _ = socket.recv_fds(self._socket, MAX_LINE_BYTES, 1, _CLOSED_BY_EXEC)
            descriptors += files
            data += received
            if not received or len(data) > MAX_LINE_BYTES:
                for descriptor in descriptors:
                    OpenFile(descriptor)
                raise ConnectionResetError("the daemon ended its answer before the end")
        return data, descriptors


_CLOSED_BY_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _fingerprint(packed: bytes) -> Fingerprint | None:
    if packed and len(packed) != FINGERPRINT_BYTES:
        raise InvalidArgumentError(f"the daemon answers with a fingerprint of {len(packed)} bytes")
    return Fingerprint.unpack(packed) if packed else None


class OwnSource:
    """Reads a content that this process fetches. Implements Source."""

    def __init__(self, reader: "ContentReader", stack: AsyncExitStack) -> None:
        self._stack = stack
        self.place = reader.place
        self.content_id = reader.content_id
        self.size_bytes = reader.size_bytes

    @classmethod
    async def open(cls, streams: "Streams", file: "Located", wait: timedelta | None) -> "OwnSource":
        """Fetches nothing before the first read. wait: how long a read waits for a source; None: as the streams do."""
        stack = AsyncExitStack()
        return cls(await stack.enter_async_context(streams.open(file, wait=wait)), stack)

    async def aclose(self) -> None:
        """See Source."""
        await self._stack.aclose()
