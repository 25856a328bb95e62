"""Which request to serve next, and with which chunk: the decisions of a peer that serves. No sockets, clocks or disks.

A few requests are served at a time, each with a large share of the uplink: the first requesters can then pass their
chunks on while the others wait, where serving all at once would deliver all of them at the end. When a slot is free,
the waiting request goes first that wants a chunk sent from here least often: a seed sends no chunk twice before each
went out once, as long as any request wants another.

::

    ask ──► WAITING ──next──► SERVED ──ended──►
       └─► refused (None)        └─ after a while it no longer counts: a slow requester delays no other
"""

import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from minga_core.ids import ContentId
from minga_engine.swarm.chunk_counts import ChunkCounts

MAX_REMEMBERED_CONTENTS = 1024
MAX_REMEMBERED_REQUESTERS = 1024
MAX_SENT = 64
"""How often a chunk can be known to have been sent."""

HeldBits = Callable[[ContentId], int]
"""Bitmap of the chunks of a content that can be sent now."""
IsGrowing = Callable[[ContentId], bool]
"""Whether all chunks of a content come to this peer first, one after the other."""


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """How a peer serves."""

    served_at_once: int = 2
    """Requests that are served at a time while their requesters keep up. (Simulated and measured: two to four end
    alike; one leaves the uplink idle between two chunks, many delay the first copies.)"""
    max_served: int = 64
    """Bound of those served at a time, slow requesters among them."""
    max_requests: int = 256
    """Bound of those served and those waiting together; the next one is refused."""
    host_share: float = 0.5
    """Share of both bounds that one host may have, whether it reads nothing or requests everything."""
    max_wait_seconds: float = 2.0
    """A request that has waited longer goes first, whatever it wants."""
    slow_factor: float = 0.5
    """A request that takes so many times longer than its share of the uplink would explain stops to count."""
    unknown_rate_seconds: float = 1.0
    """When a request stops to count before the uplink's rate is known. (Measured: with 0.1 a seed serves all of them
    at once at the start, and the first chunk arrives anywhere after a second.)"""
    rate_window_seconds: float = 0.5
    """Over how long the uplink's rate is measured."""
    rate_decay: float = 0.98
    """Factor of the best rate from window to window."""


@dataclass(slots=True)
class ServingRequest:
    """One request for one of some chunks."""

    request_id: int
    content_id: ContentId
    candidates: int
    """Bitmap of what the requester wants."""
    requester: str
    """The peer that it comes from; empty when unknown."""
    size_bytes: int
    asked_at: float
    host: str = ""
    """The host that it comes from; empty: no bounds of its own."""
    index: int = -1
    """The chunk that was chosen; -1 while it waits."""
    counts_until: float = 0.0
    """Until then it counts as one of those served at once."""


