"""Decides which downloader is served which chunk and when, and counts it; the sending is `http_server`'s."""

import asyncio
import logging
from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from minga_core.chunks import ChunkSet
from minga_core.clock import Clock
from minga_core.errors import BusyError, ContentNotHeldError, NoSpaceError, StorageError
from minga_core.ids import ContentId, PeerId
from minga_engine.swarm.serving_queue import ServingQueue
from minga_engine.wire.http_format import ChunkRequest
from minga_engine.wire.messages import MAX_SOURCES, SourceAddress
from minga_peer.serve.availability import Availability
from minga_peer.serve.spans import ServedRequest, ServeSpans
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
class Slot:
    """A request for a chunk, from its place in the queue to its end."""

    request_id: int
    content_id: ContentId
    growing: bool
    """Chunks of the content are still to come."""
    granted: asyncio.Future[int]
    """The chunk to send; -1: no chunk that was wanted is held."""
    span: ServedRequest | None = None
    complete: bool = False
    """The whole content is held here."""
    sent_bytes: int = 0
    """Of the chunk once it was sent whole; 0 counts as not sent."""

    def refuse(self, error: Exception) -> None:
        """Have who waits for the slot raise an error, unless it is granted."""
        if not self.granted.done():
            self.granted.set_exception(error)


class ChunkServing:
    """The serving slots of one peer, and peer exchange between its downloaders. up: the limit of sent payload."""

    def __init__(
        self, store: ContentStore, queue: ServingQueue, clock: Clock, metrics: ServingMetrics, up: RateLimit
    ) -> None:
        self.store = store
        self.up = up
        self.spans = ServeSpans(clock) if tracing.enabled() else None
        self._slots = _ServingSlots(queue, store, clock)
        self._downloaders = _RecentDownloaders()
        self._clock = clock
        self.availability = Availability(store, clock)
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

    def other_downloaders(self, request: ChunkRequest, after: int = 0) -> tuple[int, tuple[SourceAddress, ...]]:
        """Peers other than the requester that fetched chunks of the content lately: those that came after a number, and
        the number of the last one."""
        return self._downloaders.others(request.content_id, request.requester, after)

    async def ask(self, request: ChunkRequest, host: str) -> Slot:
        """Queues a request, which the caller ends with `end`. host: the requester's, or who it is where that is known,
        for its share.

        From now on the requester is named to other downloaders: it will soon have chunks to give. Raises BusyError at
        once when too many wait already, in all or from that host; ContentNotHeldError, InvalidArgumentError.
        """
        content_id, requester = request.content_id, request.requester
        candidates = _first_bits(self._wanted(request), MAX_CANDIDATES)
        first = (candidates & -candidates).bit_length() - 1
        size_bytes = (await self.store.manifest(content_id)).geometry.length(first)
        if requester is not None:
            self._downloaders.note(content_id, requester, host)
        span = self.spans.request(request.traceparent, content_id, requester) if self.spans is not None else None
        # Nobody is served later because another host says that it is the same peer.
        downloader = host if requester is None else f"{requester.peer_id} at {host}"
        try:
            slot = self._slots.ask(content_id, candidates, downloader, size_bytes, host)
        except BusyError:
            self._busy(span)
            if span is not None:
                span.ended(0)
            raise
        slot.span = span
        return slot

    async def granted(self, slot: Slot) -> int | None:
        """Waits for the slot; the chunk to send, None when no chunk that was wanted is held. Raises BusyError when it
        has waited for long for a chunk that is still to come."""
        if slot.growing:
            await self._slots.grant_as_it_grows(slot)
        index = await slot.granted
        if slot.span is not None:
            slot.span.granted()
        held = self.store.held(slot.content_id)
        slot.complete = held is not None and held.complete
        if index >= 0:
            return index
        if self.store.is_growing(slot.content_id):
            self._busy(slot.span)
            raise BusyError("nothing more has come yet", retry_after=RETRY_AFTER)
        return None

    def end(self, slot: Slot) -> None:
        """The request is over: its slot, or its place in the queue, is free."""
        self._slots.end(slot)
        if slot.span is not None:
            slot.span.ended(slot.sent_bytes)

    def _busy(self, span: ServedRequest | None) -> None:
        self._metrics.busy()
        if span is not None:
            span.busy()

    def sent(self, slot: Slot, size_bytes: int) -> None:
        """Records that the chunk was sent whole."""
        slot.sent_bytes = size_bytes
        self._metrics.sent(size_bytes, complete=slot.complete)

    def disk_failed(self, content_id: ContentId, error: StorageError | NoSpaceError) -> None:
        """Records that a chunk could not be read. The store shares the file again once all of it can be."""
        log_event(log, logging.WARNING, "chunk_not_read", content=content_id.short, error=error)
        self._metrics.disk_failed(error)

    def close(self) -> None:
        """Stops the timer, and ends open spans."""
        self._slots.close()
        if self.spans is not None:
            self.spans.close()

    def _wanted(self, request: ChunkRequest) -> int:
        held = self.store.held(request.content_id)
        if held is None:
            raise ContentNotHeldError(f"{request.content_id.short} is not held here")
        return ChunkSet.from_ranges(held.count, request.ranges).bits


