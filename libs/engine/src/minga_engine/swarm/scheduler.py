"""Which chunk from which peer: events in, actions out. No sockets, clocks or disks.

Invariants, which `validate` checks in tests: a chunk that is held is not requested; a source is asked only for what it
has; at most two requests can bring one chunk, and the second is a hedge; a missing chunk that a usable source with a
free slot has is requested if it is wanted; bytes in flight keep to the bound, but for one chunk that each reader waits
for.
"""

import math
import random
from collections.abc import Callable
from typing import Any

from minga_core.chunks import ChunkSet, Geometry
from minga_core.ids import PeerId
from minga_engine.swarm import events as ev
from minga_engine.swarm.choosing import order_sources
from minga_engine.swarm.config import SwarmConfig
from minga_engine.swarm.planning import Planner
from minga_engine.swarm.state import Rate, Request, Source, SwarmState

LOOK_SECONDS = 0.2
"""How often, at most, a chunk that is chosen or arrives is a reason to look at all sources and requests, and to set the
time of the next look: each costs as much as there are of them."""
_ROUTINE = (ev.ChunkChosen, ev.ChunkArrived, ev.SourceHolds)


class Scheduler:
    """Schedules the download of one content.

    held: chunks that are here already; it is copied. whole: whether every chunk is wanted; else only what readers want.
    contended: whether others download from the same sources, although none of them is known yet.
    """

    def __init__(
        self,
        geometry: Geometry,
        held: ChunkSet,
        config: SwarmConfig | None = None,
        rng: random.Random | None = None,
        *,
        whole: bool = True,
        contended: bool = False,
    ) -> None:
        self._config = config or SwarmConfig()
        self._rng = rng or random.Random()  # noqa: S311 - spreading, not secrets
        self._state = SwarmState(geometry, held, whole=whole, contended=contended)
        self._planner = Planner(self._state, self._config, self._rng)
        self._out: list[ev.Action] = []
        self._offering_count = 0
        self._found_at = -math.inf
        self._replaced_at = 0.0
        self._looked_at = -math.inf
        self._announced_finish = False
        self.waiting_since: float | None = None
        """Since when no source offers a missing chunk; None while one does. A source that comes back counts once it
        answers: one that cannot be reached would begin the wait anew with each attempt."""
        self.wakeup_at: float | None = None
        """Monotonic seconds at which a Tick is due at the latest; None: only events matter."""
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.SourceFound: self._source_found,
            ev.SourceMoved: self._source_moved,
            ev.SourceHolds: self._source_holds,
            ev.SourceLost: self._source_lost,
            ev.ChunkChosen: self._chunk_chosen,
            ev.BytesReceived: self._bytes_received,
            ev.ChunkArrived: self._chunk_arrived,
            ev.ChunkCorrupt: self._chunk_corrupt,
            ev.RequestFailed: self._request_failed,
            ev.ReaderMoved: self._reader_moved,
            ev.ReaderLeft: self._reader_left,
            ev.Tick: lambda event, now: None,
        }

    @property
    def held(self) -> ChunkSet:
        """The chunks that are here (a copy)."""
        return ChunkSet.from_bits(self._state.count, self._state.held)

    @property
    def held_count(self) -> int:
        """Number of chunks that are here."""
        return self._state.held_count

    @property
    def offered(self) -> ChunkSet:
        """The chunks that some connected source has (a copy)."""
        bits = 0
        for source in self._state.connected.values():
            bits |= source.bits
        return ChunkSet.from_bits(self._state.count, bits)

    @property
    def hedges(self) -> int:
        """Second requests made for one chunk, so far."""
        return self._planner.hedges

    @property
    def finished(self) -> bool:
        """Whether every chunk is here."""
        return self._state.finished

    def handle(self, event: ev.Event, now: float) -> list[ev.Action]:
        """Take an event; the actions that follow from it. now: monotonic seconds, never going back."""
        self._out, self._state.spread_changed = [], False
        self._handlers[type(event)](event, now)
        if self.finished:
            self._finish()
        elif self._may_act(event, now) or now >= (self.wakeup_at or 0):
            self._plan(event, now)
        return self._out

    def _may_act(self, event: ev.Event, now: float) -> bool:
        """Whether there may be something to do that there was not before. Planning is the expensive part of an event,
        and most are bytes that came, or availability updates without a chunk that can be requested now."""
        if isinstance(event, ev.BytesReceived):
            return False
        if isinstance(event, ev.SourceHolds) and not self._state.spread_changed:
            source = self._state.connected.get(event.source)
            return source is not None and self._planner.has_slot(source, now) and self._planner.offers_fresh(source)
        return True

    # Events.

    def _source_found(self, event: ev.SourceFound, now: float) -> None:
        source = self._state.sources.get(event.source)
        if source is None:
            rate = Rate(self._config.rate_memory_seconds)
            source = self._state.sources[event.source] = Source(event.source, event.complete, event.same_zone, rate)
        source.same_zone = event.same_zone
        if event.listed and self._given_up(source):
            source.banned_until, source.losses = now, 0
        source.listed |= event.listed
        if event.complete:
            self._state.set_complete(source)

    def _source_moved(self, event: ev.SourceMoved, now: float) -> None:
        source = self._state.sources.get(event.source)
        if source is None:
            return
        self._drop(source, now, ev.DropReason.CONNECTION_LOST)
        self._state.set_partial(source)
        self._state.set_bits(source, 0)
        source.banned_until, source.busy_until, source.losses = now, now, 0

    def _source_holds(self, event: ev.SourceHolds, now: float) -> None:
        source = self._state.connected.get(event.source)
        if source is None:
            return
        source.losses = 0
        bits = event.chunks.bits
        if event.snapshot and bits != self._state.all:
            self._state.set_partial(source)
        elif not event.snapshot:
            bits |= source.bits
        if bits == self._state.all:
            self._state.set_complete(source)
        else:
            self._state.set_bits(source, bits)

    def _source_lost(self, event: ev.SourceLost, now: float) -> None:
        source = self._state.connected.get(event.source)
        if source is not None:
            self._lose(source, now, ev.DropReason.CONNECTION_LOST)

    def _chunk_chosen(self, event: ev.ChunkChosen, now: float) -> None:
        request = self._state.requests.get(event.request_id)
        if request is None:
            return
        if not request.candidates >> event.index & 1:
            self._ban(request.source)
            return
        source = self._state.sources[request.source]
        source.wait_seconds = now - request.started
        source.last_progress = now
        claimed = self._state.held | (self._state.requests.claimed if request.open else 0)
        self._state.requests.narrow(request, event.index)
        if claimed >> event.index & 1:
            self._cancel(request)

    def _bytes_received(self, event: ev.BytesReceived, now: float) -> None:
        request = self._state.requests.get(event.request_id)
        if request is None:
            return
        self.waiting_since = None
        request.received_bytes += event.count
        source = self._state.sources[request.source]
        source.last_progress = now
        source.rate.add(event.count, now)

    def _chunk_arrived(self, event: ev.ChunkArrived, now: float) -> None:
        request = self._end(event.request_id, now)
        if request is not None:
            self.waiting_since = None
            source = self._state.sources[request.source]
            source.last_progress = now
            source.losses = 0
        if self._state.hold(event.index):
            for other in self._state.requests.of_chunk(event.index):
                self._cancel(other)

    def _chunk_corrupt(self, event: ev.ChunkCorrupt, now: float) -> None:
        request = self._end(event.request_id, now)
        if request is not None:
            self._ban(request.source)

    def _request_failed(self, event: ev.RequestFailed, now: float) -> None:
        request = self._end(event.request_id, now)
        if request is None:
            return
        source = self._state.sources[request.source]
        match event.reason:
            case ev.FailureReason.BUSY:
                self.waiting_since = None
                source.busy_until = max(source.busy_until, now + event.retry_after_seconds)
                source.last_progress = now
            case ev.FailureReason.NOTHING_WANTED if not source.complete:
                self._state.set_bits(source, source.bits & ~request.candidates)
            case ev.FailureReason.LOST:
                self._lose(source, now, ev.DropReason.REQUEST_LOST)
            case _:
                self._drop(source, now + self._config.stall_backoff_seconds, ev.DropReason[event.reason.name])

    # Readers.

    def _reader_moved(self, event: ev.ReaderMoved, now: float) -> None:
        self._state.move_reader(event.reader, event.start, event.stop, now, rest=event.rest)
        self._cancel_unwanted()

    def _reader_left(self, event: ev.ReaderLeft, now: float) -> None:
        self._state.move_reader(event.reader, 0, 0, now, rest=False)
        self._cancel_unwanted()

    def _cancel_unwanted(self) -> None:
        """Stop what only a reader wanted that is elsewhere by now."""
        missing = self._state.missing
        for request in self._state.requests.all():
            if not request.candidates & missing:
                self._cancel(request)

    # Sources.

    def _lose(self, source: Source, now: float, why: ev.DropReason) -> None:
        backoff = self._config.lost_backoff_seconds * 2 ** min(source.losses, 10)
        backoff = min(backoff, self._config.max_lost_backoff_seconds)
        if why is ev.DropReason.NO_PROGRESS:
            backoff = self._config.stall_backoff_seconds
        source.losses += 1
        self._drop(source, math.inf if self._given_up(source) else now + backoff, why)

    def _given_up(self, source: Source) -> bool:
        return not source.listed and source.losses >= self._config.unlisted_losses

    def _ban(self, peer_id: PeerId) -> None:
        self._drop(self._state.sources[peer_id], math.inf, ev.DropReason.WRONG_CHUNK)

    def _drop(self, source: Source, banned_until: float, why: ev.DropReason) -> None:
        """Disconnect a source; the chunks that it was to send can be requested from others at once."""
        source.banned_until = max(source.banned_until, banned_until)
        for request_id in list(source.outstanding):
            if self._state.requests.end(request_id) is not None:
                self._out.append(ev.CancelRequest(request_id))
        source.outstanding.clear()
        source.rate.idle(source.last_progress)
        if self._state.connected.pop(source.peer_id, None) is not None:
            source.connected = False
            self._out.append(ev.DropSource(source.peer_id, why))

    def _reserve(self, now: float) -> list[Source]:
        return [source for source in self._state.sources.values() if source.in_reserve(now)]

    def _connect_sources(self, now: float) -> None:
        room = self._config.max_sources - len(self._state.connected)
        if room <= 0:
            return
        for source in order_sources(self._reserve(now), self._rng)[:room]:
            source.connected = True
            source.last_progress = now
            self._state.connected[source.peer_id] = source
            self._out.append(ev.ConnectSource(source.peer_id))

    def _drop_stalled(self, now: float) -> None:
        for source in list(self._state.connected.values()):
            if source.outstanding and now - source.last_progress >= self._config.stall_seconds:
                self._lose(source, now, ev.DropReason.NO_PROGRESS)

    def _replace_slowest(self, now: float) -> None:
        """Exchange a source much slower than the others for one in reserve."""
        full = len(self._state.connected) >= self._config.max_sources
        if not full or now - self._replaced_at < self._config.replace_interval_seconds:
            return
        self._replaced_at = now
        if not self._reserve(now):
            return
        by_rate = sorted(self._state.connected.values(), key=lambda source: source.rate.value)
        slowest, median = by_rate[0], by_rate[len(by_rate) // 2]
        if slowest.rate.value < self._config.replace_below_share * median.rate.value:
            self._drop(slowest, now + self._config.stall_backoff_seconds, ev.DropReason.SLOW)

    # Planning.

    def _plan(self, event: ev.Event, now: float) -> None:
        # Chunks that come and go change little about the sources.
        routine = isinstance(event, _ROUTINE) and len(self._state.requests) > 0
        if routine and self.wakeup_at is not None and now < min(self._looked_at + LOOK_SECONDS, self.wakeup_at):
            self._out += self._planner.fill(now)
            # No request that was made now is late before.
            self.wakeup_at = min(self.wakeup_at, now + self._config.min_deadline_seconds)
            return
        self._looked_at = now
        self._planner.measure_window()
        self._drop_stalled(now)
        self._replace_slowest(now)
        self._connect_sources(now)
        self._out += self._planner.fill(now)
        self._find_sources(now)
        self._set_wakeup(now)

    def _end(self, request_id: int, now: float) -> Request | None:
        """Remove a request that ended by itself."""
        request = self._state.requests.end(request_id)
        if request is not None:
            source = self._state.sources[request.source]
            source.outstanding.discard(request_id)
            if not source.outstanding:
                source.rate.idle(now)
        return request

    def _cancel(self, request: Request) -> None:
        self._state.requests.end(request.request_id)
        source = self._state.sources[request.source]
        source.outstanding.discard(request.request_id)
        if not source.outstanding:
            source.rate.idle(source.last_progress)
        self._out.append(ev.CancelRequest(request.request_id))

    def _find_sources(self, now: float) -> None:
        missing = self._state.missing
        if not missing:
            self.waiting_since = None
            return
        self._offering_count = sum(
            source.banned_until <= now and bool(source.bits & missing) for source in self._state.sources.values()
        )
        offered = self._offering_count or len(self._state.requests)
        if self.waiting_since is None and not offered:
            self.waiting_since = now
        if now >= self._find_due():
            self._found_at = now
            self._out.append(ev.FindSources())

    def _find_due(self) -> float:
        few = self._offering_count < self._config.few_sources
        wait = self._config.find_sources_interval_seconds if few else self._config.refresh_sources_interval_seconds
        if self._found_at == -math.inf and self._offering_count:
            # Sources came with the start: the directory has just been asked.
            self._found_at = max(source.last_progress for source in self._state.sources.values())
        return self._found_at + wait

    def _set_wakeup(self, now: float) -> None:
        if not self._state.missing:
            self.wakeup_at = None
            return
        soonest = max(now, self._find_due())
        for request in self._state.requests.all():
            if now < request.deadline < soonest:
                soonest = request.deadline
        for source in self._state.sources.values():
            if source.outstanding:
                soonest = min(soonest, source.last_progress + self._config.stall_seconds)
            if now < source.banned_until < soonest:
                soonest = source.banned_until
            if now < source.busy_until < soonest:
                soonest = source.busy_until
        # Overdue chunks wait for a source with a free slot; that comes with an event.
        self.wakeup_at = max(now + 0.01, soonest)

    def _finish(self) -> None:
        for request in self._state.requests.all():
            self._cancel(request)
        self.wakeup_at = None
        self.waiting_since = None
        if not self._announced_finish:
            self._announced_finish = True
            self._out.append(ev.Finished())

    def validate(self, now: float) -> None:
        """Raises AssertionError when an invariant is broken; for tests."""
        claimed = 0
        for request in self._state.requests.all():
            source = self._state.sources[request.source]
            assert source.connected, "requests go to connected sources"  # noqa: S101
            assert request.request_id in source.outstanding, "a source knows its requests"  # noqa: S101
            held = request.chosen and request.candidates & self._state.held
            assert not held, "a held chunk is in flight"  # noqa: S101
            assert request.hedge or not request.claims & claimed, "two sources are asked for one chunk"  # noqa: S101
            claimed |= 0 if request.hedge else request.claims
            assert request.candidates & self._state.missing, "nobody wants what is requested"  # noqa: S101
        for source in self._state.connected.values():
            idle = self._planner.has_slot(source, now) and self._planner.offers_fresh(source)
            assert not idle, "a free slot has nothing to do"  # noqa: S101
