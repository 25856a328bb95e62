"""The daemon's downloads: one job for each file being downloaded, however many callers want it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from minga_core.attributes import NO_ATTRIBUTES, FileAttributes
from minga_core.clock import Clock
from minga_core.errors import LimitExceededError, NoSourcesError, NoSpaceError, StorageError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FOUND, FileRow
from minga_core.units import format_seconds
from minga_engine.progress import DownloadPhase, Progress, SmallDone
from minga_engine.transfer.demand import Demands
from minga_engine.transfer.download import Downloader, DownloadRequest, Finished
from minga_engine.transfer.locating import Directory, VersionGoneError
from minga_engine.transfer.small_downloads import SmallDownloads
from minga_engine.wire.messages import SourceAddress
from minga_runtime import tracing
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_JOBS = 256
"""Bound of the downloads at once; commands that fetch folders stay far below it."""
MAX_REPLICATIONS = MAX_JOBS // 2
"""Of those, downloads that others asked for. The owner's own always have the other half."""
REPLICATION_IDLE_SECONDS = 300.0
"""A replication that gets nothing new for so long ends. Longer than an uploader at a low limit needs for a chunk."""
RATE_WINDOW_SECONDS = 3.0
_BY_ITSELF = (DownloadPhase.LOCATING, DownloadPhase.FINISHING)
"""Phases that need no source: what is here is read, what has come is synced, for minutes when it is large."""


class DownloadMetrics(Protocol):
    """What downloads count."""

    def download_ended(self, outcome: str, seconds: float) -> None:
        """Count a download. outcome: done, already_present, failed or cancelled."""

    def disk_failed(self, error: StorageError | NoSpaceError) -> None:
        """Count a download that an error of the disk ended."""


@dataclass(slots=True)
class Job:
    """One file being downloaded."""

    request: DownloadRequest
    task: asyncio.Task[Finished] | None = None
    progress: Progress = field(default_factory=lambda: Progress(DownloadPhase.LOCATING))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0
    replication: bool = False
    """Another peer asked for it."""
    traceparent: str = field(default_factory=tracing.traceparent)
    """The traceparent of the span that started it."""
    samples: list[tuple[float, int]] = field(default_factory=list)
    """(monotonic seconds, held bytes) of the last few seconds, for the rate."""

    def rate(self) -> float:
        """Bytes per second over the last few seconds."""
        if len(self.samples) < 2:
            return 0.0
        (start, first), (end, last) = self.samples[0], self.samples[-1]
        return max(0.0, (last - first) / (end - start)) if end > start else 0.0


