"""Records one download and explains in the end where the bytes and the time went.

It sees the scheduler's events and instructions in the order in which they happen; it decides nothing, and costs a few
additions for each.
"""

from collections import deque
from dataclasses import dataclass, replace

from minga_core.chunks import Geometry
from minga_core.clock import Clock
from minga_core.ids import PeerId
from minga_engine.explanation import BEST_RATE_SECONDS, Explanation, Phase, SourceShare, WaitCause
from minga_engine.swarm import events as ev
from minga_runtime.rate_limit import RateLimit

SLOT_SECONDS = 0.1
"""Step by which the window of the best rate moves."""
PAUSE_SECONDS = 0.5
"""A shorter time without a byte is no pause."""
_NOT_RECORDED = (ev.SourceHolds, ev.Tick)
"""Events that change nothing here: what held before holds after them, and is counted with the next one."""


class TransferRecord:
    """What happens in one download. limit: the download limit that holds for it."""

    def __init__(self, clock: Clock, limit: RateLimit | None = None) -> None:
        self._clock = clock
        self._started = self._now = clock.monotonic()
        self._phase = Phase.LOCATING
        self._phase_seconds: dict[Phase, float] = {}
        self._geometry: Geometry | None = None
        self._sources: dict[PeerId, _Source] = {}
        self._requests: dict[int, _Request] = {}
        self._unfinished = 0
        """Requests with bytes still to come."""
        self._answering = 0
        """Of those, requests that their sources have begun to answer."""
        self._arrived: set[int] = set()
        self._duplicates = 0
        self._received_bytes = 0
        self._rate = _BestRate()
        self._limit = limit or RateLimit(None)
        self._pauses = _Pauses(self._limit)

    def begin(self, phase: Phase) -> None:
        """From now on, time goes into that phase. While fetching, `WAITING` is found out here."""
        self._advance()
        if self._phase is Phase.FETCHING:
            self._pauses.end(self._now, 0.0)
        self._phase = phase
        self._pauses.restart(self._now)

    def geometry(self, geometry: Geometry) -> None:
        """The chunks of the content, as soon as they are known."""
        self._geometry = geometry

    def event(self, event: ev.Event) -> None:
        """Record an event; call it before the scheduler handles it."""
        if isinstance(event, _NOT_RECORDED):
            return
        self._advance()
        match event:
            case ev.BytesReceived(request_id, count):
                self._bytes(request_id, count)
            case ev.ChunkChosen(request_id, index):
                self._chosen(request_id, index)
            case ev.ChunkArrived(request_id, index, size_bytes):
                self._arrival(request_id, index, size_bytes)
            case ev.RequestFailed(request_id, reason):
                self._failure(request_id, reason, event.retry_after_seconds)
            case ev.ChunkCorrupt(request_id):
                if (request := self._end(request_id)) is not None:
                    self._sources[request.source].share.corrupt_chunks += 1
            case ev.SourceFound(source):
                share = self._source(source).share
                share.complete |= event.complete
                share.same_zone = event.same_zone

    def instruction(self, instruction: ev.Action) -> None:
        """Record what the scheduler wants done; call it before it is carried out."""
        self._advance()
        match instruction:
            case ev.RequestChunk(request_id, source):
                self._requests[request_id] = _Request(source)
                self._unfinished += 1
                self._source(source).request(self._now)
            case ev.CancelRequest(request_id):
                self._end(request_id)
            case ev.ConnectSource(source):
                self._source(source).connected = True
            case ev.DropSource(source, why):
                found = self._source(source)
                found.connected = False
                found.share.drops[why] = found.share.drops.get(why, 0) + 1

    def explanation(self, *, resumed_bytes: int = 0, hedges: int = 0) -> Explanation:
        """The download so far. hedges: as the scheduler counted them."""
        self._advance()
        shares = [source.share_at(self._now) for source in self._sources.values() if source.asked]
        shares.sort(key=lambda share: (-share.received_bytes, -share.working_seconds))
        return Explanation(
            seconds=self._now - self._started,
            size_bytes=self._geometry.size_bytes if self._geometry else 0,
            resumed_bytes=resumed_bytes,
            wasted_bytes=max(0, self._received_bytes - sum(share.received_bytes for share in shares)),
            hedges=hedges,
            duplicates=self._duplicates,
            sources=tuple(shares),
            phase_seconds=dict(self._phase_seconds),
            waited_seconds=dict(self._pauses.seconds),
            longest_wait_seconds=self._pauses.longest_seconds,
            best_rate=self._rate.best(self._phase_seconds.get(Phase.FETCHING, 0.0), self._received_bytes),
            limit_rate=float(self._limit.bytes_per_second or 0),
        )

    def _advance(self) -> None:
        """Count the time since the last call: what held then held until now."""
        before, self._now = self._now, self._clock.monotonic()
        passed = self._now - before
        if passed <= 0:
            return
        phase = self._phase
        if phase is Phase.FETCHING:
            # Without a call for the common one: this runs several times for each chunk.
            cause = WaitCause.SILENCE if self._answering else self._cause(before)
            self._pauses.add(cause, passed)
            phase = Phase.WAITING if cause is WaitCause.NO_SOURCE else phase
        self._phase_seconds[phase] = self._phase_seconds.get(phase, 0.0) + passed

    def _cause(self, now: float) -> WaitCause:
        """What is waited for when no byte comes now, and none of the sources answers."""
        if self._requests:
            if not self._unfinished:
                return WaitCause.DISK
            return WaitCause.QUEUE
        connected = [source for source in self._sources.values() if source.connected]
        if not connected:
            return WaitCause.NO_SOURCE
        busy = all(source.busy_until > now for source in connected)
        return WaitCause.BUSY if busy else WaitCause.NOTHING_NEW

    def _source(self, peer_id: PeerId) -> "_Source":
        return self._sources.setdefault(peer_id, _Source(SourceShare(peer_id)))

    def _chosen(self, request_id: int, index: int) -> None:
        request = self._requests.get(request_id)
        if request is not None and self._geometry is not None and not request.size_bytes:
            request.size_bytes = self._geometry.length(index)
            self._answering += 1
            self._sources[request.source].begin_answer(self._now)

    def _bytes(self, request_id: int, count: int) -> None:
        request = self._requests.get(request_id)
        if request is None:
            return
        self._received_bytes += count
        self._pauses.end(self._now, 2 * count / self._rate.most if self._rate.most else 0.0)
        self._rate.add(count, self._now - self._started)
        before = request.whole
        request.received_bytes += count
        if request.whole and not before:
            self._unfinished -= 1
            self._answering -= 1
            self._sources[request.source].end_answer(self._now)

    def _arrival(self, request_id: int, index: int, size_bytes: int) -> None:
        request = self._end(request_id)
        if index in self._arrived:
            self._duplicates += 1
            return
        self._arrived.add(index)
        if request is not None:
            share = self._sources[request.source].share
            share.received_bytes += size_bytes
            share.chunk_count += 1

    def _failure(self, request_id: int, reason: ev.FailureReason, retry_after_seconds: float) -> None:
        request = self._end(request_id)
        if request is None:
            return
        source = self._sources[request.source]
        if reason is ev.FailureReason.BUSY:
            source.share.busy_answers += 1
            source.busy_until = max(source.busy_until, self._now + retry_after_seconds)
        elif reason is ev.FailureReason.LOST:
            source.share.losses += 1

    def _end(self, request_id: int) -> "_Request | None":
        request = self._requests.pop(request_id, None)
        if request is not None:
            source = self._sources[request.source]
            if not request.whole:
                self._unfinished -= 1
                if request.size_bytes:
                    self._answering -= 1
                    source.end_answer(self._now)
            source.end_request(self._now)
        return request