class ServingQueue:
    """The requests of all requesters. `now` is monotonic seconds."""

    def __init__(self, config: ServingConfig | None = None, rng: random.Random | None = None) -> None:
        self._config = config or ServingConfig()
        self._rng = rng or random.Random()  # noqa: S311 - ties, not secrets
        self._served_chunks: OrderedDict[ContentId, ChunkCounts] = OrderedDict()
        self._waiting: OrderedDict[int, ServingRequest] = OrderedDict()
        self._served: dict[int, ServingRequest] = {}
        self._served_by_requester: Counter[str] = Counter()
        self._served_by_host: Counter[str] = Counter()
        self._asked_by_host: Counter[str] = Counter()
        self._last_served: OrderedDict[str, int] = OrderedDict()
        """Requester → number of the request that was served to it last; for recent ones."""
        self._served_total = 0
        self._rate = _PeakRate(self._config.rate_window_seconds, self._config.rate_decay)
        self._next_id = 1
        self.wakeup_at: float | None = None
        """When `next` may have something although nothing has happened; None: not before something happens."""

    @property
    def served_count(self) -> int:
        """Requests being served."""
        return len(self._served)

    @property
    def waiting_count(self) -> int:
        """Requests waiting."""
        return len(self._waiting)

    def ask(
        self, content_id: ContentId, candidates: int, requester: str, size_bytes: int, now: float, *, host: str = ""
    ) -> int | None:
        """Add a request; its id, or None when there are too many already, in all or of that host.

        size_bytes: of the largest candidate.
        """
        if len(self._waiting) + len(self._served) >= self._config.max_requests:
            return None
        if host and self._asked_by_host[host] >= self._share_of(self._config.max_requests):
            return None
        request = ServingRequest(self._next_id, content_id, candidates, requester, size_bytes, now, host)
        self._next_id += 1
        self._waiting[request.request_id] = request
        self._asked_by_host[host] += 1
        return request.request_id

    def next(self, held: HeldBits, now: float, growing: IsGrowing | None = None) -> ServingRequest | None:
        """The request to serve now, its `index` set, or -1 when nothing that it wants is held; None: not now.

        Of a growing content each chunk leaves once before any leaves twice: at best the uplink is as fast as chunks
        come. So requests for what is still to come wait for a chunk that was not sent, but no longer than any request.
        Call this when a chunk has come.
        """
        self.wakeup_at = None
        if not self._waiting or not self._has_slot(now):
            return None
        request = self._most_urgent(held, now, growing)
        if request is None:
            return None
        del self._waiting[request.request_id]
        self._served[request.request_id] = request
        self._served_by_requester[request.requester] += 1
        self._served_by_host[request.host] += 1
        self._note_served(request.requester)
        sendable = request.candidates & held(request.content_id)
        if growing is not None and sendable != request.candidates and growing(request.content_id):
            # It asks for what is still to come too: others have what was sent.
            sendable = sendable if self._is_fresh(request, sendable) else 0
        if sendable:
            chunks = self._chunks(request.content_id)
            _, freshest = chunks.least(sendable)
            request.index = (freshest & -freshest).bit_length() - 1
            chunks.add(1 << request.index)
        request.counts_until = now + self._counting_seconds(request)
        return request

    def ended(self, request_id: int, now: float, *, sent_bytes: int) -> None:
        """Remove a request, served or waiting. sent_bytes: 0 when its chunk did not go out completely."""
        if (removed := self._waiting.pop(request_id, None)) is not None:
            _one_less(self._asked_by_host, removed.host)
            return
        request = self._served.pop(request_id, None)
        if request is None:
            return
        _one_less(self._asked_by_host, request.host)
        _one_less(self._served_by_host, request.host)
        _one_less(self._served_by_requester, request.requester)
        if sent_bytes:
            self._rate.add(sent_bytes, now)
        elif request.index >= 0:
            self._chunks(request.content_id).remove(1 << request.index)

    def _has_slot(self, now: float) -> bool:
        if len(self._served) >= self._config.max_served:
            return False
        counting = [request.counts_until for request in self._served.values() if request.counts_until > now]
        if len(counting) < self._config.served_at_once:
            return True
        self.wakeup_at = min(counting)
        return False

    def _most_urgent(self, held: HeldBits, now: float, growing: IsGrowing | None) -> ServingRequest | None:
        """None when the hosts of all waiting requests are served as much as they may be, or all await more chunks."""
        waiting = [request for request in self._waiting.values() if self._has_share(request.host)]
        if growing is not None:
            waiting = [request for request in waiting if not self._awaits_more(request, held, now, growing)]
        if not waiting:
            return None
        # A host that does not read in time what it is sent comes after all others, however long it waits: one that
        # requests much and reads nothing would otherwise be ahead of every later one.
        late = {request.host for request in self._served.values() if request.host and request.counts_until <= now}
        waiting = [request for request in waiting if request.host not in late] or waiting
        oldest = waiting[0]
        if now - oldest.asked_at >= self._config.max_wait_seconds:
            return oldest
        held_bits: dict[ContentId, int] = {}

        def urgency(request: ServingRequest) -> tuple[int, int, int]:
            content_id = request.content_id
            if content_id not in held_bits:
                held_bits[content_id] = held(content_id)
            sendable = request.candidates & held_bits[content_id]
            level = self._chunks(content_id).least(sendable)[0] if sendable else -1
            return level, self._served_by_requester[request.requester], self._last_served.get(request.requester, 0)

        # `min` returns the first of equals: the oldest request.
        return min(waiting, key=urgency)

    def _awaits_more(self, request: ServingRequest, held: HeldBits, now: float, growing: IsGrowing) -> bool:
        """Whether a request waits for a chunk that has not come yet."""
        due = request.asked_at + self._config.max_wait_seconds
        if now >= due or not growing(request.content_id):
            return False
        sendable = request.candidates & held(request.content_id)
        if sendable == request.candidates or self._is_fresh(request, sendable):
            return False
        self.wakeup_at = due if self.wakeup_at is None else min(due, self.wakeup_at)
        return True

    def _is_fresh(self, request: ServingRequest, sendable: int) -> bool:
        """Whether one of those chunks was not sent yet."""
        return bool(sendable) and self._chunks(request.content_id).least(sendable)[0] == 0

    def _has_share(self, host: str) -> bool:
        return not host or self._served_by_host[host] < self._share_of(self._config.max_served)

    def _share_of(self, bound: int) -> int:
        return max(1, int(bound * self._config.host_share))

    def _note_served(self, requester: str) -> None:
        """Of equals, the requester that was served longest ago is next: many requests at once gain nothing."""
        self._served_total += 1
        self._last_served[requester] = self._served_total
        self._last_served.move_to_end(requester)
        if len(self._last_served) > MAX_REMEMBERED_REQUESTERS:
            self._last_served.popitem(last=False)

    def _counting_seconds(self, request: ServingRequest) -> float:
        rate = self._rate.value
        if rate <= 0:
            return self._config.unknown_rate_seconds
        return self._config.slow_factor * self._config.served_at_once * request.size_bytes / rate

    def _chunks(self, content_id: ContentId) -> ChunkCounts:
        chunks = self._served_chunks.get(content_id)
        if chunks is None:
            chunks = self._served_chunks[content_id] = ChunkCounts(MAX_SENT)
            if len(self._served_chunks) > MAX_REMEMBERED_CONTENTS:
                self._served_chunks.popitem(last=False)
        self._served_chunks.move_to_end(content_id)
        return chunks


def _one_less(counts: Counter[str], key: str) -> None:
    """Decrement, and drop keys at 0: the number of requesters is unbounded."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


class _PeakRate:
    """The best rate of the last while, bytes a second; 0 while it is not known."""

    def __init__(self, window_seconds: float, decay: float) -> None:
        self._window_seconds = window_seconds
        self._decay = decay
        self._since: float | None = None
        self._bytes = 0
        self.value = 0.0

    def add(self, count: int, now: float) -> None:
        if self._since is None:
            # What ends first began before: its bytes would make the first window look fast.
            self._since = now
            return
        self._bytes += count
        elapsed = now - self._since
        if elapsed >= self._window_seconds:
            measured = self._bytes / elapsed
            # After a pause the window says little: it only ever raises the value.
            stale = elapsed > 4 * self._window_seconds
            self.value = max(self.value * (1.0 if stale else self._decay), measured)
            self._since, self._bytes = now, 0