class Downloads:
    """Runs jobs. A job whose last follower goes away is cancelled; its verified chunks are kept."""

    def __init__(
        self,
        downloader: Downloader,
        small: SmallDownloads,
        directory: Directory,
        clock: Clock,
        metrics: DownloadMetrics,
    ) -> None:
        self._downloader = downloader
        self._small = small
        self._directory = directory
        self._metrics = metrics
        self._clock = clock
        self._jobs: dict[tuple[Name, ContentId | None], Job] = {}

    @property
    def demands(self) -> Demands:
        """What is read while it arrives."""
        return self._downloader.demands

    @property
    def jobs(self) -> list[Job]:
        """Downloads in progress."""
        return list(self._jobs.values())

    async def follow(
        self, request: DownloadRequest, *, replication: bool = False
    ) -> AsyncGenerator[tuple[Progress, FileRow | None], None]:
        """Start the download, or join one in progress; progress as it changes, the row with the last item.

        The row is None when the file was there already. Raises what `Downloader.download` raises, and
        LimitExceededError.
        """
        while True:
            pinned = await self._resolved(request)
            try:
                with self._wanted(pinned):
                    async with aclosing(self._follow(pinned, replication=replication)) as steps:
                        async for step in steps:
                            yield step
                return
            except VersionGoneError:
                # By name: the newest is another one now, or there is none.
                if request.content_id is not None:
                    raise

    def _wanted(self, pinned: DownloadRequest) -> AbstractContextManager[None]:
        """All of the content is wanted, for as long as this is open, unless somebody only reads it."""
        if pinned.reading or pinned.content_id is None:
            return nullcontext()
        return self._downloader.demands.of(pinned.content_id).want_all(overwrite=pinned.overwrite)

    async def _follow(
        self, request: DownloadRequest, *, replication: bool
    ) -> AsyncGenerator[tuple[Progress, FileRow | None], None]:
        """As `follow`, for a request whose version is pinned."""
        key = (request.name, request.content_id)
        job = self._jobs.get(key)
        if job is None:
            job = self._start(key, request, replication=replication)
        else:
            tracing.current().add_event("joined a download", {"minga.download.traceparent": job.traceparent})
        job.followers += 1
        try:
            async with aclosing(self._changes(job)) as changes:
                async for progress in changes:
                    yield progress, None
            if job.task is None:
                raise RuntimeError("a job has a task")
            finished = await asyncio.shield(job.task)
            yield finished.progress, finished.row
        finally:
            job.followers -= 1
            if job.followers == 0:
                await self._end(key, job)

    async def _resolved(self, request: DownloadRequest) -> DownloadRequest:
        """The request with its version pinned, so that all requests for one content share a job."""
        if request.content_id is not None and request.published_ns is not None:
            return request
        located = await self._directory.locate(request.name, request.content_id)
        return replace(
            request,
            content_id=located.content_id,
            sources=located.sources,
            published_ns=located.published_ns,
            tag=located.tag,
            attributes=located.attributes,
        )

    async def replicate(
        self,
        name: Name,
        content_id: ContentId,
        sources: list[SourceAddress],
        *,
        overwrite: bool,
        attributes: FileAttributes = NO_ATTRIBUTES,
        ticket: bytes = b"",
    ) -> AsyncGenerator[tuple[Progress, FileRow | None], None]:
        """A download from given sources. Implements `Replicator`.

        Raises as `follow`, and NoSourcesError when nothing new came for REPLICATION_IDLE_SECONDS.
        """
        request = DownloadRequest(
            name,
            content_id,
            overwrite=overwrite,
            sources=sources,
            published_ns=FOUND,
            attributes=attributes,
            tag=ticket,
        )
        held_bytes, since = -1, self._clock.monotonic()
        async with aclosing(self.follow(request, replication=True)) as steps:
            async for progress, row in steps:
                yield progress, row
                now = self._clock.monotonic()
                if progress.held_bytes > held_bytes or progress.phase in _BY_ITSELF:
                    held_bytes, since = progress.held_bytes, now
                elif now - since > REPLICATION_IDLE_SECONDS:
                    raise NoSourcesError(f"nothing new of {name} came for {format_seconds(now - since)}")

    async def follow_small(self, names: Sequence[Name]) -> AsyncGenerator[list[SmallDone], None]:
        """Download many small files; those that are in place and shared, as they arrive. See SmallDownloads."""
        started, finished = self._clock.monotonic(), asyncio.Queue[list[SmallDone] | None]()
        task = asyncio.create_task(self._small.download(names, finished.put_nowait), name="small-files")
        task.add_done_callback(lambda _: finished.put_nowait(None))
        count = 0
        try:
            while (done := await finished.get()) is not None:
                count += len(done)
                self._count_small(done, self._clock.monotonic() - started)
                yield done
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            seconds = round(self._clock.monotonic() - started, 3)
            log_event(log, logging.INFO, "small_files_finished", done=count, asked=len(names), seconds=seconds)

    def _count_small(self, done: list[SmallDone], seconds: float) -> None:
        for one in done:
            self._metrics.download_ended("already_present" if one.source is None else "done", seconds)

    async def aclose(self) -> None:
        """Stop every job and wait for it."""
        for key, job in list(self._jobs.items()):
            await self._end(key, job)

    def _start(self, key: tuple[Name, ContentId | None], request: DownloadRequest, *, replication: bool) -> Job:
        if len(self._jobs) >= MAX_JOBS:
            raise LimitExceededError(f"{MAX_JOBS} downloads are in progress; try again when some are done")
        if replication and sum(job.replication for job in self._jobs.values()) >= MAX_REPLICATIONS:
            raise LimitExceededError(f"{MAX_REPLICATIONS} replications are in progress; try again when some are done")
        job = self._jobs[key] = Job(request, replication=replication)
        job.task = asyncio.create_task(self._run(job), name=f"download-{request.name}")
        job.task.add_done_callback(lambda _: job.changed.set())
        return job

    async def _run(self, job: Job) -> Finished:
        """Run a job and count how it ended."""
        outcome, started = "failed", self._clock.monotonic()
        try:
            finished = await self._downloader.download(job.request, lambda progress: self._record(job, progress))
            outcome = "already_present" if finished.row is None else "done"
            return finished
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except (NoSpaceError, StorageError) as error:
            self._metrics.disk_failed(error)
            raise
        finally:
            self._metrics.download_ended(outcome, self._clock.monotonic() - started)

    def _record(self, job: Job, progress: Progress) -> None:
        now = self._clock.monotonic()
        job.progress = progress
        job.samples.append((now, progress.held_bytes))
        while len(job.samples) > 2 and job.samples[0][0] < now - RATE_WINDOW_SECONDS:
            job.samples.pop(0)
        job.changed.set()

    @staticmethod
    async def _changes(job: Job) -> AsyncGenerator[Progress, None]:
        """Progress each time it changed, until the job is done; a slow follower skips some."""
        while job.task is not None and not job.task.done():
            yield job.progress
            job.changed.clear()
            if not job.task.done():
                await job.changed.wait()

    async def _end(self, key: tuple[Name, ContentId | None], job: Job) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]
        if job.task is not None:
            job.task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await job.task