@dataclass(slots=True)
class _Request:
    """A request under way."""

    source: PeerId
    size_bytes: int = 0
    """Of the chunk; 0 until the source has chosen."""
    received_bytes: int = 0

    @property
    def whole(self) -> bool:
        return 0 < self.size_bytes <= self.received_bytes


@dataclass(slots=True)
class _Source:
    """A source so far, and the requests that it has."""

    share: SourceShare
    connected: bool = False
    asked: bool = False
    busy_until: float = 0.0
    requests: int = 0
    requests_since: float = 0.0
    answers: int = 0
    """Requests that it is answering."""
    queued_since: float = 0.0

    def request(self, now: float) -> None:
        if not self.requests:
            self.requests_since = self.queued_since = now
        self.requests += 1
        self.asked = True

    def begin_answer(self, now: float) -> None:
        if not self.answers:
            self.share.queued_seconds += now - self.queued_since
        self.answers += 1

    def end_answer(self, now: float) -> None:
        self.answers -= 1
        if not self.answers:
            self.queued_since = now

    def end_request(self, now: float) -> None:
        self.requests -= 1
        if not self.requests:
            self.share.working_seconds += now - self.requests_since
            self.share.queued_seconds += 0.0 if self.answers else now - self.queued_since

    def share_at(self, now: float) -> SourceShare:
        """Its share, with the time of requests under way."""
        working = now - self.requests_since if self.requests else 0.0
        queued = now - self.queued_since if self.requests and not self.answers else 0.0
        share = self.share
        return replace(
            share,
            working_seconds=share.working_seconds + working,
            queued_seconds=share.queued_seconds + queued,
            drops=share.drops.copy(),
        )


