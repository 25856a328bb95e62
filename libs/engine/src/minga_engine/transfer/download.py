"""One file from the network into place: locate, manifest, swarm, commit.

::

    LOCATING ──► FETCHING ⇄ WAITING ──► FINISHING ──► DONE
        └────► ALREADY_PRESENT

What differs between a daemon and a lone command is where the bytes go: see `Destination`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from minga_core.attributes import NO_ATTRIBUTES, FileAttributes
from minga_core.chunks import ChunkSet, Geometry
from minga_core.clock import Clock
from minga_core.errors import MingaError, NoSourcesError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import FileRow
from minga_core.units import format_seconds
from minga_engine.explanation import Phase
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PartTarget
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.swarm.config import SwarmConfig
from minga_engine.swarm.events import DropReason
from minga_engine.transfer.demand import Demands
from minga_engine.transfer.explaining import TransferRecord
from minga_engine.transfer.locating import Directory, Located, ManifestFetcher, SourceFinder, VersionGoneError
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.source_spans import download_attributes
from minga_engine.transfer.swarming import SwarmDownload
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.transport import Transport
from minga_runtime import tracing
from minga_runtime.logs import log_event
from minga_runtime.rate_limit import RateLimit

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.5
REPORT_SECONDS = 1.0
"""Between reports of a step that has no progress of its own; a client gives up after a minute without any."""
RETRY_SECONDS = 1.0
"""How often the directory is asked again while nobody can give the manifest."""
UNLISTED_TRIES = 3
"""How often sources that the directory does not name are asked for the manifest: their addresses may be anybody's."""
MAX_SHOWN_SOURCES = 3
"""Sources that a message says the state of."""
REMOVED = (DropReason.NOT_HELD, DropReason.CONTENT_CHANGED)
"""What sources that have removed a file are dropped for."""
LIMITED_AHEAD_SECONDS = 4.0
"""With a download limit no more is asked for than comes in that time: chunks that creep in side by side are late all of
them, and lost with their sources."""
LIMITED_STALL_BYTES = 16 * 1024 * 1024
"""With a download limit a source is not taken for stalled before so much could have come from others."""

OnProgress = Callable[[Progress], None]


