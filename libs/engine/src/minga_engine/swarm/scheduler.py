"""Which chunk from which peer: facts in, deeds out. No sockets, clocks or disks.

Invariants, which `validate` checks in tests: a chunk that is held is not asked for; a source is asked only for what it
has; at most two requests can bring one chunk, and the second is a hedge; a missing chunk that a usable source with a
free slot has is asked for; bytes in flight keep to the bound.
"""

import math
import random
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from minga_core.chunks import ChunkSet, Geometry
from minga_core.ids import PeerId
from minga_engine.swarm import events as ev
from minga_engine.swarm.config import SwarmConfig
from minga_engine.swarm.policies import chunk_policy, sample_bits, source_policy
from minga_engine.swarm.requests import Request, RequestTable
from minga_engine.swarm.sources import Rate, Source

SECONDS_INTERVAL = 0.05
"""How often, at most, second requests are thought of, in seconds: it costs as many comparisons as there are requests
times sources."""


@dataclass(frozen=True, slots=True)
class SwarmSnapshot:
    """The swarm at one instant, for progress and explanations."""

    known_sources: int
    connected_sources: int
    barred_sources: int
    outstanding: int
    hedges: int
    """Second requests made for one chunk, so far."""
    duplicates: int
    """Chunks that came twice, so far."""
    corrupt: int
    """Wrong chunks, so far."""
    bytes_by_source: dict[PeerId, int]
    waiting_since: float | None
    """Since when no source offers a missing chunk; None while one does."""


