"""What a serving peer keeps in mind: slots, and which chunks it has sent how often."""

import random
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice

from minga_core.chunks import ChunkSet
from minga_core.errors import BusyError
from minga_core.ids import ContentId, PeerId
from minga_peer.clients.wire import MAX_SOURCES, SourceAddress

MAX_REMEMBERED_CONTENTS = 1024
"""Contents whose served counts are kept; the least recently served is forgotten first."""


MAX_CONSIDERED = 4096
"""Chunks looked at for one choice; a caller that wants more chooses among its first ones. Bounds the work of a call."""


class ServedCounts:
    """How often each chunk was sent, so that a seed sends every chunk once before it sends one twice."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - ties, not secrets
        self._contents: OrderedDict[ContentId, Counter[int]] = OrderedDict()

    def choose(self, content_id: ContentId, wanted: ChunkSet) -> int:
        """The wanted chunk that was sent least often, ties by lot; it counts as sent at once. wanted: not empty."""
        counts = self._contents.setdefault(content_id, Counter())
        self._contents.move_to_end(content_id)
        if len(self._contents) > MAX_REMEMBERED_CONTENTS:
            self._contents.popitem(last=False)
        candidates = list(islice(wanted, MAX_CONSIDERED))
        least = min(counts[index] for index in candidates)
        index = self._rng.choice([index for index in candidates if counts[index] == least])
        counts[index] += 1
        return index

    def take_back(self, content_id: ContentId, index: int) -> None:
        """A chunk that was chosen was not sent after all."""
        counts = self._contents.get(content_id)
        if counts is not None and counts[index] > 0:
            counts[index] -= 1


class UploadSlots:
    """How many chunk streams are served at once, in all."""

    def __init__(self, limit: int, retry_after: timedelta = timedelta(milliseconds=200)) -> None:
        self._limit = limit
        self._retry_after = retry_after
        self.active_count = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A slot for the length of the block. Raises BusyError at once when there is none."""
        if self.active_count >= self._limit:
            raise BusyError(f"all {self._limit} upload slots are taken", retry_after=self._retry_after)
        self.active_count += 1
        try:
            yield
        finally:
            self.active_count -= 1


class RecentTakers:
    """Who has taken chunks of a content from here lately: named to those whom this peer cannot serve now."""

    def __init__(self) -> None:
        self._contents: OrderedDict[ContentId, OrderedDict[PeerId, SourceAddress]] = OrderedDict()

    def note(self, content_id: ContentId, taker: SourceAddress) -> None:
        """The taker has got, or is getting, a chunk."""
        takers = self._contents.setdefault(content_id, OrderedDict())
        takers[taker.peer_id] = taker
        takers.move_to_end(taker.peer_id)
        if len(takers) > MAX_SOURCES:
            takers.popitem(last=False)
        self._contents.move_to_end(content_id)
        if len(self._contents) > MAX_REMEMBERED_CONTENTS:
            self._contents.popitem(last=False)

    def others(self, content_id: ContentId, caller: SourceAddress | None) -> list[SourceAddress]:
        """Those noted, latest last, without the caller."""
        takers = self._contents.get(content_id, OrderedDict())
        return [taker for taker in takers.values() if caller is None or taker.peer_id != caller.peer_id]
