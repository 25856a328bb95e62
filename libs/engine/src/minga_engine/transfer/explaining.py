"""Watches one download and says in the end where the bytes and the time went.

Fed with the scheduler's own events and instructions, in the order in which they happen: it decides nothing, and costs a
few additions for each. All of it is arithmetic on the clock that it is given.
"""

from collections import Counter
from dataclasses import dataclass, field

from minga_core.chunks import Geometry
from minga_core.clock import Clock
from minga_core.ids import PeerId
from minga_engine.explanation import Explanation, Phase, SourceShare, TransferPath, WaitCause
from minga_engine.swarm import events as ev
from minga_engine.transfer.pace import BestRate, Pauses
from minga_runtime.rate_limit import RateLimit


class TransferRecord:
    """What happens in one download. limit: the download limit that holds for it."""

    def __init__(self, clock: Clock, limit: RateLimit | None = None) -> None:
        self._clock = clock
        self._limit = limit or RateLimit(None)
        self._started = self._marked = clock.monotonic()
        self._phase = Phase.LOCATING
        self._phase_seconds: dict[Phase, float] = {}
        self._geometry: Geometry | None = None
        self._sources: dict[PeerId, _Source] = {}
        self._requests: dict[int, _Request] = {}
        self._unfinished = 0
        """Requests with bytes still to come."""
        self._sending = 0
        """Of those, requests that their sources have begun to answer."""
        self._arrived: set[int] = set()
        self._duplicates = 0
        self._received_bytes = 0
        self._rate = BestRate()
        self._pauses = Pauses(self._limit)

    # What the download tells.

    def begin(self, phase: Phase) -> None:
        """From now on, time goes into that phase. `WAITING` is found out here, while fetching."""
        self._mark()
        if self._phase is Phase.FETCHING:
            self._pauses.end(self._marked, 0.0)
        self._phase = phase
        self._pauses.restart(self._marked)

    def geometry(self, geometry: Geometry) -> None:
        """The chunks of the content, as soon as they are known."""
        self._geometry = geometry

    def event(self, event: ev.Event) -> None:
        """A fact that the scheduler is told; call it before the scheduler handles it."""
        self._mark()
        match event:
            case ev.BytesReceived(request_id, count):
                self._bytes(request_id, count)
            case ev.ChunkChosen(request_id, index):
                self._chosen(request_id, index)
            case ev.ChunkArrived():
                self._arrival(event)
            case ev.RequestFailed(request_id, reason):
                self._failure(request_id, reason, event.retry_after_seconds)
            case ev.ChunkCorrupt(request_id):
                if (request := self._end(request_id)) is not None:
                    self._sources[request.source].corrupt_chunks += 1
            case ev.SourceFound(source):
                found = self._source(source)
                found.complete |= event.complete
                found.same_zone = event.same_zone

    def instruction(self, instruction: ev.Instruction) -> None:
        """A deed that the scheduler wants; call it before it is carried out."""
        self._mark()
        match instruction:
            case ev.RequestChunk(request_id, source):
                self._ask(request_id, source)
            case ev.CancelRequest(request_id):
                self._end(request_id)
            case ev.ConnectSource(source):
                self._source(source).connected = True
            case ev.DropSource(source, why):
                found = self._source(source)
                found.connected = False
                found.drops[why] += 1

    def came_by(self, request_id: int, path: TransferPath) -> None:
        """How a request's bytes come, when not by gRPC; any time before the chunk arrives."""
        if (request := self._requests.get(request_id)) is not None:
            request.path = path

    # What it makes of it.

    def explanation(self, *, resumed_bytes: int = 0, hedges: int = 0) -> Explanation:
        """The download so far. hedges: as the scheduler counted them."""
        self._mark()
        sources = [source.share(peer_id, self._marked) for peer_id, source in self._sources.items() if source.asked]
        sources.sort(key=lambda share: (-share.received_bytes, -share.working_seconds))
        fetching = self._phase_seconds.get(Phase.FETCHING, 0.0)
        return Explanation(
            seconds=self._marked - self._started,
            size_bytes=self._geometry.size_bytes if self._geometry else 0,
            resumed_bytes=resumed_bytes,
            wasted_bytes=max(0, self._received_bytes - sum(share.received_bytes for share in sources)),
            hedges=hedges,
            duplicates=self._duplicates,
            sources=tuple(sources),
            phase_seconds=dict(self._phase_seconds),
            waited_seconds=dict(self._pauses.seconds),
            longest_wait_seconds=self._pauses.longest_seconds,
            longest_wait_cause=self._pauses.longest_cause,
            best_rate=self._rate.best(fetching, self._received_bytes),
            limit_rate=float(self._limit.bytes_per_second or 0),
        )

    # Time.

    def _mark(self) -> None:
        """Books the time since the last mark: what held then held until now."""
        now = self._clock.monotonic()
        passed, self._marked = now - self._marked, now
        if passed <= 0:
            return
        phase = self._phase
        if phase is Phase.FETCHING:
            cause = self._cause(now - passed)
            self._pauses.note(cause, passed)
            phase = Phase.WAITING if cause is WaitCause.NO_SOURCE else phase
        self._phase_seconds[phase] = self._phase_seconds.get(phase, 0.0) + passed

    def _cause(self, now: float) -> WaitCause:
        """What is waited for when no byte comes now."""
        if self._requests:
            if not self._unfinished:
                return WaitCause.DISK
            return WaitCause.SILENCE if self._sending else WaitCause.TURN
        connected = [source for source in self._sources.values() if source.connected]
        if not connected:
            return WaitCause.NO_SOURCE
        busy = all(source.busy_until > now for source in connected)
        return WaitCause.BUSY if busy else WaitCause.NOTHING_NEW

    # Requests.

    def _source(self, peer_id: PeerId) -> "_Source":
        return self._sources.setdefault(peer_id, _Source())

    def _ask(self, request_id: int, peer_id: PeerId) -> None:
        self._requests[request_id] = _Request(peer_id)
        self._unfinished += 1
        self._source(peer_id).begin(self._marked)

    def _chosen(self, request_id: int, index: int) -> None:
        request = self._requests.get(request_id)
        if request is not None and self._geometry is not None and not request.size_bytes:
            request.size_bytes = self._geometry.length(index)
            self._sending += 1
            self._sources[request.source].sends(self._marked)

    def _bytes(self, request_id: int, count: int) -> None:
        request = self._requests.get(request_id)
        if request is None:
            return
        self._received_bytes += count
        self._pauses.end(self._marked, 2 * count / self._rate.so_far if self._rate.so_far else 0.0)
        self._rate.add(count, self._marked - self._started)
        before = request.whole
        request.received_bytes += count
        if request.whole and not before:
            self._unfinished -= 1
            self._sending -= 1
            self._sources[request.source].sent(self._marked)

    def _arrival(self, event: ev.ChunkArrived) -> None:
        request = self._end(event.request_id)
        if event.index in self._arrived:
            self._duplicates += 1
            return
        self._arrived.add(event.index)
        if request is not None:
            self._sources[request.source].kept(event.size_bytes, request.path)

    def _failure(self, request_id: int, reason: ev.FailureReason, retry_after_seconds: float) -> None:
        request = self._end(request_id)
        if request is None:
            return
        source = self._sources[request.source]
        if reason is ev.FailureReason.BUSY:
            source.busy_answers += 1
            source.busy_until = max(source.busy_until, self._marked + retry_after_seconds)
        elif reason is ev.FailureReason.LOST:
            source.losses += 1

    def _end(self, request_id: int) -> "_Request | None":
        request = self._requests.pop(request_id, None)
        if request is not None:
            source = self._sources[request.source]
            if not request.whole:
                self._unfinished -= 1
                if request.size_bytes:
                    self._sending -= 1
                    source.sent(self._marked)
            source.end(self._marked)
        return request


