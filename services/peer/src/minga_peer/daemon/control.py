"""The control service: what clients on this machine may ask of this daemon. Messages of the contract stop here."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from minga_core.batching import by_size
from minga_core.clock import Clock
from minga_core.errors import RegistryUnavailableError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name, parse_prefix, parse_upload_name
from minga_core.records import FileRow, PeerInfo
from minga_engine.progress import Progress
from minga_engine.transfer.download import DownloadRequest
from minga_engine.wire.control import (
    progress_to_pb,
    small_file_bytes,
    small_file_to_pb,
    small_names_from_pb,
    verify_progress_to_pb,
)
from minga_engine.wire.messages import timestamp_of
from minga_peer.daemon.announcer import Announcer
from minga_peer.daemon.downloads import Downloads, Job
from minga_peer.origins.cache import CachedFile
from minga_peer.origins.naming import OriginNames
from minga_peer.origins.origins import Origins
from minga_peer.share.conditions import Condition
from minga_peer.share.scrub import ScrubState
from minga_peer.share.store import ContentStore
from minga_peer.share.table import FileTable
from minga_protos.control.v1 import control_pb2 as pb
from minga_protos.control.v1.control_pb2_grpc import ControlServiceServicer

CACHED_A_MESSAGE = 1_000
"""Files in a ListCacheResponse (contract: control.proto)."""
DONE_BYTES = 1024 * 1024
"""Of the files in a DownloadFilesResponse (contract: control.proto)."""
ANNOUNCE_WAIT = timedelta(seconds=5)
"""How long a removal waits until the registry has it; the file is gone all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFacts:
    """The part of a status that does not change."""

    registry: str
    locator: str
    started_at: float
    """By the monotonic clock."""
    source_wait: timedelta | None
    limit_up: int
    """Bytes per second; 0: no limit."""
    limit_down: int


@dataclass(frozen=True, slots=True)
class TrafficCounts:
    """Payload since the start, read at each status."""

    sent_bytes: Callable[[], int]
    received_bytes: Callable[[], int]
    active_serves: Callable[[], int]


