"""Fetches chunks, availability and small contents from one peer's HTTP server (docs/http.md).

One request at a time on each connection. Bytes go from the socket straight into the chunk's buffer; the caller verifies
them.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol, cast

from minga_core.chunks import ChunkSet
from minga_core.errors import InvalidArgumentError, MingaError, PeerUnavailableError, UnauthenticatedError
from minga_core.ids import Address, ContentId
from minga_engine.wire.groups import Group, GroupReader
from minga_engine.wire.http_format import (
    END_OF_HEAD,
    MAX_AVAILABILITY_BYTES,
    MAX_HEAD_BYTES,
    AvailabilityRequest,
    ChunkRequest,
    ChunkResponse,
    EarlyHints,
    ErrorResponse,
    FilesRequest,
    WrongChunkReport,
    decode_availability,
    decode_response,
    decode_stream_head,
)
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.peer_tls import PeerTls
from minga_runtime.rate_limit import RateLimit
from minga_runtime.sockets import connect_tcp

MAX_IDLE_CONNECTIONS = 4
IDLE_SECONDS = 20.0
"""How long a connection is kept for the next chunk; less than the server's own limit."""
WAKE_BYTES = 256 * 1024
"""The kernel wakes the reader of a chunk once so many bytes are there, or all that is left of it, not with every few
packets."""
REPORT_SECONDS = 1.0
"""Received bytes are reported this often while a chunk arrives, and with its last byte. (Measured: at fixed times
alone, sources look late in between, and 2.5 % of the bytes come twice; so they do, 4 %, when the few bytes that come
with the head are reported.)"""

Response = ChunkResponse | ErrorResponse
OnUpdate = Callable[[ChunkSet, bool], None]
"""Is called with chunks that a peer holds, and whether it has the whole content."""


class HttpUnreachableError(PeerUnavailableError):
    """No connection could be made: the port may be an old one."""


class ResponseHandler(Protocol):
    """Receives one response while it arrives."""

    def accept(self, response: ChunkResponse) -> memoryview:
        """The buffer for the announced chunk, of its size. Raises InvalidArgumentError when it was not asked for."""
        ...

    def received(self, count: int) -> None:
        """So many bytes of the chunk have arrived since the last call."""
        ...

    def found_sources(self, sources: tuple[SourceAddress, ...]) -> None:
        """The peer named others ahead of its response."""
        ...


