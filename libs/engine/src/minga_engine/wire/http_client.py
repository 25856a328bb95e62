"""Chunks over the bulk path: HTTP/1.1, one request at a time on each connection. See docs/bulk.md.

Bytes go from the socket straight into the chunk's buffer. Whoever asks verifies them.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import cast

from minga_core.chunks import ChunkSet
from minga_core.errors import InvalidArgumentError, MingaError, PeerUnavailableError
from minga_core.ids import Address, ContentId
from minga_engine.wire.http_format import (
    END_OF_HEAD,
    MAX_HEAD_BYTES,
    MAX_NEWS_BYTES,
    BulkAnswer,
    BulkHint,
    BulkRefusal,
    BulkRequest,
    decode_news,
    decode_watch_answer,
    encode_watch,
)
from minga_engine.wire.messages import SourceAddress
from minga_runtime.rate_limit import RateLimit
from minga_runtime.sockets import connect_tcp

MAX_IDLE_CONNECTIONS = 4
IDLE_SECONDS = 20.0
"""How long a connection is kept for the next chunk; less than the server's own limit."""
MIN_TOLD_BYTES = 64 * 1024
"""Bytes are told of in steps of a quarter of a chunk, and no smaller ones."""


class BulkUnreachableError(PeerUnavailableError):
    """Nobody answers on the port that was offered: the other path may still work."""


@dataclass(slots=True)
class Expected:
    """What an exchange may bring, and who hears of it."""

    accepts: Callable[[BulkAnswer], memoryview]
    """The buffer for the chunk that the peer chose. Raises InvalidArgumentError when it was not asked for."""
    on_bytes: Callable[[int], None]
    on_hint: Callable[[tuple[SourceAddress, ...]], None]
    """Others are named before the answer comes."""