class ControlService(ControlServiceServicer):
    """Implements `minga.control.v1.ControlService`."""

    def __init__(
        self,
        store: ContentStore,
        table: FileTable,
        announcer: Announcer,
        downloads: Downloads,
        origins: Origins,
        names: OriginNames,
        peer_info: Callable[[], PeerInfo],
        gateway_url: Callable[[], str],
        traffic: TrafficCounts,
        facts: DaemonFacts,
        clock: Clock,
    ) -> None:
        self._store = store
        self._table = table
        self._announcer = announcer
        self._downloads = downloads
        self._origins = origins
        self._names = names
        self._peer_info = peer_info
        self._gateway_url = gateway_url
        self._traffic = traffic
        self._facts = facts
        self._clock = clock

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:  # noqa: N802
        """Implements the contract's method of that name."""
        info, status = self._peer_info(), self._store.status()
        uptime = Duration()
        uptime.FromTimedelta(timedelta(seconds=self._clock.monotonic() - self._facts.started_at))
        return pb.GetStatusResponse(
            peer_id=info.peer_id,
            generation=info.generation,
            address=info.address,
            share_dir=str(self._store.root),
            registered=self._announcer.registered,
            table_revision=self._table.revision,
            announced_revision=self._announcer.announced_revision,
            file_count=status.file_count,
            shared_bytes=status.shared_bytes,
            pending_hash_count=status.pending_hash_count,
            ignored_count=status.ignored_count,
            free_bytes=status.free_bytes,
            sent_bytes=self._traffic.sent_bytes(),
            received_bytes=self._traffic.received_bytes(),
            downloads=[_transfer(job) for job in self._downloads.jobs],
            active_serves=self._traffic.active_serves(),
            registry=self._facts.registry,
            locator=self._facts.locator,
            software_version=info.software_version,
            uptime=uptime,
            pid=os.getpid(),
            conditions=[_condition(each) for each in self._store.conditions.all()],
            limit_up_bytes_per_second=self._facts.limit_up,
            limit_down_bytes_per_second=self._facts.limit_down,
            gateway_url=self._gateway_url(),
            scrub=_scrub(status.scrub, self._store.scrub.period_seconds),
        )

    async def Download(  # noqa: N802
        self, request: pb.DownloadRequest, context: Any
    ) -> AsyncIterator[pb.DownloadResponse]:
        """Implements the contract's method of that name."""
        if request.url:
            async with aclosing(self._fetch(request)) as fetching:
                async for progress in fetching:
                    yield progress_to_pb(progress)
            return
        wanted = DownloadRequest(
            parse_name(request.name),
            ContentId(request.content_id) if request.content_id else None,
            overwrite=request.overwrite,
            source_wait=self._source_wait(request),
        )
        async with aclosing(self._downloads.follow(wanted)) as steps:
            async for progress, _ in steps:
                # The registry learns of the new holder with the next push; the client has the file now.
                yield progress_to_pb(progress)

    async def _fetch(self, request: pb.DownloadRequest) -> AsyncGenerator[Progress, None]:
        """A file of an origin; the last progress says where it is."""
        publish_as = parse_upload_name(request.name) if request.name else None
        file = await self._names.file(request.url, request.digest, request.origin_headers)
        async with aclosing(self._origins.get(file)) as steps:
            async for progress in steps:
                if progress.path is not None and progress.content_id is not None and publish_as is not None:
                    await self._origins.publish(progress.content_id, publish_as, overwrite=request.overwrite)
                yield progress

    async def DownloadFiles(  # noqa: N802
        self, request: pb.DownloadFilesRequest, context: Any
    ) -> AsyncIterator[pb.DownloadFilesResponse]:
        """Implements the contract's method of that name."""
        names = small_names_from_pb(request)
        async with aclosing(self._downloads.follow_small(names)) as steps:
            async for done in steps:
                for some in by_size(done, small_file_bytes, DONE_BYTES):
                    yield pb.DownloadFilesResponse(files=map(small_file_to_pb, some))

    def _source_wait(self, request: pb.DownloadRequest) -> timedelta | None:
        """Unset: the daemon's setting; 0: never give up."""
        if not request.HasField("source_wait"):
            return self._facts.source_wait
        asked = request.source_wait.ToTimedelta()
        return asked if asked > timedelta(0) else None

    async def RemoveFile(  # noqa: N802
        self, request: pb.RemoveFileRequest, context: Any
    ) -> pb.RemoveFileResponse:
        """Implements the contract's method of that name."""
        row = await remove_file(self._store, self._announcer, parse_name(request.name))
        return pb.RemoveFileResponse(modified_time=timestamp_of(row.modified_ns))

    async def ListCache(  # noqa: N802
        self, request: pb.ListCacheRequest, context: Any
    ) -> AsyncIterator[pb.ListCacheResponse]:
        """Implements the contract's method of that name."""
        cache = self._origins.cache
        files = cache.files()
        for start in range(0, max(1, len(files)), CACHED_A_MESSAGE):
            some = [_cached(file) for file in files[start : start + CACHED_A_MESSAGE]]
            yield pb.ListCacheResponse(files=some, limit_bytes=cache.limit_bytes)

    async def PinCached(self, request: pb.PinCachedRequest, context: Any) -> pb.PinCachedResponse:  # noqa: N802
        """Implements the contract's method of that name."""
        await self._origins.cache.pin(parse_name(request.name), pinned=request.pinned)
        return pb.PinCachedResponse()

    async def VerifyFiles(  # noqa: N802
        self, request: pb.VerifyFilesRequest, context: Any
    ) -> AsyncIterator[pb.VerifyFilesResponse]:
        """Implements the contract's method of that name."""
        async with aclosing(self._store.verify(parse_prefix(request.prefix))) as steps:
            async for progress in steps:
                yield verify_progress_to_pb(progress)


async def remove_file(store: ContentStore, announcer: Announcer, name: Name) -> FileRow:
    """Remove a shared file, and wait a moment until the registry knows; when it is away, it learns of it once it is
    back. Raises as `ContentStore.remove`."""
    row = await store.remove(name)
    if announcer.registered:
        with suppress(RegistryUnavailableError):
            await announcer.announced(row, ANNOUNCE_WAIT)
    return row


def _cached(file: CachedFile) -> pb.CachedFile:
    return pb.CachedFile(
        name=file.name,
        size_bytes=file.size_bytes,
        use_time=timestamp_of(int(file.used_at * 1e9)),
        pinned=file.pinned,
        url=file.url,
    )


def _condition(condition: Condition) -> pb.Condition:
    return pb.Condition(
        kind=condition.kind,
        count=condition.count,
        examples=condition.examples,
        begin_time=timestamp_of(int(condition.began_at * 1e9)),
        text=condition.text,
    )


def _scrub(state: ScrubState, period_seconds: float) -> pb.ScrubStatus:
    found = pb.ScrubStatus(under_way=state.under_way, read_bytes=state.read_bytes)
    if period_seconds:
        found.period.FromTimedelta(timedelta(seconds=period_seconds))
    if state.ended_at:
        found.last_end_time.CopyFrom(timestamp_of(int(state.ended_at * 1e9)))
    return found


def _transfer(job: Job) -> pb.TransferStatus:
    progress = job.progress
    return pb.TransferStatus(
        name=job.request.name,
        content_id=progress.content_id.raw if progress.content_id else b"",
        size_bytes=progress.size_bytes,
        held_bytes=progress.held_bytes,
        rate_bytes_per_second=job.rate(),
        active_source_count=len(progress.received_by_source),
    )