class Destination(Protocol):
    """The place of downloaded files."""

    async def present(self, name: Name, content_id: ContentId) -> Path | None:
        """Where the file is, when it is there already and whole."""
        ...

    async def begin_part(self, target: PartTarget, *, overwrite: bool, reading: bool) -> Part:
        """Begin a part, or resume the one that an earlier attempt has left.

        reading: whether it may never be put in place, so that what has its name is not in its way before that. Raises
        NameTakenError (another content has the name, and not overwrite), NoSpaceError, StorageError,
        AlreadyRunningError (that part is being written already).
        """
        ...

    def path_of(self, name: Name) -> Path:
        """Where the finished file will be."""
        ...


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """What to download, and how long to wait for sources."""

    name: Name
    content_id: ContentId | None = None
    """Pins a version; None: the newest."""
    overwrite: bool = False
    source_wait: timedelta | None = None
    """Give up when no source was reachable for this long; None: never."""
    sources: list[SourceAddress] = field(default_factory=list)
    """Peers known beforehand; with content_id and published_ns the locator is not needed to begin. Those that it does
    not name are given up soon."""
    published_ns: int | None = None
    """The source's time of publication, or FOUND."""
    attributes: FileAttributes = NO_ATTRIBUTES
    """Those of the version that is pinned by content_id and published_ns."""
    tag: bytes = b""
    """The proof of published_ns, or the ticket of an upload that is replicated; see FileRow."""
    reading: bool = False
    """Fetch what is demanded (`TransferOptions.demands`), and put it in place only if somebody wants the file to stay;
    else nothing is left of what this download began."""

    @classmethod
    def of(
        cls, file: Located, *, overwrite: bool = False, source_wait: timedelta | None = None, reading: bool = False
    ) -> "DownloadRequest":
        """Of a version that was located: the locator is not needed to begin."""
        return cls(
            file.name,
            file.content_id,
            overwrite=overwrite,
            source_wait=source_wait,
            sources=file.sources,
            published_ns=file.published_ns,
            attributes=file.attributes,
            tag=file.tag,
            reading=reading,
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """A download that is done."""

    progress: Progress
    row: FileRow | None
    """None when the file was there already."""


class Downloader:
    """Downloads files into a destination. One for a process; any number of downloads at once."""

    def __init__(
        self,
        destination: Destination,
        directory: Directory,
        transport: Transport,
        clock: Clock,
        options: TransferOptions | None = None,
    ) -> None:
        options = options or TransferOptions()
        self._destination = destination
        self._directory = directory
        self._transport = transport
        self._clock = clock
        self._options = replace(options, config=_within(options.config, options.down))
        self._manifests = ManifestFetcher(transport)

    @property
    def demands(self) -> Demands:
        """What is read while it arrives."""
        return self._options.demands

    async def download(self, request: DownloadRequest, on_progress: OnProgress) -> Finished:
        """Downloads one file and returns once it is whole and in place. Safe to retry: it resumes.

        A version that is gone meanwhile is given up for the newest, unless the request pins it. Raises
        VersionGoneError, FileNotFoundInDirectoryError, NameTakenError, NoSpaceError, StorageError, NoSourcesError,
        LocatorUnavailableError, AlreadyRunningError. However it ends, verified chunks are kept.
        """
        record = TransferRecord(self._clock, self._options.down)
        with tracing.span("download", {"minga.file.name": request.name}) as span:
            try:
                finished = await self._download_newest(request, record, on_progress)
            except (MingaError, asyncio.CancelledError) as error:
                why = error.code if isinstance(error, MingaError) else "cancelled"
                explanation = record.explanation()
                log_event(log, logging.INFO, "download_stopped", name=request.name, why=why, **explanation.log_fields())
                span.set_attributes(download_attributes(why, explanation))
                raise
            if span.is_recording():
                last = finished.progress
                span.set_attributes({"minga.content.id": str(last.content_id), "file.size": last.size_bytes})
                span.set_attributes(download_attributes(last.phase, last.explanation))
            return finished

    async def _download_newest(
        self, request: DownloadRequest, record: TransferRecord, on_progress: OnProgress
    ) -> Finished:
        while True:
            try:
                return await self._download(request, record, on_progress)
            except VersionGoneError as error:
                if request.content_id is not None:
                    raise
                log_event(log, logging.INFO, "version_gone", name=request.name, error=error)
                record.begin(Phase.LOCATING)

    async def _download(self, request: DownloadRequest, record: TransferRecord, on_progress: OnProgress) -> Finished:
        on_progress(Progress(DownloadPhase.LOCATING))
        located = await self._locate(request)
        locating = Progress(DownloadPhase.LOCATING, located.size_bytes, content_id=located.content_id)
        if not request.reading:
            with _reporting(lambda: on_progress(locating)):
                path = await self._destination.present(request.name, located.content_id)
            if path is not None:
                return Finished(_present(located, path, on_progress), None)
        record.begin(Phase.MANIFEST)
        manifest = await self._manifest(request, located, record, on_progress)
        record.geometry(manifest.geometry)
        with _reporting(lambda: on_progress(locating)):
            target = PartTarget(
                request.name, manifest, manifest.content_id, located.published_ns, located.attributes, located.tag
            )
            part = await self._destination.begin_part(target, overwrite=request.overwrite, reading=request.reading)
        demand, was_here = self._options.demands.of(located.content_id), part.held_count > 0
        try:
            return await self._fill(request, located, part, record, on_progress)
        finally:
            if request.reading and not was_here and not demand.in_place.is_set():
                await part.discard()
            await part.close()

    async def _locate(self, request: DownloadRequest) -> Located:
        if request.content_id is not None and request.published_ns is not None:
            return Located(
                request.name,
                request.content_id,
                0,
                request.published_ns,
                request.sources,
                request.attributes,
                request.tag,
            )
        return await self._directory.locate(request.name, request.content_id)

    async def _manifest(
        self, request: DownloadRequest, located: Located, record: TransferRecord, on_progress: OnProgress
    ) -> Manifest:
        """The manifest, from the located sources or, within the caller's `source_wait`, from those found later."""
        since = self._clock.monotonic()
        finder = SourceFinder(self._directory, located, self._clock)
        sources, listed, tries = located.sources, True, 0
        while True:
            tries += 1
            manifest, refused = await self._manifests.fetch(located.content_id, sources)
            if manifest is not None:
                return manifest
            _check_wait(request, self._clock.monotonic() - since)
            message = "no source is reachable; waiting for one to come back"
            if not listed:
                message = "nobody has this version now; waiting for a source to come back"
            on_progress(
                Progress(DownloadPhase.WAITING, located.size_bytes, message=message, content_id=located.content_id)
            )
            record.begin(Phase.WAITING)
            await asyncio.sleep(RETRY_SECONDS)
            record.begin(Phase.MANIFEST)
            try:
                found = await finder.find(refused)
                sources, listed = found or sources, bool(found)
            except VersionGoneError:
                raise
            except MingaError as error:
                log_event(log, logging.DEBUG, "directory_away", error=error)
            if tries >= UNLISTED_TRIES:
                sources = [source for source in sources if source.listed]

    async def _fill(
        self,
        request: DownloadRequest,
        located: Located,
        part: Part,
        record: TransferRecord,
        on_progress: OnProgress,
    ) -> Finished:
        while True:
            swarm = self._swarm(request, located, part, record)
            meter = _Meter(part, swarm, located.content_id)
            on_progress(meter.progress())
            record.begin(Phase.FETCHING)
            await self._run_swarm(request, located, swarm, meter, on_progress)
            if part.held.complete and await self._to_be_placed(request, part):
                break
            # A chunk went bad on this disk since it was written: it is fetched once more.
        part.overwrite |= self.demands.of(located.content_id).overwrite
        record.begin(Phase.FINISHING)
        finishing = replace(meter.progress(), phase=DownloadPhase.FINISHING)
        with tracing.span("put in place"), _reporting(lambda: on_progress(finishing)):
            row = await part.commit()
        last = meter.progress()
        done = replace(
            last,
            phase=DownloadPhase.DONE,
            message="",
            path=self._destination.path_of(request.name),
            explanation=record.explanation(resumed_bytes=last.resumed_bytes, hedges=swarm.scheduler.hedges),
        )
        _log_done(request, done)
        if done.explanation is not None and (ratio := done.explanation.lasting_ratio) is not None:
            self._options.metrics.transferred(ratio)
        on_progress(done)
        return Finished(done, row)

    def _swarm(self, request: DownloadRequest, located: Located, part: Part, record: TransferRecord) -> SwarmDownload:
        finder = SourceFinder(self._directory, located, self._clock)

        async def find_sources() -> list[SourceAddress]:
            return await finder.find([source for source, why in swarm.dropped.items() if why in REMOVED])

        swarm = SwarmDownload(
            part, self._transport, find_sources, self._clock, self._options, record, whole=not request.reading
        )
        return swarm

    async def _to_be_placed(self, request: DownloadRequest, part: Part) -> bool:
        """Returns once the file is to be put in place; false when a chunk went bad meanwhile."""
        if not request.reading:
            return True
        demand = self._options.demands.of(part.manifest.content_id)
        while not demand.in_place.is_set() and part.held.complete:
            with suppress(TimeoutError):
                async with asyncio.timeout(PROGRESS_SECONDS):
                    await demand.in_place.wait()
        await part.verify_resumed()
        return part.held.complete

    async def _run_swarm(
        self, request: DownloadRequest, located: Located, swarm: SwarmDownload, meter: "_Meter", on_progress: OnProgress
    ) -> None:
        """Runs the swarm to its end; reports progress, and checks the caller's `source_wait`, meanwhile."""
        running = asyncio.create_task(swarm.run(located.sources), name=f"swarm-{located.content_id.short}")
        try:
            while not (await asyncio.wait({running}, timeout=PROGRESS_SECONDS))[0]:
                on_progress(meter.progress())
                _check_wait(request, swarm.waiting_seconds, _why(swarm))
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def _within(config: SwarmConfig, down: RateLimit) -> SwarmConfig:
    """The config for a download limit: fewer bytes in flight, and a later stall of sources that have to wait for it."""
    if down.bytes_per_second is None:
        return config
    ahead_bytes = int(down.bytes_per_second * LIMITED_AHEAD_SECONDS)
    return replace(
        config,
        max_outstanding_bytes=min(config.max_outstanding_bytes, ahead_bytes),
        stall_seconds=max(config.stall_seconds, LIMITED_STALL_BYTES / down.bytes_per_second),
    )


def _log_done(request: DownloadRequest, done: Progress) -> None:
    """Logs a download's canonical line."""
    fields = done.explanation.log_fields() if done.explanation else {}
    log_event(log, logging.INFO, "download_finished", name=request.name, content_id=done.content_id, **fields)


@contextmanager
def _reporting(report: Callable[[], None]) -> Iterator[None]:
    """Report at once, and every second until the end of the block: reading or syncing a large file may take minutes."""
    loop = asyncio.get_running_loop()
    timer: asyncio.Handle

    def tick() -> None:
        nonlocal timer
        report()
        timer = loop.call_later(REPORT_SECONDS, tick)

    timer = loop.call_soon(tick)
    try:
        yield
    finally:
        timer.cancel()


class _Meter:
    """The progress of a running download."""

    def __init__(self, part: Part, swarm: SwarmDownload, content_id: ContentId) -> None:
        self._swarm = swarm
        self._geometry = part.manifest.geometry
        self._content_id = content_id
        self._resumed_bytes = _bytes_of(part.held, self._geometry)

    def progress(self) -> Progress:
        waiting = self._swarm.waiting_seconds
        received = dict(self._swarm.received_by_source)
        message = ""
        if waiting > 0:
            why = f" ({reasons})" if (reasons := _why(self._swarm)) else ""
            message = f"no source is usable since {format_seconds(waiting)}{why}; it goes on when one is back"
        return Progress(
            DownloadPhase.WAITING if message else DownloadPhase.FETCHING,
            self._geometry.size_bytes,
            _bytes_of(self._swarm.scheduler.held, self._geometry),
            self._resumed_bytes,
            received,
            message,
            self._content_id,
        )


def _why(swarm: SwarmDownload) -> str:
    """Why there is no source; empty when no more is known than that."""
    reasons = [f"{source}: {why}" for source, why in list(swarm.dropped.items())[-MAX_SHOWN_SOURCES:]]
    return "; ".join([swarm.directory_problem, *reasons] if swarm.directory_problem else reasons)


def _check_wait(request: DownloadRequest, waited_seconds: float, why: str = "") -> None:
    """Raises NoSourcesError once the caller has waited for a source for longer than it wants to."""
    limit = request.source_wait
    if limit is not None and waited_seconds > limit.total_seconds():
        raise NoSourcesError(
            f"no source of {request.name} was usable for {format_seconds(waited_seconds)}"
            + (f" ({why})" if why else ""),
            hint="what was fetched is kept: run the same command again to go on",
        )


def _present(located: Located, path: Path, on_progress: OnProgress) -> Progress:
    done = Progress(
        DownloadPhase.ALREADY_PRESENT,
        located.size_bytes,
        located.size_bytes,
        located.size_bytes,
        content_id=located.content_id,
        path=path,
    )
    on_progress(done)
    return done


def _bytes_of(held: ChunkSet, geometry: Geometry) -> int:
    """Payload bytes of a set of chunks."""
    count = geometry.chunk_count
    total = len(held) * geometry.chunk_size_bytes
    return total - (geometry.chunk_size_bytes - geometry.length(count - 1)) if count - 1 in held else total
