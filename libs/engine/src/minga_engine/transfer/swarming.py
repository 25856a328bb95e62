"""Downloads one content from many peers: carries out the scheduler's instructions and feeds it with events.

All decisions are the scheduler's (`minga_engine.swarm`). This shell owns the requests, the tasks and the clock: each
instruction becomes a task or the end of one, each outcome an event. Everything runs on one event loop, so that `handle`
is never entered twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import Context
from typing import Any

from minga_core.chunks import ChunkSet
from minga_core.clock import Clock
from minga_core.errors import (
    BusyError,
    ChunkCorruptError,
    ContentChangedError,
    ContentNotHeldError,
    InvalidArgumentError,
    MingaError,
    NoSpaceError,
    StorageError,
)
from minga_core.ids import ContentId, PeerId
from minga_engine.parts.part import Part
from minga_engine.swarm import events as ev
from minga_engine.swarm.scheduler import Scheduler
from minga_engine.transfer.explaining import TransferRecord
from minga_engine.transfer.locating import VersionGoneError
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.source_spans import SourceSpans
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.transport import BufferPool, FetchedChunk, PeerBusyError, Transport, WantedChunks
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_NAMED_SOURCES = 256
"""Sources of one download that only other peers have named. Each costs time with every event."""

REPORT_SECONDS = 1.0
"""A download that is done waits so long until those that sent it wrong chunks know of it."""

FindSources = Callable[[], Awaitable[list[SourceAddress]]]
"""Looks up the holders of the content. May raise MingaError; the download goes on with the sources it has."""


class SwarmDownload:
    """Fills one part file from peers.

    part: an open part; the caller commits or closes it. whole: whether all of it is wanted; else only what is demanded.
    wire_id: what sources know the content by; the part's own id unless given. elsewhere: chunks that come another
    way, and are not requested. contended: see Scheduler.
    """

    def __init__(
        self,
        part: Part,
        transport: Transport,
        find_sources: FindSources,
        clock: Clock,
        options: TransferOptions,
        record: TransferRecord | None = None,
        *,
        whole: bool = True,
        wire_id: ContentId | None = None,
        elsewhere: ChunkSet | None = None,
        contended: bool = False,
    ) -> None:
        self._part = part
        self._content_id = wire_id or part.target.content_id
        self._geometry = part.manifest.geometry
        self._transport = transport
        self._find_sources = find_sources
        self._clock = clock
        self._requester = options.own_address
        self._metrics = options.metrics
        self._record = record or TransferRecord(clock)
        self._demand = options.demands.of(part.target.content_id)
        held = part.held if elsewhere is None else part.held | elsewhere
        self._scheduler = Scheduler(self._geometry, held, options.config, whole=whole, contended=contended)
        self._addresses: dict[PeerId, SourceAddress] = {}
        self._named_count = 0
        self._spans = SourceSpans.if_traced(self._content_id)
        self._buffers = BufferPool()
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._reports: set[asyncio.Task[None]] = set()
        self._watches: dict[PeerId, asyncio.Task[None]] = {}
        self._finding: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._done: asyncio.Future[None] | None = None
        self.received_by_source: dict[PeerId, int] = {}
        self.received_bytes = 0
        """Of chunks that are not whole yet, too."""
        self.directory_problem = ""
        """Why the last look-up of sources failed; empty when it did not."""
        self.dropped: dict[PeerId, ev.DropReason] = {}
        """Sources that are not used now, and why."""

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler, for progress and explanations."""
        return self._scheduler

    @property
    def sources(self) -> list[SourceAddress]:
        """All that it knows."""
        return list(self._addresses.values())

    @property
    def offered(self) -> ChunkSet:
        """Chunks that some connected source has (a copy)."""
        return self._scheduler.offered

    @property
    def waiting_seconds(self) -> float:
        """How long there has been no usable source; 0 when there is one."""
        since = self._scheduler.waiting_since
        return 0.0 if since is None else max(0.0, self._clock.monotonic() - since)

    async def run(self, sources: list[SourceAddress]) -> None:
        """Returns when every chunk is verified and written. Does not give up by itself; cancel it to stop.

        Raises NoSpaceError or StorageError for an error of the disk, and VersionGoneError of `find_sources` when no
        source is left. Leaves no task behind, however it ends.
        """
        if self._scheduler.finished:
            return
        self._done = asyncio.get_running_loop().create_future()
        try:
            # Sources first: with enough of them no look-up is due at once.
            self.add_sources(sources)
            self.feed(ev.Tick())
            with self._demand.followed(self.feed):
                await self._done
            if self._reports:
                await asyncio.wait(self._reports, timeout=REPORT_SECONDS)
        finally:
            await self._stop()
            if self._spans is not None:
                self._spans.end(self._record.explanation().sources)

    def add_sources(self, sources: list[SourceAddress]) -> None:
        """Adds peers that have, or are fetching, the content. An address replaces one that was known before: whatever
        went wrong there is not held against the peer."""
        for source in sources:
            if self._requester is not None and source.peer_id == self._requester.peer_id:
                continue
            known = self._addresses.get(source.peer_id)
            self._addresses[source.peer_id] = source
            if known is not None and known.address != source.address:
                self.feed(ev.SourceMoved(source.peer_id))
            self.feed(
                ev.SourceFound(
                    source.peer_id, complete=source.complete, same_zone=source.same_zone, listed=source.listed
                )
            )

    def add_new_sources(self, sources: Iterable[SourceAddress]) -> None:
        """As `add_sources`, for those that other peers name: only those not known yet, and so many at most."""
        new = [source for source in sources if source.peer_id not in self._addresses]
        new = new[: MAX_NAMED_SOURCES - self._named_count]
        self._named_count += len(new)
        self.add_sources(new)

    # Events in, instructions out.

    def feed(self, event: ev.Event) -> None:
        """Hands an event to the scheduler and carries out its instructions."""
        if self._done is None or self._done.done():
            return
        self._record.event(event)
        try:
            for instruction in self._scheduler.handle(event, self._clock.monotonic()):
                self._record.instruction(instruction)
                self._carry_out(instruction)
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self._fail(error)
            return
        self._set_timer()

    def _carry_out(self, instruction: ev.Action) -> None:
        match instruction:
            case ev.RequestChunk():
                if instruction.hedge:
                    self._metrics.hedged()
                self._requests[instruction.request_id] = self._spawn(
                    self._request(instruction), "request", self._traced(instruction)
                )
            case ev.CancelRequest(request_id):
                self._cancel(self._requests.pop(request_id, None))
            case ev.ConnectSource(source):
                self._cancel(self._watches.pop(source, None))
                self.dropped.pop(source, None)
                # A complete source has no updates, and its loss shows in its requests.
                if not self._addresses[source].complete:
                    self._watches[source] = self._spawn(self._watch(source), "watch")
            case ev.DropSource(source, why):
                self._metrics.dropped(why)
                self.dropped[source] = why
                log_event(log, logging.DEBUG, "source_dropped", source=source, why=why, content=self._content_id.short)
                if self._spans is not None:
                    self._spans.note(source, "source dropped", {"minga.reason": why})
                self._cancel(self._watches.pop(source, None))
            case ev.FindSources():
                if self._finding is None or self._finding.done():
                    self._finding = self._spawn(self._find(), "find")
            case ev.Finished():
                if self._done is not None and not self._done.done():
                    self._done.set_result(None)

    def _traced(self, wanted: ev.RequestChunk) -> Context | None:
        """The context that a request belongs to; None where nothing is traced."""
        if self._spans is None:
            return None
        context = self._spans.asking(self._addresses[wanted.source])
        if wanted.hedge:
            self._spans.note(wanted.source, "second request", {"minga.chunk": next(iter(wanted.candidates))})
        return context

    def _own_context(self) -> Context | None:
        """The download's, for what belongs to no one source; None where nothing is traced."""
        return None if self._spans is None else self._spans.context.copy()

    def _set_timer(self) -> None:
        """Wakes the scheduler at the time that it asked for. A timer that fires too early is set again, which costs
        less than setting it with every event."""
        wakeup_at = self._scheduler.wakeup_at
        if wakeup_at is None or self._done is None or self._done.done():
            return
        if self._timer is not None:
            if self._timer_at <= wakeup_at:
                return
            self._timer.cancel()
        self._timer_at = wakeup_at
        delay = max(0.0, wakeup_at - self._clock.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._timer = None
        wakeup_at = self._scheduler.wakeup_at
        if wakeup_at is not None and wakeup_at <= self._clock.monotonic():
            self.feed(ev.Tick())
        else:
            self._set_timer()

    # Actions.

    async def _request(self, wanted: ev.RequestChunk) -> None:
        request_id, source = wanted.request_id, wanted.source
        try:
            outcome = await self._fetch(wanted)
        except MingaError as error:
            outcome = self._failure(request_id, source, error)
        self._requests.pop(request_id, None)
        self.feed(outcome)

    async def _fetch(self, wanted: ev.RequestChunk) -> ev.Event:
        chunks = WantedChunks(self._content_id, self._geometry, wanted.candidates, self._requester, self._buffers)
        listener = _RequestListener(self, wanted.request_id)
        async with self._transport.fetch(self._addresses[wanted.source], chunks, listener) as chunk:
            if chunk is not None:
                return await self._keep(wanted, chunk)
        return ev.RequestFailed(wanted.request_id, ev.FailureReason.NOTHING_WANTED)

    async def _keep(self, wanted: ev.RequestChunk, chunk: FetchedChunk) -> ev.Event:
        """Verifies and writes a chunk. Raises ChunkCorruptError; an error of the disk ends the download."""
        try:
            # Also a caller that is cancelled continues at the end of the writing, where the buffer is used again.
            await self._part.write_chunk(chunk.index, chunk.data)
        except (NoSpaceError, StorageError) as error:
            self._fail(error)
            return ev.Tick()
        except ChunkCorruptError:
            self._reports.add(self._spawn(self._report(wanted.source, chunk.index), "report"))
            raise
        count = len(chunk.data)
        self.received_by_source[wanted.source] = self.received_by_source.get(wanted.source, 0) + count
        self._metrics.received(wanted.source, count, complete=self._addresses[wanted.source].complete)
        return ev.ChunkArrived(wanted.request_id, chunk.index, count)

    def _failure(self, request_id: int, source: PeerId, error: MingaError) -> ev.Event:
        """The event that an error of a request means."""
        if isinstance(error, ChunkCorruptError | InvalidArgumentError):
            log_event(log, logging.WARNING, "chunk_refused", source=source, content=self._content_id.short, error=error)
            self._metrics.corrupt(source)
            if self._spans is not None:
                self._spans.note(source, "chunk refused", {"minga.reason": str(error)})
            return ev.ChunkCorrupt(request_id)
        if isinstance(error, PeerBusyError):
            self.add_new_sources(error.sources)
        if isinstance(error, BusyError):
            after = error.retry_after.total_seconds()
            return ev.RequestFailed(request_id, ev.FailureReason.BUSY, retry_after_seconds=after)
        if isinstance(error, ContentNotHeldError):
            return ev.RequestFailed(request_id, ev.FailureReason.NOT_HELD)
        if isinstance(error, ContentChangedError):
            return ev.RequestFailed(request_id, ev.FailureReason.CONTENT_CHANGED)
        log_event(log, logging.DEBUG, "request_failed", source=source, content=self._content_id.short, error=error)
        return ev.RequestFailed(request_id, ev.FailureReason.LOST)

    async def _report(self, source: PeerId, index: int) -> None:
        """Have a source look at a chunk that it sent wrong."""
        try:
            await self._transport.report_wrong(self._addresses[source], self._content_id, index)
        except MingaError as error:
            log_event(
                log, logging.DEBUG, "report_not_taken", source=source, content=self._content_id.short, error=error
            )

    async def _watch(self, source: PeerId) -> None:
        """Follows what a source holds until it is complete or lost."""
        known = False

        def update(chunks: ChunkSet, complete: bool) -> None:
            nonlocal known
            snapshot, known = not known, True
            self.feed(ev.SourceHolds(source, chunks, snapshot=snapshot))

        try:
            address, count = self._addresses[source], self._geometry.chunk_count
            await self._transport.watch(address, self._content_id, count, update)
        except MingaError as error:
            log_event(log, logging.DEBUG, "watch_lost", source=source, content=self._content_id.short, error=error)
            self.feed(ev.SourceLost(source))

    async def _find(self) -> None:
        try:
            found = await self._find_sources()
        except VersionGoneError as error:
            if self._scheduler.waiting_since is not None:
                self._fail(error)
            return
        except MingaError as error:
            self.directory_problem = str(error)
            return
        self.directory_problem = ""
        self.add_sources(found)

    # Tasks: every one is owned here and gone when `run` ends.

    def _spawn(self, work: Coroutine[Any, Any, None], kind: str, context: Context | None = None) -> asyncio.Task[None]:
        """context: None for the download's."""
        if context is None:
            context = self._own_context()
        task = asyncio.create_task(work, name=f"swarm-{kind}-{self._content_id.short}", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    @staticmethod
    def _cancel(task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._done is not None and not self._done.done():
            self._done.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _RequestListener:
    """Turns the progress of one request into events. Implements ChunkListener."""

    def __init__(self, swarm: SwarmDownload, request_id: int) -> None:
        self._swarm = swarm
        self._request_id = request_id

    def found_sources(self, sources: tuple[SourceAddress, ...]) -> None:
        """See ChunkListener."""
        self._swarm.add_new_sources(sources)

    def chosen(self, index: int) -> None:
        """See ChunkListener."""
        self._swarm.feed(ev.ChunkChosen(self._request_id, index))

    def received(self, count: int) -> None:
        """See ChunkListener."""
        self._swarm.received_bytes += count
        self._swarm.feed(ev.BytesReceived(self._request_id, count))