class Scheduler:
    """Schedules the download of one content. `held`: chunks there already; it is copied."""

    def __init__(
        self,
        geometry: Geometry,
        held: ChunkSet,
        config: SwarmConfig | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._geometry = geometry
        self._count = geometry.chunk_count
        self._chunk_bytes = geometry.chunk_size_bytes
        self._config = config or SwarmConfig()
        self._rng = rng or random.Random()  # noqa: S311 - spreading, not secrets
        self._all = (1 << self._count) - 1
        self._held = held.bits
        self._held_count = len(held)
        self._sources: dict[PeerId, Source] = {}
        self._connected: dict[PeerId, Source] = {}
        self._requests = RequestTable()
        self._total_window = self._config.min_total
        self._offering_count = 0
        self._shifted = False
        """Whether the event at hand changed which chunks only complete sources have, or which sources are complete."""
        self._seconds_at = -math.inf
        self._rarity = array("I", bytes(4 * self._count))
        self._spread = 0
        """Bitmap of the chunks that some partial source has."""
        self._chunk_policy = chunk_policy(self._config.chunk_policy, self._config.random_first_chunks)
        self._source_policy = source_policy(self._config.source_policy)
        self._out: list[ev.Instruction] = []
        self._found_at = -math.inf
        self._replaced_at = 0.0
        self._waiting_since: float | None = None
        self._finished_told = False
        self._hedges = self._duplicates = self._corrupt = 0
        self.wakeup_at: float | None = None
        """Monotonic seconds at which a Tick is due at the latest; None: only events matter."""
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.SourceFound: self._source_found,
            ev.SourceHolds: self._source_holds,
            ev.SourceLost: self._source_lost,
            ev.ChunkChosen: self._chunk_chosen,
            ev.BytesReceived: self._bytes_received,
            ev.ChunkArrived: self._chunk_arrived,
            ev.ChunkCorrupt: self._chunk_corrupt,
            ev.RequestFailed: self._request_failed,
            ev.Tick: lambda event, now: None,
        }

    # What others see.

    @property
    def held(self) -> ChunkSet:
        """The chunks that are there (a copy)."""
        return ChunkSet.from_bits(self._count, self._held)

    @property
    def held_count(self) -> int:
        """How many chunks are there."""
        return self._held_count

    @property
    def finished(self) -> bool:
        """Whether every chunk is there."""
        return self._held == self._all

    def snapshot(self) -> SwarmSnapshot:
        """The swarm now."""
        sources = self._sources.values()
        return SwarmSnapshot(
            known_sources=len(self._sources),
            connected_sources=len(self._connected),
            barred_sources=sum(source.barred_until == math.inf for source in sources),
            outstanding=len(self._requests),
            hedges=self._hedges,
            duplicates=self._duplicates,
            corrupt=self._corrupt,
            bytes_by_source={source.peer_id: source.received_bytes for source in sources if source.received_bytes},
            waiting_since=self._waiting_since,
        )

    def handle(self, event: ev.Event, now: float) -> list[ev.Instruction]:
        """Takes a fact and gives the deeds that follow from it. now: monotonic seconds, never going back."""
        self._out, self._shifted = [], False
        self._handlers[type(event)](event, now)
        if self.finished:
            self._finish()
        elif self._matters(event, now) or now >= (self.wakeup_at or 0):
            self._plan(now)
        return self._out

    def _matters(self, event: ev.Event, now: float) -> bool:
        """Whether there may be something to do that there was not before. Planning is the dear part of an event, and
        most are bytes that came, or news from a source whose hands are full."""
        if isinstance(event, ev.BytesReceived):
            return False
        if isinstance(event, ev.SourceHolds):
            source = self._connected.get(event.source)
            return self._shifted or (source is not None and self._has_slot(source, now))
        return True

    # Facts.

    def _source_found(self, event: ev.SourceFound, now: float) -> None:
        source = self._sources.get(event.source)
        if source is None:
            rate = Rate(self._config.rate_memory_seconds)
            source = self._sources[event.source] = Source(event.source, event.complete, event.same_zone, rate)
        source.same_zone = event.same_zone
        if event.complete:
            self._now_complete(source)

    def _source_holds(self, event: ev.SourceHolds, now: float) -> None:
        source = self._connected.get(event.source)
        if source is None:
            return
        source.losses = 0
        if event.chunks.bits == self._all:
            self._now_complete(source)
            return
        if event.snapshot:
            if source.complete:
                # It was said to have everything, and has not: from here on its chunks count in rarity.
                source.complete, source.bits, self._shifted = False, 0, True
            self._set_bits(source, event.chunks.bits)
        else:
            self._set_bits(source, source.bits | event.chunks.bits)
        if source.bits == self._all:
            self._now_complete(source)

    def _source_lost(self, event: ev.SourceLost, now: float) -> None:
        source = self._connected.get(event.source)
        if source is not None:
            self._lose(source, now, ev.DropReason.CONNECTION_LOST)

    def _chunk_chosen(self, event: ev.ChunkChosen, now: float) -> None:
        request = self._requests.get(event.request_id)
        if request is None:
            return
        if not request.candidates >> event.index & 1:
            self._bar_for_good(request.source)
            return
        self._sources[request.source].wait_seconds = now - request.started
        taken = (self._held | (self._requests.claimed if request.open else 0)) >> event.index & 1
        self._requests.narrow(request, event.index)
        self._sources[request.source].last_progress = now
        if taken:
            self._cancel(request)

    def _bytes_received(self, event: ev.BytesReceived, now: float) -> None:
        request = self._requests.get(event.request_id)
        if request is None:
            return
        request.received_bytes += event.count
        source = self._sources[request.source]
        source.last_progress = now
        source.rate.add(event.count, now)

    def _chunk_arrived(self, event: ev.ChunkArrived, now: float) -> None:
        request = self._end(event.request_id, now)
        if request is not None:
            source = self._sources[request.source]
            source.last_progress = now
            source.losses = 0
            source.received_bytes += event.size_bytes
        bit = 1 << event.index
        if self._held & bit:
            self._duplicates += 1
            return
        self._held |= bit
        self._held_count += 1
        for other in self._requests.of_chunk(event.index):
            self._cancel(other)

    def _chunk_corrupt(self, event: ev.ChunkCorrupt, now: float) -> None:
        request = self._end(event.request_id, now)
        if request is not None:
            self._corrupt += 1
            self._bar_for_good(request.source)

    def _request_failed(self, event: ev.RequestFailed, now: float) -> None:
        request = self._end(event.request_id, now)
        if request is None:
            return
        source = self._sources[request.source]
        match event.reason:
            case ev.FailureReason.BUSY:
                source.busy_until = max(source.busy_until, now + event.retry_after_seconds)
                source.last_progress = now
            case ev.FailureReason.NOTHING_WANTED if not source.complete:
                self._set_bits(source, source.bits & ~request.candidates)
            case ev.FailureReason.LOST:
                self._lose(source, now, ev.DropReason.REQUEST_LOST)
            case _:
                self._drop(source, now + self._config.stall_bar_seconds, ev.DropReason[event.reason.name])

    # Sources.

    def _now_complete(self, source: Source) -> None:
        """Complete sources are not counted in rarity: they have every chunk alike."""
        if not source.complete:
            self._set_bits(source, 0)
            self._shifted = True
        source.complete = True
        source.bits = self._all

    def _set_bits(self, source: Source, bits: int) -> None:
        """What a partial source has; keeps the rarity counts."""
        if source.complete:
            source.bits = bits
            return
        before = self._spread
        for index in _members(bits & ~source.bits):
            self._rarity[index] += 1
        for index in _members(source.bits & ~bits):
            self._rarity[index] -= 1
            if not self._rarity[index]:
                self._spread &= ~(1 << index)
        self._spread |= bits
        self._shifted |= self._spread != before
        source.bits = bits

    def _lose(self, source: Source, now: float, why: ev.DropReason) -> None:
        bar = self._config.lost_bar_seconds * 2 ** min(source.losses, 10)
        source.losses += 1
        self._drop(source, now + min(bar, self._config.max_lost_bar_seconds), why)

    def _bar_for_good(self, peer_id: PeerId) -> None:
        self._drop(self._sources[peer_id], math.inf, ev.DropReason.WRONG_CHUNK)

    def _drop(self, source: Source, barred_until: float, why: ev.DropReason) -> None:
        """Lets go of a source; what it was to send is free at once."""
        source.barred_until = max(source.barred_until, barred_until)
        for request_id in list(source.outstanding):
            request = self._requests.end(request_id)
            if request is not None:
                self._out.append(ev.CancelRequest(request_id))
        source.outstanding.clear()
        source.rate.idle(source.last_progress)
        if self._connected.pop(source.peer_id, None) is not None:
            source.connected = False
            self._out.append(ev.DropSource(source.peer_id, why))

    def _connect_sources(self, now: float) -> None:
        room = self._config.max_sources - len(self._connected)
        if room <= 0:
            return
        reserve = [source for source in self._sources.values() if not source.connected and source.barred_until <= now]
        for source in self._source_policy.order(reserve, self._rng)[:room]:
            source.connected = True
            source.last_progress = now
            self._connected[source.peer_id] = source
            self._out.append(ev.ConnectSource(source.peer_id))

    def _drop_stalled(self, now: float) -> None:
        for source in list(self._connected.values()):
            if source.outstanding and now - source.last_progress >= self._config.stall_seconds:
                self._drop(source, now + self._config.stall_bar_seconds, ev.DropReason.NO_PROGRESS)

    def _replace_slowest(self, now: float) -> None:
        """Exchanges a source much slower than the others for one in reserve."""
        full = len(self._connected) >= self._config.max_sources
        if not full or now - self._replaced_at < self._config.replace_interval_seconds:
            return
        self._replaced_at = now
        if not any(not source.connected and source.barred_until <= now for source in self._sources.values()):
            return
        measured = sorted(self._connected.values(), key=lambda source: source.rate.value)
        slowest, median = measured[0], measured[len(measured) // 2]
        if slowest.rate.value < self._config.replace_below_share * median.rate.value:
            self._drop(slowest, now + self._config.stall_bar_seconds, ev.DropReason.SLOW)

    # Planning.

    def _plan(self, now: float) -> None:
        self._measure_window()
        self._drop_stalled(now)
        self._replace_slowest(now)
        self._connect_sources(now)
        self._fill(now)
        self._find_sources(now)
        self._set_wakeup(now)

    def _fill(self, now: float) -> None:
        """Gives every free slot something to do: fresh chunks first, one a source and round, then second requests."""
        free = [source for source in self._connected.values() if self._has_slot(source, now)]
        self._rng.shuffle(free)
        while free:
            free = [source for source in free if self._request_fresh(source, now)]
            free = [source for source in free if self._has_slot(source, now)]
        if now >= self._seconds_at:
            self._seconds_at = now + SECONDS_INTERVAL
            self._fill_with_seconds([source for source in self._connected.values() if self._has_slot(source, now)], now)

    def _fill_with_seconds(self, idle: list[Source], now: float) -> None:
        """Asks sources with nothing else to do for chunks that others are late with."""
        if not idle or not len(self._requests):
            return
        hedged = 0
        for request in self._requests.all():
            hedged |= request.candidates if request.hedge else 0
        single = [request for request in self._requests.all() if not request.hedge and not request.candidates & hedged]
        for source in idle:
            late = [request for request in single if self._is_late(request, source, now)]
            while late and self._has_slot(source, now):
                request = late.pop(0)
                if self._request_second(source, request, now):
                    single.remove(request)

    def _has_slot(self, source: Source, now: float) -> bool:
        if not source.usable(now) or len(source.outstanding) >= self._window(source):
            return False
        if len(self._requests) >= self._total_window:
            return False
        in_flight = self._requests.outstanding_bytes
        return in_flight == 0 or in_flight + self._chunk_bytes <= self._config.max_outstanding_bytes

    def _measure_window(self) -> None:
        """How many requests there may be in all: some seconds of the measured rate, whoever it comes from."""
        rate = sum(source.rate.value for source in self._connected.values() if source.outstanding)
        self._total_window = max(
            self._config.min_total, math.ceil(rate * self._config.total_seconds / self._chunk_bytes)
        )

    def _window(self, source: Source) -> int:
        """How many requests a source may have. One, where requests wait for their turn: others claim no chunks then."""
        if source.wait_seconds > self._config.prompt_seconds:
            return 1
        return max(1, self._config.max_outstanding // len(self._connected))

    def _request_fresh(self, source: Source, now: float) -> bool:
        """Asks for chunks that nobody is to send; false when the source has none of those."""
        if unseen := self._unseen(source):
            self._ask(source, unseen, now, open_=True)
            return True
        available = self._unclaimed(source)
        if not available:
            return False
        slots = max(1, sum(self._window(other) for other in self._connected.values()))
        share = available.bit_count() // slots
        count = max(1, min(share, self._config.max_candidates))
        picked = self._chunk_policy.pick(available, count, self._rarity, self._held_count, self._rng)
        self._ask(source, _bits_of(picked), now)
        return True

    def _unseen(self, source: Source) -> int:
        """Chunks that no partial source has, for a complete source to choose among; 0 when enough requests do so.

        The source gives each downloader another one, so nothing is claimed: whatever of them turns up at a partial
        source meanwhile can be asked for there.
        """
        if not source.complete:
            return 0
        unseen = source.bits & ~self._held & ~self._requests.claimed & ~self._spread & self._part_of(source)
        asking = sum(request.open and bool(request.candidates & unseen) for request in self._requests.all())
        return unseen if unseen.bit_count() > asking else 0

    def _unclaimed(self, source: Source) -> int:
        """Chunks that the source has and nobody is to send; not those that complete sources choose among."""
        taken = self._held | self._requests.claimed
        for request in self._requests.all():
            taken |= request.candidates & ~self._spread if request.open else 0
        return source.bits & ~taken

    def _part_of(self, source: Source) -> int:
        """The chunks that this one of the complete sources is asked for while no partial source has them."""
        complete = [other.peer_id for other in self._connected.values() if other.complete]
        return every_nth(self._count, len(complete), complete.index(source.peer_id))

    def _request_second(self, source: Source, request: Request, now: float) -> bool:
        """Asks for one of the chunks that a late request may bring; false when the source has none of them."""
        index = next(sample_bits(request.candidates & source.bits & ~self._held, 1, self._rng), None)
        if index is None:
            return False
        self._hedges += 1
        self._ask(source, 1 << index, now, hedge=True)
        return True

    def _is_late(self, request: Request, source: Source, now: float) -> bool:
        """Whether a second request makes sense: overdue, or much slower than `source`, which has nothing else to do."""
        if request.source == source.peer_id:
            return False
        if now >= request.deadline:
            return True
        if source.rate.value <= 0 or not request.chosen:
            return False
        own_seconds = (len(source.outstanding) + 1) * request.size_bytes / source.rate.value
        at_the_end = self._count - self._held_count <= min(self._config.end_chunks, self._count // 16)
        factor = self._config.end_second_request_factor if at_the_end else self._config.second_request_factor
        return own_seconds * factor < self._expected_end(request, now) - now

    def _expected_end(self, request: Request, now: float) -> float:
        """When a request will be done: by how it goes or, while nothing came, by its source's rate."""
        if request.received_bytes:
            return request.expected_end(now)
        source = self._sources[request.source]
        if source.rate.value <= 0:
            return request.deadline
        # It waits for its turn behind the source's other requests.
        return now + len(source.outstanding) * request.size_bytes / source.rate.value

    def _ask(self, source: Source, candidates: int, now: float, *, hedge: bool = False, open_: bool = False) -> None:
        first = (candidates & -candidates).bit_length() - 1
        size_bytes = self._geometry.length(first)
        deadline = now + self._deadline_seconds(source, size_bytes)
        request = self._requests.add(
            Request(source.peer_id, candidates, size_bytes, now, deadline, hedge=hedge, open=open_)
        )
        if not source.outstanding:
            source.last_progress = now
            source.rate.begin(now)
        source.outstanding.add(request.request_id)
        wanted = tuple(_members(candidates))
        self._out.append(ev.RequestChunk(request.request_id, source.peer_id, wanted, hedge=hedge))

    def _deadline_seconds(self, source: Source, size_bytes: int) -> float:
        if source.rate.value <= 0:
            return self._config.unknown_rate_deadline_seconds
        expected = (len(source.outstanding) + 1) * size_bytes / source.rate.value
        return max(self._config.min_deadline_seconds, self._config.deadline_factor * expected)

    def _end(self, request_id: int, now: float) -> Request | None:
        """Forgets a request that ended by itself."""
        if self._requests.get(request_id) is None:
            return None
        request = self._requests.end(request_id)
        if request is not None:
            source = self._sources[request.source]
            source.outstanding.discard(request_id)
            if not source.outstanding:
                source.rate.idle(now)
        return request

    def _cancel(self, request: Request) -> None:
        self._requests.end(request.request_id)
        self._sources[request.source].outstanding.discard(request.request_id)
        self._out.append(ev.CancelRequest(request.request_id))

    def _find_sources(self, now: float) -> None:
        missing = self._all & ~self._held
        self._offering_count = sum(
            source.barred_until <= now and bool(source.bits & missing) for source in self._sources.values()
        )
        if self._offering_count or len(self._requests):
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        if now >= self._find_due(self._offering_count):
            self._found_at = now
            self._out.append(ev.FindSources())

    def _find_due(self, offering_count: int) -> float:
        few = offering_count < self._config.few_sources
        wait = self._config.find_sources_interval_seconds if few else self._config.refresh_sources_interval_seconds
        if self._found_at == -math.inf:
            return -math.inf if offering_count == 0 else self._first_find(wait)
        return self._found_at + wait

    def _first_find(self, wait: float) -> float:
        """Sources came with the start: the directory has just been asked."""
        self._found_at = max(source.last_progress for source in self._sources.values())
        return self._found_at + wait

    def _set_wakeup(self, now: float) -> None:
        soonest = max(now, self._find_due(self._offering_count))
        for request in self._requests.all():
            if now < request.deadline < soonest:
                soonest = request.deadline
        for source in self._sources.values():
            if source.outstanding:
                soonest = min(soonest, source.last_progress + self._config.stall_seconds)
            if now < source.barred_until < soonest:
                soonest = source.barred_until
            if now < source.busy_until < soonest:
                soonest = source.busy_until
        # Overdue chunks wait for a source with a free slot; that comes with an event.
        self.wakeup_at = max(now + 0.01, soonest)

    def _finish(self) -> None:
        for request in self._requests.all():
            self._cancel(request)
        self.wakeup_at = None
        self._waiting_since = None
        if not self._finished_told:
            self._finished_told = True
            self._out.append(ev.Finished())

    def validate(self, now: float) -> None:
        """Raises AssertionError when an invariant is broken; for tests."""
        claimed = 0
        for request in self._requests.all():
            source = self._sources[request.source]
            assert source.connected, "requests go to connected sources"  # noqa: S101
            assert request.request_id in source.outstanding, "a source knows its requests"  # noqa: S101
            assert not request.chosen or not request.candidates & self._held, "a held chunk is in flight"  # noqa: S101
            assert request.hedge or not request.claims & claimed, "two sources are asked for one chunk"  # noqa: S101
            claimed |= 0 if request.hedge else request.claims
        for source in self._connected.values():
            fresh = self._unseen(source) or self._unclaimed(source)
            assert not (fresh and self._has_slot(source, now)), "a free slot has nothing to do"  # noqa: S101


@cache
def every_nth(count: int, step: int, first: int) -> int:
    """Bitmap of the chunks first, first + step, … of `count`."""
    return sum(1 << index for index in range(first, count, step))


def _bits_of(indexes: Iterable[int]) -> int:
    bits = 0
    for index in indexes:
        bits |= 1 << index
    return bits


def _members(bits: int) -> list[int]:
    """Indexes of the bits that are set, ascending."""
    found = []
    while bits:
        found.append((bits & -bits).bit_length() - 1)
        bits &= bits - 1
    return found
