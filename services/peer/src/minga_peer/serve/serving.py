"""Decides which downloader is served which chunk and when, and counts it; the sending is `http_server`'s."""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from minga_core.chunks import ChunkSet
from minga_core.clock import Clock
from minga_core.errors import BusyError, ContentNotHeldError, NoSpaceError, StorageError
from minga_core.ids import ContentId, PeerId
from minga_engine.swarm.serving_queue import HeldBits, ServingQueue, ServingRequest
from minga_engine.wire.http_format import ChunkRequest
from minga_engine.wire.messages import MAX_SOURCES, SourceAddress
from minga_peer.serve.spans import ServeSpans
from minga_peer.share.store import ContentStore
from minga_runtime import tracing
from minga_runtime.logs import log_event
from minga_runtime.rate_limit import RateLimit

log = logging.getLogger(__name__)

MAX_REMEMBERED_CONTENTS = 1024
"""Contents whose downloaders are kept; the least recently served is forgotten first."""
MAX_CANDIDATES = 4096
"""Chunks considered for one choice; a request for more is served from its first ones. Bounds the work of a request."""
RETRY_AFTER = timedelta(milliseconds=200)


class ServingMetrics(Protocol):
    """The metrics of serving."""

    def sent(self, payload_bytes: int, *, complete: bool) -> None:
        """A chunk was sent whole; complete: of a content that is held whole here."""
        ...

    def busy(self) -> None:
        """A request was refused for want of a slot."""
        ...

    def disk_failed(self, error: StorageError | NoSpaceError) -> None:
        """The disk ended the sending of a chunk."""
        ...


@dataclass(slots=True)
class ServedChunk:
    """A chunk that is to be sent now."""

    index: int | None
    """None: no chunk that was wanted is held."""
    sources: tuple[SourceAddress, ...]
    """Other downloaders of this content."""
    complete: bool
    """The whole content is held here."""
    sent_bytes: int = 0
    """Of the chunk once it was sent whole; 0 counts as not sent."""


class ChunkServing:
    """The serving slots of one peer, and peer exchange between its downloaders. up: the limit of sent payload."""

    def __init__(
        self, store: ContentStore, queue: ServingQueue, clock: Clock, metrics: ServingMetrics, up: RateLimit
    ) -> None:
        self.store = store
        self.up = up
        self.spans = ServeSpans(clock) if tracing.enabled() else None
        self._slots = _ServingSlots(queue, self._held_bits, clock)
        self._downloaders = _RecentDownloaders()
        self._queue = queue
        self._metrics = metrics

    @property
    def active_count(self) -> int:
        """Chunks being sent."""
        return self._queue.served_count

    @property
    def waiting_count(self) -> int:
        """Requests that wait for a slot."""
        return self._queue.waiting_count

    def other_downloaders(self, request: ChunkRequest) -> tuple[SourceAddress, ...]:
        """Peers other than the requester that fetched chunks of the content lately, the latest last."""
        return self._downloaders.others(request.content_id, request.requester)

    @asynccontextmanager
    async def slot(self, request: ChunkRequest, host: str) -> AsyncGenerator[ServedChunk, None]:
        """Waits for a serving slot, which is held until the end of the block. host: the requester's, or who it is where
        that is known, for its share.

        From now on the requester is named to other downloaders: it will soon have chunks to give. Raises BusyError at
        once when too many wait already, in all or from that host; ContentNotHeldError, InvalidArgumentError.
        """
        content_id, requester = request.content_id, request.requester
        candidates = _first_bits(self._wanted(request).bits, MAX_CANDIDATES)
        first = (candidates & -candidates).bit_length() - 1
        size_bytes = (await self.store.manifest(content_id)).geometry.length(first)
        if requester is not None:
            self._downloaders.note(content_id, requester, host)
        span = self.spans.request(request.traceparent, content_id, requester) if self.spans is not None else None
        # Nobody is served later because another host says that it is the same peer.
        downloader = host if requester is None else f"{requester.peer_id} at {host}"
        chunk = ServedChunk(None, (), False)
        try:
            async with self._slots.acquire(content_id, candidates, downloader, size_bytes, host, chunk):
                if span is not None:
                    span.granted()
                held = self.store.held(content_id)
                chunk.complete = held is not None and held.complete
                chunk.sources = self.other_downloaders(request)
                yield chunk
        except BusyError:
            self._metrics.busy()
            if span is not None:
                span.busy()
            raise
        finally:
            if span is not None:
                span.ended(chunk.sent_bytes)

    def sent(self, chunk: ServedChunk, size_bytes: int) -> None:
        """Records that the chunk was sent whole."""
        chunk.sent_bytes = size_bytes
        self._metrics.sent(size_bytes, complete=chunk.complete)

    def disk_failed(self, content_id: ContentId, error: StorageError | NoSpaceError) -> None:
        """Records that a chunk could not be read. The store shares the file again once all of it can be."""
        log_event(log, logging.WARNING, "chunk_not_read", content=content_id.short, error=error)
        self._metrics.disk_failed(error)

    def close(self) -> None:
        """Stops the timer, and ends open spans."""
        self._slots.close()
        if self.spans is not None:
            self.spans.close()

    def _wanted(self, request: ChunkRequest) -> ChunkSet:
        held = self.store.held(request.content_id)
        if held is None:
            raise ContentNotHeldError(f"{request.content_id.short} is not held here")
        return ChunkSet.from_ranges(held.count, request.ranges)

    def _held_bits(self, content_id: ContentId) -> int:
        held = self.store.held(content_id)
        return 0 if held is None else held.bits


