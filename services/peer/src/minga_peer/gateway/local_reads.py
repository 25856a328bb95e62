"""The read socket: programs of this peer's owner read files where they are on its disk, as their bytes arrive.

Copies through sockets cost three times what fetching does. So a program gets the file's descriptor, and is answered
which bytes of it are verified; see `minga_engine.wire.local_reads`.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, LimitExceededError, MingaError
from minga_engine.parts.places import OpenFile
from minga_engine.transfer.locating import Located
from minga_engine.transfer.stream import ContentReader
from minga_engine.wire.local_reads import (
    MAX_LINE_BYTES,
    FoundBytes,
    Opened,
    OpenRequest,
    ReadRequest,
    encode_error,
)
from minga_peer.gateway.files import Reading
from minga_peer.gateway.sending import WAIT
from minga_runtime.logs import log_event
from minga_runtime.tasks import TaskOwner
from minga_runtime.trust.callers import OPEN

log = logging.getLogger(__name__)

MAX_READERS = 1024
"""Open at once. Each has a descriptor; programs read one file in several places by several."""
IDLE_SECONDS = 60.0
"""A reader that asks for nothing for so long is ended, and fetches nothing ahead any more; its program connects again
when it reads on."""
ACCEPT_PAUSE_SECONDS = 0.1


@asynccontextmanager
async def read_door(reading: Reading, listener: socket.socket) -> AsyncIterator[None]:
    """Answer on a listening Unix socket inside the block; closes it."""
    owner = TaskOwner()
    with listener:
        owner.keep(lambda: _accept(reading, listener, owner), "read-accept")
        try:
            yield
        finally:
            await owner.aclose()


async def _accept(reading: Reading, listener: socket.socket, owner: TaskOwner) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, _ = await loop.sock_accept(listener)
        except OSError as error:
            # No descriptors left, or a client that closed while it waited: neither ends the service.
            log_event(log, logging.WARNING, "accept_failed", error=error)
            await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
            continue
        owner.start(_serve(reading, _Connection(accepted), full=owner.count > MAX_READERS), "local-reader")


async def _serve(reading: Reading, connection: "_Connection", *, full: bool) -> None:
    with connection.closing(), suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        try:
            request = OpenRequest.decode(await connection.receive())
            if full:
                raise LimitExceededError(f"{MAX_READERS:,} files are open already")
            with connection.ends_when_left():
                file = await _locate(reading, request)
            wait = WAIT if request.wait is None else min(WAIT, request.wait)
            async with reading.streams.open(file, wait=wait) as reader:
                connection.send(Opened(file.content_id, file.size_bytes).encode())
                await _answer_reads(connection, reader)
        except MingaError as error:
            connection.send(encode_error(error))


async def _locate(reading: Reading, request: OpenRequest) -> Located:
    if request.name is None:
        if request.content_id is None:
            raise InvalidArgumentError("neither a name nor a content is to be opened")
        return await reading.catalogue.content(request.content_id)
    try:
        return await reading.locate(request.name, request.content_id, OPEN)
    except FileNotFoundInDirectoryError as error:
        if request.content_id is None and await reading.catalogue.is_folder(request.name):
            raise FileNotFoundInDirectoryError(f"nobody shares {request.name}: it is a folder") from error
        raise


async def _answer_reads(connection: "_Connection", reader: ContentReader) -> None:
    sent: OpenFile | None = None
    while True:
        request = ReadRequest.decode(await connection.receive())
        try:
            with connection.ends_when_left():
                place = await reader.place(request.offset, request.length)
        except MingaError as error:
            connection.send(encode_error(error))
            continue
        found = FoundBytes(place.start, place.stop, place.fingerprint or b"")
        connection.send(found.encode(), None if place.file is sent else place.file)
        sent = place.file


class _Connection:
    """A program that reads: a line from it, a line to it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close it at the end of the block."""
        with self._socket:
            yield

    async def receive(self) -> bytes:
        """The next line. Raises IncompleteReadError at its end, TimeoutError, OSError, InvalidArgumentError."""
        loop, data = asyncio.get_running_loop(), b""
        async with asyncio.timeout(IDLE_SECONDS):
            while not data.endswith(b"\n"):
                received = await loop.sock_recv(self._socket, MAX_LINE_BYTES)
                if not received:
                    raise asyncio.IncompleteReadError(data, None)
                data += received
                if len(data) > MAX_LINE_BYTES:
                    raise InvalidArgumentError("the request has no end")
        return data

    def send(self, data: bytes, file: OpenFile | None = None) -> None:
        """Send a line. There is room for it: the one before was read before the next request came. Raises OSError."""
        if file is None:
            self._socket.send(data)
        else:
            socket.send_fds(self._socket, [data], [file.descriptor])

    @contextmanager
    def ends_when_left(self) -> Iterator[None]:
        """Cancel this task when the program goes away, or asks again before it is answered, inside the block."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def left() -> None:
            loop.remove_reader(self._socket)
            if task is not None:
                task.cancel()

        loop.add_reader(self._socket, left)
        try:
            yield
        finally:
            loop.remove_reader(self._socket)