class HttpConnection(asyncio.BufferedProtocol):
    """One connection, for one exchange after the other; broken for good by the first error or cancellation."""

    def __init__(self, down: RateLimit) -> None:
        self._down = down
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._wake_bytes = 1
        self._head = bytearray(MAX_HEAD_BYTES)
        self._head_filled = 0
        self._body: memoryview | None = None
        self._body_filled = self._reported = 0
        self._report_at = 0.0
        self._response: Response | None = None
        self._handler: ResponseHandler | None = None
        self._done: asyncio.Future[Response] | None = None
        self._resume: asyncio.TimerHandle | None = None
        self.answered = False
        """Whether anything has arrived since the last request."""
        self.idle_since = 0.0

    @property
    def open(self) -> bool:
        """Whether it can be used."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, handler: ResponseHandler) -> Response:
        """Sends a request and returns the response once the chunk is in its buffer. After an error or a cancellation
        the caller aborts the connection.

        Raises PeerUnavailableError when the connection breaks, InvalidArgumentError when the peer sends what was not
        asked for.
        """
        if self._transport is None or not self.open:
            raise PeerUnavailableError("the connection is closed")
        self._handler, self._response, self._body, self.answered = handler, None, None, False
        self._head_filled = self._body_filled = self._reported = 0
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._done
        finally:
            # Nothing is written into the caller's buffer from here on.
            self._done = self._handler = self._body = None

    def abort(self) -> None:
        """Closes the connection at once, which ends the peer's work for it."""
        if self._resume is not None:
            self._resume.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        # Not checked by its class: uvloop's transports are not asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("ssl_object") is None:
            self._socket = transport.get_extra_info("socket")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._transport = None
        # With TLS 1.3 this is how a client learns that its certificate was refused.
        refused = f": {exc.reason}" if isinstance(exc, ssl.SSLError) else ""
        self._fail(PeerUnavailableError(f"the peer closed the connection{refused}"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        if self._body is None:
            return memoryview(self._head)[self._head_filled :]
        rest = len(self._body) - self._body_filled
        return self._body[self._body_filled : self._body_filled + self._down.piece_bytes(rest)]

    def buffer_updated(self, count: int) -> None:
        """See asyncio.BufferedProtocol."""
        self.answered = True
        try:
            if self._done is None or self._done.done() or self._handler is None:
                raise InvalidArgumentError("the peer sends what was not asked for")
            if self._body is None:
                self._head_arrived(count, self._handler)
            else:
                self._body_arrived(count, self._handler)
        except MingaError as error:
            self.abort()
            self._fail(error)

    def _head_arrived(self, count: int, handler: ResponseHandler) -> None:
        searched = max(0, self._head_filled - len(END_OF_HEAD))
        self._head_filled += count
        while True:
            end = self._head.find(END_OF_HEAD, searched, self._head_filled)
            if end < 0:
                if self._head_filled == len(self._head):
                    raise InvalidArgumentError("the peer's response has no end")
                return
            response = decode_response(bytes(self._head[:end]))
            if not isinstance(response, EarlyHints):
                break
            if response.sources:
                handler.found_sources(response.sources)
            left = bytes(self._head[end + len(END_OF_HEAD) : self._head_filled])
            self._head[: len(left)] = left
            self._head_filled, searched = len(left), 0
        self._response = response
        rest = memoryview(self._head)[end + len(END_OF_HEAD) : self._head_filled]
        body = None
        if isinstance(response, ChunkResponse) and response.index is not None:
            body = handler.accept(response)
        if len(rest) > (0 if body is None else len(body)):
            raise InvalidArgumentError("the peer sends more than it announced")
        if body is None:
            self._succeed()
            return
        self._body = body
        self._report_at = asyncio.get_running_loop().time() + REPORT_SECONDS
        body[: len(rest)] = rest
        self._body_arrived(len(rest), handler)

    def _body_arrived(self, count: int, handler: ResponseHandler) -> None:
        if self._body is None:
            return
        self._body_filled += count
        rest = len(self._body) - self._body_filled
        self._wake_after(rest)
        self._report(handler, last=not rest)
        if not rest:
            self._succeed()
        if self._down.limited:
            self._hold_back(count)

    def _report(self, handler: ResponseHandler, *, last: bool) -> None:
        now = asyncio.get_running_loop().time()
        if last or now >= self._report_at:
            fresh = self._body_filled - self._reported
            self._reported, self._report_at = self._body_filled, now + REPORT_SECONDS
            handler.received(fresh)

    def _wake_after(self, rest: int) -> None:
        """Have the kernel wake us when a good piece of the `rest` of a chunk is there; 0: with the first byte. Not with
        TLS, whose records lie between the socket and the chunk."""
        wanted = rest if rest < WAKE_BYTES else WAKE_BYTES
        wanted = self._down.piece_bytes(wanted) or 1
        if self._socket is not None and wanted != self._wake_bytes:
            self._wake_bytes = wanted
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)

    def _hold_back(self, count: int) -> None:
        """Pauses reading until the limit allows what has arrived; TCP's window then stops the sender."""
        loop = asyncio.get_running_loop()
        wait = self._down.reserve(count, loop.time())
        if wait > 0 and self._transport is not None and self._resume is None:
            self._transport.pause_reading()
            self._resume = loop.call_later(wait, self._read_on)

    def _read_on(self) -> None:
        self._resume = None
        if self._transport is not None and self.open:
            self._transport.resume_reading()

    def _succeed(self) -> None:
        # From here on nothing may arrive: the next read must not find a full buffer, which uvloop takes for an error.
        self._body, self._head_filled = None, 0
        if self._done is not None and not self._done.done() and self._response is not None:
            self._done.set_result(self._response)

    def _fail(self, error: MingaError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class _AvailabilityReader(asyncio.Protocol):
    """Reads the updates of one peer, until it has the whole content: each costs a call, and no task."""

    def __init__(self, count: int, on_update: OnUpdate) -> None:
        self._count = count
        self._on_update = on_update
        self._unread = b""
        self._begun = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._end(PeerUnavailableError("the peer ended its availability updates"))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._unread += data
        try:
            self._read_all()
        except MingaError as error:
            self._end(error)

    def _read_all(self) -> None:
        if not self._begun:
            head, end, rest = self._unread.partition(END_OF_HEAD)
            self._check_size(head, MAX_HEAD_BYTES)
            if not end:
                return
            if (error := decode_stream_head(head)) is not None:
                raise error
            self._begun, self._unread = True, rest
        # A line that has come whole was checked until its last bytes came.
        *lines, self._unread = self._unread.split(b"\n")
        self._check_size(self._unread, MAX_AVAILABILITY_BYTES)
        for line in lines:
            if not self.ended.done():
                held, complete = decode_availability(line, self._count)
                self._on_update(held, complete)
                if complete:
                    self._end(None)

    @staticmethod
    def _check_size(text: bytes, most: int) -> None:
        if len(text) > most:
            raise InvalidArgumentError("the peer sends an availability update without an end")

    def _end(self, error: MingaError | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)


class HttpPeer:
    """The HTTP server of one peer: connections, made as they are needed and used again."""

    def __init__(self, address: Address, down: RateLimit, tls: PeerTls | None = None) -> None:
        self.address = address
        self._down = down
        self._tls = tls
        self._idle: list[HttpConnection] = []

    async def fetch(self, request: ChunkRequest | WrongChunkReport, handler: ResponseHandler) -> Response:
        """One exchange (see HttpConnection). Raises HttpUnreachableError when no connection can be made."""
        head = request.encode(self.address)
        while (connection := self._reusable()) is not None:
            try:
                return await self._use(connection, head, handler)
            except PeerUnavailableError:
                # The peer may have closed it while it was idle; once it has answered, the loss is a real one.
                if connection.answered:
                    raise
        connection = HttpConnection(self._down)
        await self._connect(lambda: connection)
        return await self._use(connection, head, handler)

    async def watch(self, content_id: ContentId, count: int, on_update: OnUpdate) -> None:
        """Follows the availability of a content of `count` chunks: all chunks held, then each update, each with whether
        the peer has the whole content; returns when it has.

        Raises HttpUnreachableError when no connection can be made, PeerUnavailableError when it breaks, the peer's own
        error, InvalidArgumentError for malformed updates.
        """
        reader = _AvailabilityReader(count, on_update)
        transport = await self._connect(lambda: reader)
        try:
            transport.write(AvailabilityRequest(content_id).encode(self.address))
            await reader.ended
        finally:
            transport.abort()

    async def files(self, content_ids: Sequence[ContentId]) -> AsyncGenerator[Group, None]:
        """The small contents among those (1 to MAX_SMALL_FILES) that the peer has whole, as they arrive, not verified.

        Raises HttpUnreachableError when no connection can be made, PeerUnavailableError when it breaks, the peer's own
        error, InvalidArgumentError for what was not asked for.
        """
        reader = GroupReader(len(content_ids))
        transport = await self._connect(lambda: reader)
        try:
            transport.write(b"".join((FilesRequest(len(content_ids)).encode(self.address), *content_ids)))
            while (group := await reader.group()) is not None:
                yield group
        finally:
            transport.abort()

    def close(self) -> None:
        """Closes idle connections; those in use close when their exchange ends or is cancelled."""
        while self._idle:
            self._idle.pop().abort()

    async def _use(self, connection: HttpConnection, head: bytes, handler: ResponseHandler) -> Response:
        try:
            response = await connection.exchange(head, handler)
        except BaseException:
            connection.abort()
            raise
        if connection.open and len(self._idle) < MAX_IDLE_CONNECTIONS:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()
        return response

    async def _connect(self, protocol: Callable[[], asyncio.BaseProtocol]) -> asyncio.Transport:
        try:
            transport, _ = await connect_tcp(protocol, self.address, self._tls.loaded.peers if self._tls else None)
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
            raise HttpUnreachableError(f"cannot connect to {self.address}: {reason}") from error
        if self._tls is not None:
            try:
                self._tls.check(transport.get_extra_info("ssl_object"))
            except UnauthenticatedError as error:
                transport.abort()
                raise PeerUnavailableError(f"{self.address}: {error}") from error
        return transport

    def _reusable(self) -> HttpConnection | None:
        """An idle connection that is still good; the others are closed."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.open and now - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.abort()
        return None