class _ServingSlots:
    """The queue of chunk requests (see `swarm.serving_queue`), with tasks that wait in it."""

    def __init__(self, queue: ServingQueue, held_bits: HeldBits, clock: Clock) -> None:
        self._queue = queue
        self._held_bits = held_bits
        self._clock = clock
        self._waiting: dict[int, asyncio.Future[ServingRequest]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def acquire(
        self, content_id: ContentId, candidates: int, downloader: str, size_bytes: int, host: str, chunk: ServedChunk
    ) -> AsyncGenerator[None, None]:
        """Waits for a slot, which is held until the end of the block, and sets the chunk's index."""
        now = self._clock.monotonic()
        request_id = self._queue.ask(content_id, candidates, downloader, size_bytes, now, host=host)
        if request_id is None:
            raise BusyError("too many requests wait here", retry_after=RETRY_AFTER)
        granted = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        try:
            self._grant()
            index = (await granted).index
            chunk.index = None if index < 0 else index
            yield
        finally:
            self._waiting.pop(request_id, None)
            self._queue.ended(request_id, self._clock.monotonic(), sent_bytes=chunk.sent_bytes)
            self._grant()

    def _grant(self) -> None:
        """Grants slots to waiting requests, as long as there are free ones."""
        now = self._clock.monotonic()
        while (request := self._queue.next(self._held_bits, now)) is not None:
            granted = self._waiting.pop(request.request_id, None)
            if granted is None or granted.done():
                self._queue.ended(request.request_id, now, sent_bytes=0)
            else:
                granted.set_result(request)
        self.close()
        if self._queue.wakeup_at is not None:
            delay = max(0.0, self._queue.wakeup_at - now)
            self._timer = asyncio.get_running_loop().call_later(delay, self._grant)

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _RecentDownloaders:
    """The latest downloaders of each content; at most MAX_SOURCES of each of MAX_REMEMBERED_CONTENTS.

    Who somebody is, is what his host says of him: two hosts that name one peer are two downloaders. The oldest of the
    host with most of them is pushed out.
    """

    def __init__(self) -> None:
        self._contents: OrderedDict[ContentId, OrderedDict[tuple[PeerId, str], SourceAddress]] = OrderedDict()

    def note(self, content_id: ContentId, downloader: SourceAddress, host: str) -> None:
        """Records a request of a downloader, which came from `host`."""
        downloaders = self._contents.setdefault(content_id, OrderedDict())
        downloaders[downloader.peer_id, host] = downloader
        downloaders.move_to_end((downloader.peer_id, host))
        if len(downloaders) > MAX_SOURCES:
            ((most, _),) = Counter(each for _, each in downloaders).most_common(1)
            del downloaders[next(key for key in downloaders if key[1] == most)]
        self._contents.move_to_end(content_id)
        if len(self._contents) > MAX_REMEMBERED_CONTENTS:
            self._contents.popitem(last=False)

    def others(self, content_id: ContentId, requester: SourceAddress | None) -> tuple[SourceAddress, ...]:
        """The recorded downloaders without the requester, the latest last."""
        own_id = None if requester is None else requester.peer_id
        downloaders = self._contents.get(content_id, OrderedDict[tuple[PeerId, str], SourceAddress]())
        return tuple(source for (peer_id, _), source in downloaders.items() if peer_id != own_id)


def _first_bits(bits: int, limit: int) -> int:
    """At most about `limit` of the lowest chunks of a bitmap."""
    if bits.bit_count() <= limit:
        return bits
    lowest = (bits & -bits).bit_length() - 1
    return bits & ((1 << (lowest + limit)) - 1)