class BulkConnection(asyncio.BufferedProtocol):
    """One connection. `exchange` one after the other; broken for good by the first error or cancellation."""

    def __init__(self, down: RateLimit) -> None:
        self._down = down
        self._transport: asyncio.Transport | None = None
        self._head = bytearray(MAX_HEAD_BYTES)
        self._head_filled = 0
        self._body: memoryview | None = None
        self._body_filled = self._told = 0
        self._answer: BulkAnswer | BulkRefusal | None = None
        self._expected: Expected | None = None
        self._done: asyncio.Future[BulkAnswer | BulkRefusal] | None = None
        self._resume: asyncio.TimerHandle | None = None
        self.answered = False
        """Whether anything came since the last request."""
        self.idle_since = 0.0

    @property
    def open(self) -> bool:
        """Whether it can be used."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, expected: Expected) -> BulkAnswer | BulkRefusal:
        """Sends a request; the answer, once the chunk is in its buffer. Whoever is not given one aborts the connection.

        Raises PeerUnavailableError when the connection breaks, InvalidArgumentError when the peer sends what was not
        asked for.
        """
        if self._transport is None or not self.open:
            raise PeerUnavailableError("the connection is closed")
        self._expected, self._answer, self._body, self.answered = expected, None, None, False
        self._head_filled = self._body_filled = self._told = 0
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._done
        finally:
            # Nobody writes into the caller's buffer from here on.
            self._done = self._expected = self._body = None

    def abort(self) -> None:
        """Closes the connection at once, and with it the peer's work for it."""
        if self._resume is not None:
            self._resume.cancel()
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        # Not checked by its class: uvloop's transports have none of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        self._fail(PeerUnavailableError("the peer closed the connection"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        if self._body is None:
            return memoryview(self._head)[self._head_filled :]
        rest = len(self._body) - self._body_filled
        return self._body[self._body_filled : self._body_filled + self._down.piece_bytes(rest)]

    def buffer_updated(self, count: int) -> None:
        """See asyncio."""
        self.answered = True
        try:
            if self._done is None or self._done.done():
                raise InvalidArgumentError("the peer sends what nobody asked for")
            if self._body is None:
                self._head_came(count)
            else:
                self._body_came(count)
        except MingaError as error:
            self.abort()
            self._fail(error)

    def _head_came(self, count: int) -> None:
        searched = max(0, self._head_filled - len(END_OF_HEAD))
        self._head_filled += count
        while True:
            end = self._head.find(END_OF_HEAD, searched, self._head_filled)
            if end < 0:
                if self._head_filled == len(self._head):
                    raise InvalidArgumentError("the peer's answer has no end")
                return
            answer = BulkAnswer.decode(bytes(self._head[:end]))
            if not isinstance(answer, BulkHint):
                break
            if self._expected is not None and answer.sources:
                self._expected.on_hint(answer.sources)
            left = bytes(self._head[end + len(END_OF_HEAD) : self._head_filled])
            self._head[: len(left)] = left
            self._head_filled, searched = len(left), 0
        rest = memoryview(self._head)[end + len(END_OF_HEAD) : self._head_filled]
        if isinstance(answer, BulkRefusal) or answer.index is None:
            if rest:
                raise InvalidArgumentError("the peer sends more than it said")
            self._answer = answer
            self._succeed()
            return
        if self._expected is None:
            return
        self._answer = answer
        self._body = self._expected.accepts(answer)
        if len(rest) > len(self._body):
            raise InvalidArgumentError("the peer sends more than it said")
        self._body[: len(rest)] = rest
        self._body_came(len(rest))

    def _body_came(self, count: int) -> None:
        if self._body is None or self._expected is None:
            return
        self._body_filled += count
        size = len(self._body)
        if self._body_filled == size or self._body_filled - self._told >= max(size // 4, MIN_TOLD_BYTES):
            news, self._told = self._body_filled - self._told, self._body_filled
            self._expected.on_bytes(news)
        if self._body_filled == size:
            self._succeed()
        if self._down.limited:
            self._hold_back(count)

    def _hold_back(self, count: int) -> None:
        """Reads no further before the limit allows what has come; the sender notices by its window."""
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
        # From here on nothing may come: the next read must not find a full buffer, which uvloop takes for an error.
        self._body, self._head_filled = None, 0
        if self._done is not None and not self._done.done() and self._answer is not None:
            self._done.set_result(self._answer)

    def _fail(self, error: MingaError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class BulkPeer:
    """The bulk port of one peer: connections, made as they are needed and used again."""

    def __init__(self, address: Address, down: RateLimit) -> None:
        self.address = address
        self._down = down
        self._idle: list[BulkConnection] = []

    async def fetch(self, request: BulkRequest, expected: Expected) -> BulkAnswer | BulkRefusal:
        """See BulkConnection.exchange; BulkUnreachableError when no connection can be made."""
        head = request.encode(self.address)
        while (connection := self._take_idle()) is not None:
            try:
                return await self._use(connection, head, expected)
            except PeerUnavailableError:
                # The peer may have closed it while it was idle; once it has answered, the loss is a real one.
                if connection.answered:
                    raise
        return await self._use(await self._connect(), head, expected)

    async def _use(self, connection: BulkConnection, head: bytes, expected: Expected) -> BulkAnswer | BulkRefusal:
        try:
            answer = await connection.exchange(head, expected)
        except BaseException:
            connection.abort()
            raise
        if connection.open and len(self._idle) < MAX_IDLE_CONNECTIONS:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()
        return answer

    async def _connect(self) -> BulkConnection:
        connection = BulkConnection(self._down)
        await self._connected(lambda: connection)
        return connection

    async def _connected(self, protocol: Callable[[], asyncio.BaseProtocol]) -> asyncio.Transport:
        try:
            transport, _ = await connect_tcp(protocol, self.address)
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
            raise BulkUnreachableError(f"cannot connect to {self.address}: {reason}") from error
        return transport

    async def watch(self, content_id: ContentId, count: int) -> AsyncGenerator[tuple[ChunkSet, bool], None]:
        """As PeerClient.watch_chunks, over this path. Raises BulkUnreachableError before anything came."""
        reader = asyncio.StreamReader(limit=MAX_NEWS_BYTES)
        transport = await self._connected(lambda: asyncio.StreamReaderProtocol(reader))
        try:
            transport.write(encode_watch(content_id, self.address))
            head = await reader.readuntil(END_OF_HEAD)
            refusal = decode_watch_answer(head)
            if refusal is not None:
                raise refusal.error
            while line := await reader.readline():
                held, complete = decode_news(line, count)
                yield held, complete
                if complete:
                    return
            raise PeerUnavailableError("the peer ended its news")
        except (OSError, EOFError) as error:
            raise PeerUnavailableError(f"{self.address} closed the connection") from error
        except (asyncio.LimitOverrunError, ValueError) as error:
            raise InvalidArgumentError(f"{self.address} sends news that do not end") from error
        finally:
            transport.abort()

    def _take_idle(self) -> BulkConnection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.open and now - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    def close(self) -> None:
        """Closes idle connections; those in use close when their exchange is over or cancelled."""
        while self._idle:
            self._idle.pop().abort()