class _ServingSlots:
    """The queue of chunk requests (see `swarm.serving_queue`), and who waits in it."""

    def __init__(self, queue: ServingQueue, store: ContentStore, clock: Clock) -> None:
        self._queue = queue
        self._store = store
        self._clock = clock
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._growing_count = 0
        """Requests for growing contents."""
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, content_id: ContentId, candidates: int, downloader: str, size_bytes: int, host: str) -> Slot:
        """Queues a request; its slot may be granted at once. Raises BusyError."""
        request_id = self._queue.ask(content_id, candidates, downloader, size_bytes, self._clock.monotonic(), host=host)
        if request_id is None:
            raise BusyError("too many requests wait here", retry_after=RETRY_AFTER)
        granted = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        slot = Slot(request_id, content_id, self._store.is_growing(content_id), granted)
        self._growing_count += slot.growing
        self._grant()
        return slot

    def end(self, slot: Slot) -> None:
        """Ends a request, and grants its slot to another."""
        self._growing_count -= slot.growing
        self._waiting.pop(slot.request_id, None)
        # Its exception, if it has one, is known to whom it concerns.
        slot.granted.cancel()
        self._queue.ended(slot.request_id, self._clock.monotonic(), sent_bytes=slot.sent_bytes)
        self._grant()

    async def grant_as_it_grows(self, slot: Slot) -> None:
        """Look again with each chunk that comes of a growing content, until the slot is granted."""
        with self._store.following(slot.content_id) as changed:
            while not slot.granted.done() and self._store.is_growing(slot.content_id):
                coming = asyncio.ensure_future(changed.wait())
                try:
                    await asyncio.wait((slot.granted, coming), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    coming.cancel()
                changed.clear()
                self._grant()

    def _held_bits(self, content_id: ContentId) -> int:
        held = self._store.held(content_id)
        return 0 if held is None else held.bits

    def _grant(self) -> None:
        """Grants slots to waiting requests, as long as there are free ones."""
        now = self._clock.monotonic()
        growing = self._store.is_growing if self._growing_count else None
        while (request := self._queue.next(self._held_bits, now, growing)) is not None:
            granted = self._waiting.pop(request.request_id, None)
            if granted is None or granted.done():
                self._queue.ended(request.request_id, now, sent_bytes=0)
            else:
                granted.set_result(request.index)
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
        self._contents: OrderedDict[ContentId, OrderedDict[tuple[PeerId, str], tuple[int, SourceAddress]]]
        self._contents = OrderedDict()
        self._last: dict[ContentId, int] = {}
        """The number of the downloader that came last."""

    def note(self, content_id: ContentId, downloader: SourceAddress, host: str) -> None:
        """Records a request of a downloader, which came from `host`. One that is new, or has moved, gets a number."""
        downloaders, key = self._contents.setdefault(content_id, OrderedDict()), (downloader.peer_id, host)
        known = downloaders.get(key)
        if known is None or known[1] != downloader:
            self._last[content_id] = number = self._last.get(content_id, 0) + 1
            downloaders[key] = number, downloader
        downloaders.move_to_end(key)
        if len(downloaders) > MAX_SOURCES:
            ((most, _),) = Counter(each for _, each in downloaders).most_common(1)
            del downloaders[next(key for key in downloaders if key[1] == most)]
        self._contents.move_to_end(content_id)
        if len(self._contents) > MAX_REMEMBERED_CONTENTS:
            forgotten, _ = self._contents.popitem(last=False)
            del self._last[forgotten]

    def others(
        self, content_id: ContentId, requester: SourceAddress | None, after: int
    ) -> tuple[int, tuple[SourceAddress, ...]]:
        """The last number, and the recorded downloaders with a number above `after`, without the requester."""
        last = self._last.get(content_id, 0)
        if last <= after:
            return last, ()
        own_id = None if requester is None else requester.peer_id
        found = self._contents[content_id].values()
        return last, tuple(source for number, source in found if number > after and source.peer_id != own_id)


def _first_bits(bits: int, limit: int) -> int:
    """At most about `limit` of the lowest chunks of a bitmap."""
    if bits.bit_count() <= limit:
        return bits
    lowest = (bits & -bits).bit_length() - 1
    return bits & ((1 << (lowest + limit)) - 1)
