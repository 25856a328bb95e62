"""What a serving peer keeps in mind: whose turn it is, slots, and who has taken what lately."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from minga_core.chunks import ChunkSet
from minga_core.clock import Clock
from minga_core.errors import BusyError
from minga_core.ids import ContentId, PeerId
from minga_engine.swarm.serving_queue import UploadQueue, UploadRequest
from minga_engine.wire.messages import MAX_SOURCES, SourceAddress
from minga_runtime.shares import Shares

MAX_REMEMBERED_CONTENTS = 1024
"""Contents whose takers are kept; the least recently served is forgotten first."""
RETRY_AFTER = timedelta(milliseconds=200)


@dataclass(slots=True)
class Turn:
    """One chunk to send now."""

    index: int
    """Which; -1 when nothing that was wanted is held."""
    sent_bytes: int = 0
    """To be set once all of it went out; a turn that ends without counts as not sent."""


class UploadTurns:
    """Chunk requests of all takers and both ways of serving, one queue: see `swarm.uploads`."""

    def __init__(self, queue: UploadQueue, held: Callable[[ContentId], ChunkSet | None], clock: Clock) -> None:
        """held: as `ContentStore.held`."""
        self._queue = queue
        self._held = held
        self._clock = clock
        self._waiting: dict[int, asyncio.Future[UploadRequest]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def active_count(self) -> int:
        """Chunks being sent."""
        return self._queue.served_count

    @property
    def waiting_count(self) -> int:
        """Requests that wait for their turn."""
        return self._queue.waiting_count

    @asynccontextmanager
    async def turn(
        self, content_id: ContentId, candidates: int, taker: str, size_bytes: int, *, host: str = ""
    ) -> AsyncGenerator[Turn, None]:
        """Waits for its turn, which lasts to the end of the block. size_bytes: of the largest chunk wanted.

        Raises BusyError at once when too many wait already, in all or of that host.
        """
        request_id = self._queue.ask(content_id, candidates, taker, size_bytes, self._clock.monotonic(), host=host)
        if request_id is None:
            raise BusyError("too many requests wait here", retry_after=RETRY_AFTER)
        turn = Turn(-1)
        granted = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        try:
            self._give_turns()
            turn.index = (await granted).index
            yield turn
        finally:
            self._waiting.pop(request_id, None)
            self._queue.ended(request_id, self._clock.monotonic(), sent_bytes=turn.sent_bytes)
            self._give_turns()

    def _give_turns(self) -> None:
        now = self._clock.monotonic()
        while (request := self._queue.next(self._held_bits, now)) is not None:
            granted = self._waiting.pop(request.request_id, None)
            if granted is None or granted.done():
                self._queue.ended(request.request_id, now, sent_bytes=0)
            else:
                granted.set_result(request)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue.wakeup_at is not None:
            delay = max(0.0, self._queue.wakeup_at - now)
            self._timer = asyncio.get_running_loop().call_later(delay, self._give_turns)

    def _held_bits(self, content_id: ContentId) -> int:
        held = self._held(content_id)
        return 0 if held is None else held.bits

    def close(self) -> None:
        """Lets go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class UploadSlots:
    """How many chunk streams are served at once, in all and to each host."""

    def __init__(self, limit: int, retry_after: timedelta = RETRY_AFTER) -> None:
        self._shares = Shares("upload slots", limit, retry_after=retry_after)

    @property
    def active_count(self) -> int:
        """Slots that are taken."""
        return self._shares.taken_count

    def taken(self, host: str) -> AbstractContextManager[None]:
        """A slot for the length of the block. Raises BusyError at once when there is none."""
        return self._shares.taken(host)


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
