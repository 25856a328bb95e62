"""Fetching what is missing of a file from its origin: over one connection, and over several while each brings more.

Many origins limit what a connection carries, and not what a client gets. So a second connection is tried once the first
one has shown its rate; the last one that brought little more than those before is the last that is made.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing

from minga_core.chunks import ChunkSet
from minga_core.clock import Clock
from minga_core.errors import MingaError, UnavailableError
from minga_engine.parts.provisional import ProvisionalPart
from minga_engine.wire.digests import HEAD_BYTES
from minga_peer.origins._metrics import Stalled
from minga_peer.origins.filling import fill, spooled
from minga_peer.origins.following import fetch_gaps
from minga_peer.origins.incoming import Incoming, end
from minga_peer.origins.means import Means
from minga_peer.origins.pieces import Piece, Pieces
from minga_peer.origins.source import Source
from minga_peer.origins.upstream import Answer, OriginBusyError, OriginRefusedError
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 4
"""To an origin for one file, whatever they bring."""
BUSY_SECONDS = 1.0
"""After which an origin that has sent something, and takes no more requests, is asked once more."""
MEASURED_SECONDS = 1.0
"""How long the rate is measured before another connection is made."""
GAIN = 1.2
"""A connection after which the rate is not so many times what it was before is one too many."""


class Fetching:
    """Fetches one file. Not for two calls at a time."""

    def __init__(self, means: Means, incoming: Incoming) -> None:
        self._means = means
        self._incoming = incoming
        self._file = incoming.file
        self._headers = incoming.file.headers
        self._validator = "" if incoming.file.digest else incoming.file.validator
        self._held_when_busy = 0
        self._pieces: Pieces | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._most = MAX_CONNECTIONS
        self._takes_ranges = False
        self._rate = _Rate(means.clock)
        self._gaps: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        """Set when there may be more pieces, or there will be none."""
        self._idle = asyncio.Event()
        """Set once no connection has a piece to fetch."""
        self._busy_count = 0
        """Connections that have one."""
        self._connecting = False
        """Whether the newest connection has no answer yet."""

    async def run(self) -> None:
        """Return when all chunks are here; ask again as long as that brings some.

        Raises UnavailableError, ContentChangedError, OriginRefusedError, FileNotFoundInDirectoryError, NoSpaceError,
        StorageError.
        """
        self._incoming.comes_from(Source.UPSTREAM)
        while not await self._fetch_some():
            self._means.metrics.stalled(Stalled.ORIGIN)

    async def _fetch_some(self) -> bool:
        """Whether all chunks are here; some more are at least."""
        before = self._held_count()
        try:
            await self._fetch_missing()
        except OriginBusyError:
            if self._held_count() == self._held_when_busy:
                raise
            self._held_when_busy = self._held_count()
            await asyncio.sleep(BUSY_SECONDS)
            return False
        except UnavailableError:
            if self._held_count() == before:
                raise
            return False
        return True

    def _held_count(self) -> int:
        return 0 if self._incoming.part is None else self._incoming.part.held_count

    async def _fetch_missing(self) -> None:
        gaps: asyncio.Task[None] | None = None
        self._idle.clear()
        if (part := self._incoming.part) is not None:
            missing = part.known - part.held
            pieces = self._pieces = Pieces(part.manifest.geometry, part.held | missing)
            gaps = self._gaps = asyncio.create_task(self._fill_gaps(pieces, missing), name="origin-gaps")
        self._rate = _Rate(self._means.clock)
        self._connect(self._fetch_pieces())
        try:
            while self._connections:
                done, _ = await asyncio.wait(
                    self._connections, timeout=MEASURED_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                self._connections -= done
                for each in done:
                    each.result()
                if self._is_worth_another():
                    self._connect(self._help())
        finally:
            connections, self._connections = self._connections, set()
            for each in connections:
                each.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            if gaps is not None:
                await end(gaps)
        if not self._incoming.opened().held.complete:
            raise UnavailableError(f"{self._incoming.name} did not come whole")

    async def _fill_gaps(self, pieces: Pieces, gaps: ChunkSet) -> None:
        """What a lost fetcher has sent to others is theirs to give: the origin is asked for what none of them has."""
        try:
            async with aclosing(fetch_gaps(self._means, self._incoming, gaps, self._idle)) as unoffered:
                async for chunks in unoffered:
                    pieces.add(chunks)
                    self._more.set()
        finally:
            self._more.set()

    def _connect(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=f"origin-connection-{self._incoming.content_id.short}")
        self._connections.add(task)
        self._connecting = True

    def _is_worth_another(self) -> bool:
        """Whether another connection is to be made now."""
        if self._pieces is None or not self._takes_ranges or not self._pieces.left_count:
            return False
        if self._connecting or len(self._connections) >= self._most or self._means.upstream.is_busy:
            return False
        if (rate := self._rate.measured()) is None:
            return False
        if rate > GAIN * self._rate.before:
            self._rate.before = rate
            return True
        self._most = max(1, len(self._connections) - 1)
        return False

    async def _help(self) -> None:
        try:
            await self._fetch_pieces()
        except MingaError as error:
            # It refuses one more, or gives that another version: the first connection goes on, or says what is wrong.
            self._most = max(1, len(self._connections) - 1)
            log_event(log, logging.INFO, "origin_connection_ended", name=self._incoming.name, error=error)

    async def _fetch_pieces(self) -> None:
        """Fetch piece after piece until none is left, or there are more connections than help."""
        if self._pieces is None:
            await self._fetch(None)
        pieces, part = self._pieces, self._incoming.opened()
        while pieces is not None and not part.held.complete and len(self._connections) <= self._most:
            piece = pieces.take(alone=len(self._connections) == 1)
            if piece is None:
                if self._gaps is None or self._gaps.done():
                    return
                if not self._busy_count:
                    self._idle.set()
                self._more.clear()
                await self._more.wait()
                continue
            self._busy_count += 1
            try:
                await self._fetch(piece)
            finally:
                self._busy_count -= 1
                pieces.give_back(piece, part.held)

    async def _fetch(self, piece: Piece | None) -> None:
        """Fetch a piece; the first one when the size is not known yet."""
        start, stop = self._range_of(piece)
        async with self._means.upstream.transfers, AsyncExitStack() as stack:
            answer, body = await self._asked(stack, start, stop)
            self._note(answer)
            body = self._received(body)
            if answer.size_bytes is None:
                kept = spooled(body, self._means.spool, self._means.store.status().free_bytes, self._means.pool)
                size_bytes, body = await stack.enter_async_context(kept)
            else:
                size_bytes = answer.size_bytes
            part = await self._incoming.begin(size_bytes)
            if piece is None:
                pieces = self._pieces = Pieces(part.manifest.geometry, part.held)
                piece = pieces.take(alone=True) or Piece(0, 0, 0)
            if answer.start == 0:
                body = self._with_head(body)
            if answer.start != start and len(self._connections) > 1:
                raise UnavailableError("the origin takes no ranges after all")
            await self._fill(part, body, piece, whole=answer.start != start)

    async def _asked(self, stack: AsyncExitStack, start: int, stop: int | None) -> tuple[Answer, AsyncIterator[bytes]]:
        """The origin's answer; asked once more where it takes the headers no more, and there are others."""
        try:
            return await stack.enter_async_context(self._stream(start, stop))
        except OriginRefusedError:
            if self._file.renew is None:
                raise
        self._headers = await self._file.renew()
        return await stack.enter_async_context(self._stream(start, stop))

    def _stream(self, start: int, stop: int | None) -> AbstractAsyncContextManager[tuple[Answer, AsyncIterator[bytes]]]:
        return self._means.upstream.stream(self._file.url, self._headers, start, self._validator, stop)

    async def _fill(self, part: ProvisionalPart, body: AsyncIterator[bytes], piece: Piece, *, whole: bool) -> None:
        """whole: the body is not that piece, but all of the file."""
        pieces = self._pieces
        if whole or pieces is None:
            await fill(part, body, 0, lambda index: True)
        else:
            await fill(part, body, piece.start, lambda index: pieces.has(piece, index))

    def _range_of(self, piece: Piece | None) -> tuple[int, int | None]:
        """The bytes that are asked for; None: to the end."""
        if piece is None:
            return 0, None
        geometry = self._incoming.opened().manifest.geometry
        stop = None if piece.limit == geometry.chunk_count else geometry.offset(piece.limit)
        return geometry.offset(piece.start), stop

    def _note(self, answer: Answer) -> None:
        if self._connecting:
            self._connecting = False
            self._rate.restart()
        self._validator = self._validator or answer.validator
        ranges = answer.status == 206 or answer.headers.get("accept-ranges", "").lower() == "bytes"
        # Without a validator two answers may be of two versions.
        self._takes_ranges = ranges and bool(answer.validator) and answer.size_bytes is not None

    async def _with_head(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same; its first bytes are for readers as soon as they come."""
        head = b""
        async for piece in body:
            if len(head) < HEAD_BYTES:
                head += piece[: HEAD_BYTES - len(head)]
                if len(head) == HEAD_BYTES:
                    self._incoming.note_head(head)
            yield piece

    async def _received(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in body:
            self._means.metrics.received(len(piece))
            self._rate.add(len(piece))
            await self._means.options.down.take(len(piece))
            yield piece


class _Rate:
    """Bytes a second of all connections together."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.before = 0.0
        """When the last connection was made."""
        self.restart()

    def restart(self) -> None:
        """Measure from now on."""
        self._bytes, self._since = 0, self._clock.monotonic()

    def add(self, count: int) -> None:
        """Note bytes that have come."""
        self._bytes += count

    def measured(self) -> float | None:
        """The rate since the start; None when that is not long ago, or nothing has come. Measures anew."""
        seconds = self._clock.monotonic() - self._since
        if seconds < MEASURED_SECONDS or not self._bytes:
            return None
        rate = self._bytes / seconds
        self.restart()
        return rate