@dataclass(slots=True)
class _Request:
    """A request under way."""

    source: PeerId
    path: TransferPath = TransferPath.GRPC
    size_bytes: int = 0
    """Of the chunk; 0 until the source has chosen."""
    received_bytes: int = 0

    @property
    def whole(self) -> bool:
        return 0 < self.size_bytes <= self.received_bytes


@dataclass(slots=True)
class _Source:
    """A source so far."""

    complete: bool = False
    same_zone: bool = False
    connected: bool = False
    asked: bool = False
    busy_until: float = 0.0
    outstanding: int = 0
    since: float = 0.0
    working_seconds: float = 0.0
    sending: int = 0
    queued_since: float = 0.0
    queued_seconds: float = 0.0
    received_bytes: int = 0
    chunk_count: int = 0
    bytes_by_path: Counter[TransferPath] = field(default_factory=Counter)
    busy_answers: int = 0
    losses: int = 0
    corrupt_chunks: int = 0
    drops: Counter[str] = field(default_factory=Counter)

    def begin(self, now: float) -> None:
        if not self.outstanding:
            self.since = self.queued_since = now
        self.outstanding += 1
        self.asked = True

    def sends(self, now: float) -> None:
        """It begins to answer one of its requests."""
        if not self.sending:
            self.queued_seconds += now - self.queued_since
        self.sending += 1

    def sent(self, now: float) -> None:
        """It has sent all of an answer, or sends no more of it."""
        self.sending -= 1
        if not self.sending:
            self.queued_since = now

    def end(self, now: float) -> None:
        self.outstanding -= 1
        if not self.outstanding:
            self.working_seconds += now - self.since
            self.queued_seconds += 0.0 if self.sending else now - self.queued_since

    def kept(self, size_bytes: int, path: TransferPath) -> None:
        self.received_bytes += size_bytes
        self.chunk_count += 1
        self.bytes_by_path[path] += size_bytes

    def share(self, peer_id: PeerId, now: float) -> SourceShare:
        return SourceShare(
            peer_id,
            complete=self.complete,
            same_zone=self.same_zone,
            received_bytes=self.received_bytes,
            chunk_count=self.chunk_count,
            working_seconds=self.working_seconds + (now - self.since if self.outstanding else 0.0),
            queued_seconds=self.queued_seconds
            + (now - self.queued_since if self.outstanding and not self.sending else 0.0),
            bytes_by_path=dict(self.bytes_by_path),
            busy_answers=self.busy_answers,
            losses=self.losses,
            corrupt_chunks=self.corrupt_chunks,
            drops=dict(self.drops),
        )
