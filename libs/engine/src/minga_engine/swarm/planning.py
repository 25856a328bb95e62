"""What to request next: what is read soon, fresh chunks for every free slot, second requests (hedges) for late ones."""

import math
import random
from functools import lru_cache

from minga_core.chunks import ChunkSet
from minga_engine.swarm import events as ev
from minga_engine.swarm.choosing import random_member, rarest_chunks, sample_bits
from minga_engine.swarm.config import SwarmConfig
from minga_engine.swarm.state import Request, Source, SwarmState, Window, bitmap_of, members

HEDGE_INTERVAL_SECONDS = 0.05
"""How often, at most, hedges are considered: it costs as many comparisons as there are requests times sources."""

OPEN_CANDIDATES = 4096
"""Chunks among which a complete source may choose: 64 GiB of the largest. Each costs time with every request."""

READING_CANDIDATES = 64
"""As OPEN_CANDIDATES, for what is read: enough for a source to give each reader another one."""


class Planner:
    """Fills the slots of connected sources with requests."""

    def __init__(self, state: SwarmState, config: SwarmConfig, rng: random.Random) -> None:
        self._state = state
        self._config = config
        self._rng = rng
        self._max_requests = config.min_total
        self._hedged_at = -math.inf
        self._actions: list[ev.Action] = []
        self.hedges = 0
        """Second requests made for one chunk, so far."""

    def measure_window(self) -> None:
        """Set how many requests there may be in all: some seconds of the measured rate of all sources together."""
        rate = sum(source.rate.value for source in self._state.connected.values() if source.outstanding)
        ahead = math.ceil(rate * self._config.total_seconds / self._state.geometry.chunk_size_bytes)
        self._max_requests = max(self._config.min_total, ahead)

    def has_slot(self, source: Source, now: float, more: int = 0) -> bool:
        """Whether the source may get another request now. more: how many beyond its share."""
        if len(source.outstanding) >= self._window(source) + more or not source.usable(now):
            return False
        return more > 0 or self._has_room()

    def _has_room(self) -> bool:
        """Whether all sources together may get another request."""
        requests = self._state.requests
        if len(requests) >= self._max_requests:
            return False
        in_flight = requests.outstanding_bytes
        chunk_bytes = self._state.geometry.chunk_size_bytes
        return in_flight == 0 or in_flight + chunk_bytes <= self._config.max_outstanding_bytes

    def _window(self, source: Source) -> int:
        """How many requests a source may have. One, where requests have to wait: more would claim chunks for longer."""
        return 1 if source.wait_seconds > self._config.prompt_seconds else self._share()

    def _share(self) -> int:
        """How many requests a source may have that serves promptly."""
        return max(1, self._config.max_outstanding // max(1, len(self._state.connected)))

    def fill(self, now: float) -> list[ev.Action]:
        """Requests for every free slot: what readers want, other fresh chunks, one a source and round, then hedges."""
        self._actions = []
        if self._state.readers:
            self._fill_windows(now)
        free = self._with_slot(now) if self._state.rest_wanted else []
        if len(free) > 1:
            self._rng.shuffle(free)
        while free:
            free = [source for source in free if self._request_fresh(source, now)]
            free = [source for source in free if self.has_slot(source, now)]
        if now >= self._hedged_at + HEDGE_INTERVAL_SECONDS:
            self._hedged_at = now
            self._fill_with_hedges(self._with_slot(now), now)
        return self._actions

    def _with_slot(self, now: float) -> list[Source]:
        if not self._has_room():
            return []
        prompt = self._config.prompt_seconds
        # Most have their one request, which needs no call to be seen: this runs for each chunk and each source.
        return [
            source
            for source in self._state.connected.values()
            if (not source.outstanding or source.wait_seconds <= prompt) and self.has_slot(source, now)
        ]

    # Chunks that are about to be read.

    def _fill_windows(self, now: float) -> None:
        """Request the chunks of all windows, the one that is nearest to its reader first, from the source that should
        have sent it first."""
        for window in self._state.readers.values():
            self._request_awaited(window, now)
        free = self._with_slot(now)
        while free:
            nearest = min((found for source in free if (found := self._nearest(source)) is not None), default=None)
            if nearest is None:
                return
            offering = [source for source in free if self._unrequested(source) >> nearest[1] & 1]
            self._request(min(offering, key=self._expected_seconds), 1 << nearest[1], now)
            free = [source for source in free if self.has_slot(source, now)]

    def _request_awaited(self, window: Window, now: float) -> None:
        """Request the chunk that a reader waits for, whatever else its source is asked for; again where it is late."""
        awaited = _first_of(window.bits) & ~self._state.held
        if not awaited:
            return
        patient = now - window.since < self._patience()
        offering = [source for source in self._state.connected.values() if source.bits & awaited]
        sources = [source for source in offering if not patient or not self._chooses(source)]
        asked = self._state.requests.of_chunk(awaited.bit_length() - 1)
        if not asked:
            if free := [source for source in sources if self.has_slot(source, now, more=1)]:
                claimed = bool(self._state.requests.claimed & awaited)
                self._request(min(free, key=self._expected_seconds), awaited, now, hedge=claimed)
        elif len(asked) == 1 and not asked[0].hedge:
            factor = self._config.end_hedge_factor
            free = [s for s in sources if self.has_slot(s, now, more=1) and self._is_late(asked[0], s, now, factor)]
            if free:
                self._request_hedge(min(free, key=self._expected_seconds), asked[0], now)

    def _patience(self) -> float:
        """How long a reader waits for its next chunk before it is asked of any source: what some chunks take."""
        config = self._config
        rate = sum(source.rate.value for source in self._state.connected.values() if source.outstanding)
        some_chunks = config.awaited_chunks * self._state.geometry.chunk_size_bytes / rate if rate else 0.0
        return min(max(config.awaited_seconds, some_chunks), config.max_awaited_seconds)

    def _nearest(self, source: Source) -> tuple[int, int] | None:
        """The least distance from a reader to a chunk of its window that the source has and no request is for, and that
        chunk."""
        found = None
        for window in self._state.readers.values():
            if bits := window.bits & self._unrequested(source):
                index = _first_of(bits).bit_length() - 1
                distance = index - _first_of(window.bits).bit_length() + 1
                found = min(found or (distance, index), (distance, index))
        return found

    def _unrequested(self, source: Source) -> int:
        """Chunks that the source is to send in their order, and no request is for."""
        if self._chooses(source):
            return 0
        return source.bits & ~self._state.held & ~self._state.requests.claimed

    def _chooses(self, source: Source) -> bool:
        """Whether a source is left to choose what it sends a reader: it is complete, or has what no other source has,
        and others download from it. If all who read had the same chunks of it, none of them could give any to another.
        """
        others = (not other.complete for other in self._state.connected.values() if other is not source)
        shared = self._state.contended or any(others)
        return shared and self._state.rest_wanted and (source.complete or bool(self._alone(source)))

    def _alone(self, source: Source) -> int:
        """Chunks that a partial source has and no other: of a peer that fetches the file meanwhile, what is new."""
        alone = 0 if source.complete else source.bits & ~self._state.held & ~self._state.shared
        return 0 if alone and any(other.complete for other in self._state.connected.values()) else alone

    def _expected_seconds(self, source: Source) -> float:
        """When a chunk that is requested now will be here, as far as can be said; a source that was never asked may be
        the best."""
        if math.isinf(source.wait_seconds) or source.rate.value <= 0:
            return self._config.prompt_seconds * len(source.outstanding)
        chunk_bytes = self._state.geometry.chunk_size_bytes
        return source.wait_seconds + (len(source.outstanding) + 1) * chunk_bytes / source.rate.value

    # Fresh chunks.

    def offers_fresh(self, source: Source) -> bool:
        """Whether the source has chunks that are wanted and no request is for."""
        if self._nearest(source) is not None:
            return True
        if self._state.readers and not self._chooses(source):
            return self._state.rest_wanted and bool(self._unrequested(source))
        return self._state.rest_wanted and bool(self._unseen(source) or self._unclaimed(source))

    def _request_fresh(self, source: Source, now: float) -> bool:
        """Request chunks that no other request is for; false when the source has none of those."""
        if self._state.readers and not self._chooses(source):
            return self._request_next(source, now)
        if unseen := self._unseen(source):
            self._request(source, self._open_candidates(unseen), now, open_=True)
            return True
        available = self._unclaimed(source)
        if not available:
            return False
        share, prompt = self._share(), self._config.prompt_seconds
        slots = sum(1 if other.wait_seconds > prompt else share for other in self._state.connected.values())
        count = max(1, min(available.bit_count() // slots, self._config.max_candidates))
        if self._state.held_count < self._config.random_first_chunks:
            picked = sample_bits(available, count, self._rng)
        else:
            picked = rarest_chunks(available, count, self._state, self._rng)
        self._request(source, bitmap_of(picked, self._state.count), now)
        return True

    def _request_next(self, source: Source, now: float) -> bool:
        """Request the chunk that is read next after all windows; false when the source has none of those."""
        available = self._unrequested(source)
        if available:
            self._request(source, _first_of(self._after_reader(available)), now)
        return bool(available)

    def _after_reader(self, bits: int) -> int:
        """Those of the chunks that the first reader comes to, or all of them when it comes to none."""
        first = next(iter(self._state.readers.values())).bits
        return bits & ~(_first_of(first) - 1) or bits

    def _unseen(self, source: Source) -> int:
        """Chunks that no other partial source has, for this one to choose among; 0 when enough requests do so.

        The source gives each downloader another one, so nothing is claimed: what appears at another source meanwhile
        can be requested there.
        """
        state = self._state
        if source.complete:
            unseen = source.bits & ~state.held & ~state.spread & self._share_of(source)
        else:
            unseen = self._alone(source)
        unseen &= ~state.requests.claimed
        if not unseen:
            return 0
        choosing = sum(request.open and bool(request.candidates & unseen) for request in state.requests.all())
        return unseen if unseen.bit_count() > choosing else 0

    def _open_candidates(self, unseen: int) -> int:
        """The chunks that a source may choose among: those that are read soonest, if there are readers."""
        if not self._state.readers:
            return _lowest(unseen)
        return bitmap_of(members(self._after_reader(unseen), READING_CANDIDATES), self._state.count)

    def _unclaimed(self, source: Source) -> int:
        """Chunks that the source has and no request is for; not those that others choose among."""
        complete = any(other.complete for other in self._state.connected.values())
        # Where there is no complete source, requests are open for what one partial source alone has.
        elsewhere = self._state.spread if complete else self._state.shared
        claimed = self._state.held | self._state.requests.claimed
        for request in self._state.requests.all():
            claimed |= request.candidates & ~elsewhere if request.open else 0
        return source.bits & ~claimed

    def _share_of(self, source: Source) -> int:
        """The chunks that this one of the complete sources is asked for while no partial source has them."""
        complete = [other.peer_id for other in self._state.connected.values() if other.complete]
        return _every_nth(self._state.count, len(complete), complete.index(source.peer_id))

    # Hedges.

    def _fill_with_hedges(self, idle: list[Source], now: float) -> None:
        """Request late chunks from sources that have nothing else to do."""
        requests = self._state.requests.all()
        if not idle or not requests:
            return
        hedged = 0
        for request in requests:
            hedged |= request.candidates if request.hedge else 0
        single = [request for request in requests if not request.hedge and not request.candidates & hedged]
        for source in idle:
            late = [request for request in single if self._is_late(request, source, now)]
            while late and self.has_slot(source, now):
                request = late.pop(0)
                if self._request_hedge(source, request, now):
                    single.remove(request)

    def _request_hedge(self, source: Source, late: Request, now: float) -> bool:
        """Request one of the chunks that a late request may bring; false when the source has none of them."""
        offered = late.candidates & source.bits & ~self._state.held
        if not offered:
            return False
        self.hedges += 1
        self._request(source, 1 << random_member(offered, self._rng), now, hedge=True)
        return True

    def _is_late(self, request: Request, source: Source, now: float, factor: float | None = None) -> bool:
        """Whether a hedge makes sense: overdue, or much slower than `source`. factor: how much slower."""
        if request.source == source.peer_id:
            return False
        if now >= request.deadline:
            return True
        if source.rate.value <= 0 or not request.chosen:
            return False
        own_seconds = (len(source.outstanding) + 1) * request.size_bytes / source.rate.value
        if factor is None:
            missing = self._state.count - self._state.held_count
            at_the_end = missing <= min(self._config.end_chunks, self._state.count // 16)
            factor = self._config.end_hedge_factor if at_the_end else self._config.hedge_factor
        return own_seconds * factor < self._expected_end(request, now) - now

    def _expected_end(self, request: Request, now: float) -> float:
        """When a request will be done: by its progress or, while nothing came, by its source's rate."""
        if request.received_bytes:
            return request.expected_end(now)
        source = self._state.sources[request.source]
        if source.rate.value <= 0:
            return request.deadline
        # It waits behind the source's other requests.
        return now + len(source.outstanding) * request.size_bytes / source.rate.value

    def _request(
        self, source: Source, candidates: int, now: float, *, hedge: bool = False, open_: bool = False
    ) -> None:
        # The last chunk alone may be shorter.
        size_bytes = self._state.geometry.length(_first_of(candidates).bit_length() - 1)
        deadline = now + self._deadline_seconds(source, size_bytes)
        request = self._state.requests.add(
            Request(source.peer_id, candidates, size_bytes, now, deadline, hedge=hedge, open=open_)
        )
        if not source.outstanding:
            source.last_progress = now
            source.rate.begin(now)
        source.outstanding.add(request.request_id)
        chunks = ChunkSet.from_bits(self._state.count, candidates)
        self._actions.append(ev.RequestChunk(request.request_id, source.peer_id, chunks, hedge=hedge))

    def _deadline_seconds(self, source: Source, size_bytes: int) -> float:
        if source.rate.value <= 0:
            return self._config.unknown_rate_deadline_seconds
        expected = (len(source.outstanding) + 1) * size_bytes / source.rate.value
        return max(self._config.min_deadline_seconds, self._config.deadline_factor * expected)


def _first_of(bits: int) -> int:
    """The lowest member of a bitmap, as a bitmap."""
    return bits & -bits


@lru_cache(maxsize=128)
def _every_nth(count: int, step: int, first: int) -> int:
    """Bitmap of the chunks first, first + step, … of `count`: a repunit in base 2 ** step."""
    digits = len(range(first, count, step))
    return ((1 << step * digits) - 1) // ((1 << step) - 1) << first


def _lowest(bits: int) -> int:
    """The lowest members of a bitmap, within OPEN_CANDIDATES of the first."""
    if bits.bit_length() <= OPEN_CANDIDATES:
        return bits
    first = _first_of(bits).bit_length() - 1
    return bits & ((1 << OPEN_CANDIDATES) - 1) << first