class _BestRate:
    """The most bytes in any second: a window that moves by tenths."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, int]] = deque()
        self._sum = 0
        self.most = 0
        """Most bytes within a second until now."""

    def add(self, count: int, at_seconds: float) -> None:
        """Count bytes that came."""
        slot = int(at_seconds / SLOT_SECONDS)
        before = self._slots.pop()[1] if self._slots and self._slots[-1][0] == slot else 0
        self._slots.append((slot, before + count))
        self._sum += count
        while self._slots[0][0] <= slot - round(BEST_RATE_SECONDS / SLOT_SECONDS):
            self._sum -= self._slots.popleft()[1]
        self.most = max(self.most, self._sum)

    def best(self, fetching_seconds: float, total_bytes: int) -> float:
        """Bytes a second; the average when there was no whole second."""
        if fetching_seconds >= BEST_RATE_SECONDS:
            return self.most / BEST_RATE_SECONDS
        return total_bytes / fetching_seconds if fetching_seconds > 0 else 0.0


class _Pauses:
    """Times without a byte, and what was waited for meanwhile."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._held_before = 0.0
        self._since = 0.0
        self._causes: dict[WaitCause, float] = {}
        self.seconds: dict[WaitCause, float] = {}
        self.longest_seconds = 0.0

    def add(self, cause: WaitCause, seconds: float) -> None:
        """Count time for that cause, if it turns out to be a pause."""
        self._causes[cause] = self._causes.get(cause, 0.0) + seconds

    def end(self, now: float, usual_seconds: float) -> None:
        """A byte came. usual_seconds: no shorter time is a pause."""
        seconds = now - self._since
        if seconds >= max(PAUSE_SECONDS, usual_seconds) and self._causes:
            if self._limit.held_seconds(now) - self._held_before > seconds / 2:
                self._causes = {WaitCause.LIMIT: seconds}
            for cause, part in self._causes.items():
                self.seconds[cause] = self.seconds.get(cause, 0.0) + part
            self.longest_seconds = max(self.longest_seconds, seconds)
        self.restart(now)

    def restart(self, now: float) -> None:
        """Forget what has passed since the last byte."""
        self._since = now
        self._held_before = self._limit.held_seconds(now)
        self._causes = {}
